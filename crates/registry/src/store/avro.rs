//! An Avro schema as a registry sees it: its identity, and the types that the compatibility check walks.
//!
//! Two texts are one schema to a registry when the Avro library for Java prints them alike: it drops blanks, orders the attributes,
//! takes a namespace that is the enclosing one for granted, and names a type by its name after the first time. That text is what
//! Confluent's registry stores and compares, so [`AvroSchema::text`] is that text. It is not the specification's "Parsing Canonical
//! Form", which drops defaults and the attributes that are not Avro's own.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The longest text that is taken for a schema, in bytes: a record of Kafka holds no more by default.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// The attributes that have a place of their own; all others are kept in the order in which they were written.
const RESERVED: &[&str] =
    &["type", "name", "namespace", "doc", "aliases", "fields", "symbols", "size", "items", "values"];
const RESERVED_IN_FIELD: &[&str] = &["name", "type", "doc", "default", "order", "aliases"];

/// A schema that has been read: every name is defined, and every type has what it needs.
#[derive(Debug, Clone)]
pub struct AvroSchema {
    text: String,
    pub(super) root: Type,
    pub(super) named: HashMap<String, Named>,
}

/// A text that is no Avro schema, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSchema(String);

/// A type where it is used. Records, enums and fixed are named, and found in [`AvroSchema::named`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    Primitive(Primitive, Option<Decimal>),
    Array(Box<Type>),
    Map(Box<Type>),
    Union(Vec<Type>),
    Named(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Primitive {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
}

/// The logical type `decimal`, the only one that says how bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    pub(super) precision: u64,
    pub(super) scale: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Named {
    /// Full names that this type answers to as a reader.
    pub(super) aliases: Vec<String>,
    pub(super) shape: Shape,
}

#[derive(Debug, Clone)]
pub(super) enum Shape {
    Record(Vec<Field>),
    Enum { symbols: Vec<String>, has_default: bool },
    Fixed { size: u64, decimal: Option<Decimal> },
}

#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) has_default: bool,
    pub(super) of: Type,
}

impl AvroSchema {
    /// Reads a schema: a JSON text, or the bare name of a primitive type as some clients send it.
    ///
    /// # Errors
    /// It is no schema. Defaults are not compared with their types, as registries do not do it either unless asked.
    pub fn parse(text: &str) -> Result<Self, InvalidSchema> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(InvalidSchema(format!("it has more than {TEXT_BYTES_MAX} bytes")));
        }
        let json = match serde_json::from_str(text) {
            Ok(json) => json,
            Err(_) if Primitive::by_name(text.trim()).is_some() => Value::String(text.trim().to_owned()),
            Err(error) => return Err(InvalidSchema(format!("it is not JSON: {error}"))),
        };
        let mut reader = Reader { text: String::with_capacity(text.len()), named: HashMap::new() };
        let root = reader.read(&json, None)?;
        Ok(Self { text: reader.text, root, named: reader.named })
    }

    /// The schema's text as Confluent's registry stores it. Schemas with the same text are the same to a registry.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl Primitive {
    const ALL: [(&'static str, Self); 8] = [
        ("null", Self::Null),
        ("boolean", Self::Boolean),
        ("int", Self::Int),
        ("long", Self::Long),
        ("float", Self::Float),
        ("double", Self::Double),
        ("bytes", Self::Bytes),
        ("string", Self::String),
    ];

    fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, primitive)| *primitive)
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, primitive)| *primitive == self).map_or("", |(name, _)| name)
    }
}

/// Reads types and writes the text of each as it goes. The JSON parser's limit on nesting bounds the recursion.
struct Reader {
    text: String,
    named: HashMap<String, Named>,
}

impl Reader {
    fn read(&mut self, json: &Value, space: Option<&str>) -> Result<Type, InvalidSchema> {
        match json {
            Value::String(name) => self.read_name(name, space),
            Value::Array(branches) => self.read_union(branches, space),
            Value::Object(attributes) => self.read_object(attributes, space),
            other => Err(InvalidSchema(format!("{other} is no type"))),
        }
    }

    fn read_name(&mut self, name: &str, space: Option<&str>) -> Result<Type, InvalidSchema> {
        if let Some(primitive) = Primitive::by_name(name) {
            self.push_string(name);
            return Ok(Type::Primitive(primitive, None));
        }
        let full = full_name(name, space);
        let full = [full.as_str(), name].into_iter().find(|name| self.named.contains_key(*name));
        let Some(full) = full.map(str::to_owned) else {
            return Err(InvalidSchema(format!("the type {name:?} is not defined before it is used")));
        };
        match full.rsplit_once('.') {
            Some((its_space, simple)) if Some(its_space) == space => self.push_string(simple),
            _ => self.push_string(&full),
        }
        Ok(Type::Named(full))
    }

    fn read_union(&mut self, branches: &[Value], space: Option<&str>) -> Result<Type, InvalidSchema> {
        let mut types: Vec<Type> = Vec::with_capacity(branches.len());
        self.text.push('[');
        for (index, branch) in branches.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            let branch = self.read(branch, space)?;
            let is_again = |other: &Type| match (other, &branch) {
                (Type::Primitive(one, _), Type::Primitive(other, _)) => one == other,
                (Type::Named(one), Type::Named(other)) => one == other,
                (Type::Array(_), Type::Array(_)) | (Type::Map(_), Type::Map(_)) => true,
                _ => false,
            };
            if matches!(branch, Type::Union(_)) || types.iter().any(is_again) {
                return Err(InvalidSchema("a union holds another union, or the same type twice".to_owned()));
            }
            types.push(branch);
        }
        self.text.push(']');
        Ok(Type::Union(types))
    }

    fn read_object(&mut self, attributes: &Map<String, Value>, space: Option<&str>) -> Result<Type, InvalidSchema> {
        let of = attributes.get("type").ok_or_else(|| InvalidSchema("an object has no \"type\"".to_owned()))?;
        let Value::String(of) = of else {
            return Err(InvalidSchema(
                "the \"type\" of an object is no name; only that of a field may be a type".to_owned(),
            ));
        };
        match of.as_str() {
            "array" | "map" => {
                let (attribute, is_map) = if of == "map" { ("values", true) } else { ("items", false) };
                let member = attributes
                    .get(attribute)
                    .ok_or_else(|| InvalidSchema(format!("a type {of:?} has no {attribute:?}")))?;
                let _ = write!(self.text, "{{\"type\":\"{of}\",\"{attribute}\":");
                let member = Box::new(self.read(member, space)?);
                self.push_others(attributes, RESERVED);
                self.text.push('}');
                Ok(if is_map { Type::Map(member) } else { Type::Array(member) })
            }
            "record" | "error" | "enum" | "fixed" => self.read_named(of, attributes, space),
            name => match Primitive::by_name(name) {
                Some(primitive) => {
                    if attributes.keys().all(|attribute| RESERVED.contains(&attribute.as_str())) {
                        self.push_string(name);
                    } else {
                        let _ = write!(self.text, "{{\"type\":\"{name}\"");
                        self.push_others(attributes, RESERVED);
                        self.text.push('}');
                    }
                    let decimal = if primitive == Primitive::Bytes { decimal(attributes) } else { None };
                    Ok(Type::Primitive(primitive, decimal))
                }
                None => self.read_name(name, space),
            },
        }
    }

    fn read_named(
        &mut self,
        of: &str,
        attributes: &Map<String, Value>,
        space: Option<&str>,
    ) -> Result<Type, InvalidSchema> {
        let name = text_of(attributes, "name").ok_or_else(|| InvalidSchema(format!("a type {of:?} has no name")))?;
        let own_space =
            attributes.get("namespace").map_or(space, |space| space.as_str().filter(|space| !space.is_empty()));
        let full = full_name(name, own_space);
        if full.is_empty() || full.split('.').any(str::is_empty) {
            return Err(InvalidSchema(format!("{full:?} is no name of a type")));
        }
        let (its_space, simple) = match full.rsplit_once('.') {
            Some((space, simple)) => (Some(space.to_owned()), simple.to_owned()),
            None => (None, full.clone()),
        };
        let aliases = strings(attributes, "aliases")?;
        let aliases = aliases.iter().map(|alias| full_name(alias, its_space.as_deref())).collect();
        // It may be used within itself, so it is known before its fields are.
        let unfinished = Named { aliases, shape: Shape::Record(Vec::new()) };
        if self.named.insert(full.clone(), unfinished).is_some() {
            return Err(InvalidSchema(format!("the type {full:?} is defined twice")));
        }
        let _ = write!(self.text, "{{\"type\":\"{of}\",\"name\":");
        self.push_string(&simple);
        if its_space.as_deref() != space {
            self.text.push_str(",\"namespace\":");
            self.push_string(its_space.as_deref().unwrap_or_default());
        }
        self.push_attribute(attributes, "doc");
        let mut reserved = RESERVED;
        let shape = match of {
            "enum" => {
                reserved = &["type", "name", "namespace", "doc", "aliases", "symbols", "default"];
                let symbols = strings(attributes, "symbols")?;
                if !attributes.contains_key("symbols") {
                    return Err(InvalidSchema(format!("the enum {full:?} has no symbols")));
                }
                self.push_attribute(attributes, "symbols");
                self.push_attribute(attributes, "default");
                Shape::Enum { symbols, has_default: attributes.contains_key("default") }
            }
            "fixed" => {
                let size = attributes.get("size").and_then(Value::as_u64);
                let size = size.ok_or_else(|| InvalidSchema(format!("the fixed type {full:?} has no size")))?;
                self.push_attribute(attributes, "size");
                Shape::Fixed { size, decimal: decimal(attributes) }
            }
            _ => self.read_fields(&full, attributes, its_space.as_deref())?,
        };
        self.push_others(attributes, reserved);
        self.push_attribute(attributes, "aliases");
        self.text.push('}');
        if let Some(named) = self.named.get_mut(&full) {
            named.shape = shape;
        }
        Ok(Type::Named(full))
    }

    fn read_fields(
        &mut self,
        record: &str,
        attributes: &Map<String, Value>,
        space: Option<&str>,
    ) -> Result<Shape, InvalidSchema> {
        let invalid = |why: &str| InvalidSchema(format!("the record {record:?}: {why}"));
        let Some(Value::Array(members)) = attributes.get("fields") else { return Err(invalid("it has no fields")) };
        let mut fields: Vec<Field> = Vec::with_capacity(members.len());
        self.text.push_str(",\"fields\":[");
        for (index, member) in members.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            let Value::Object(member) = member else { return Err(invalid("a field is no object")) };
            let name = text_of(member, "name").ok_or_else(|| invalid("a field has no name"))?;
            if fields.iter().any(|field| field.name == name) {
                return Err(invalid(&format!("the field {name:?} is there twice")));
            }
            let of = member.get("type").ok_or_else(|| invalid(&format!("the field {name:?} has no type")))?;
            self.text.push_str("{\"name\":");
            self.push_string(name);
            self.text.push_str(",\"type\":");
            let of = self.read(of, space)?;
            self.push_attribute(member, "doc");
            self.push_attribute(member, "default");
            if text_of(member, "order").is_some_and(|order| order != "ascending") {
                self.push_attribute(member, "order");
            }
            self.push_attribute(member, "aliases");
            self.push_others(member, RESERVED_IN_FIELD);
            self.text.push('}');
            fields.push(Field {
                name: name.to_owned(),
                aliases: strings(member, "aliases")?,
                has_default: member.contains_key("default"),
                of,
            });
        }
        self.text.push(']');
        Ok(Shape::Record(fields))
    }

    fn push_string(&mut self, text: &str) {
        self.push_json(&Value::String(text.to_owned()));
    }

    fn push_json(&mut self, json: &Value) {
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{json}");
    }

    fn push_attribute(&mut self, attributes: &Map<String, Value>, name: &str) {
        if let Some(json) = attributes.get(name) {
            self.text.push(',');
            self.push_string(name);
            self.text.push(':');
            self.push_json(json);
        }
    }

    fn push_others(&mut self, attributes: &Map<String, Value>, reserved: &[&str]) {
        for name in attributes.keys().filter(|name| !reserved.contains(&name.as_str())) {
            self.push_attribute(attributes, name);
        }
    }
}

fn full_name(name: &str, space: Option<&str>) -> String {
    match space {
        Some(space) if !name.contains('.') => format!("{space}.{name}"),
        _ => name.to_owned(),
    }
}

fn text_of<'a>(attributes: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    attributes.get(name).and_then(Value::as_str)
}

fn strings(attributes: &Map<String, Value>, name: &str) -> Result<Vec<String>, InvalidSchema> {
    let invalid = || InvalidSchema(format!("{name:?} is no list of strings"));
    let Some(json) = attributes.get(name) else { return Ok(Vec::new()) };
    let members = json.as_array().ok_or_else(invalid)?;
    members.iter().map(|member| member.as_str().map(str::to_owned).ok_or_else(invalid)).collect()
}

/// A decimal that is not well formed is none, as the specification has it.
fn decimal(attributes: &Map<String, Value>) -> Option<Decimal> {
    if text_of(attributes, "logicalType") != Some("decimal") {
        return None;
    }
    let precision = attributes.get("precision").and_then(Value::as_u64)?;
    let scale = attributes.get("scale").map_or(Some(0), Value::as_u64)?;
    Some(Decimal { precision, scale })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        let schema = AvroSchema::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(schema.text(), expect);
        let again = AvroSchema::parse(expect).expect("what is printed is a schema");
        assert_eq!(again.text(), expect, "the text of the text is the text");
    }

    /// Each expectation is what `new Schema.Parser().parse(text).toString()` of the Avro library for Java 1.11 gives.
    #[test]
    fn the_text_is_that_of_the_java_library() {
        check("string", r#""string""#);
        check(r#" {"type" : "string"} "#, r#""string""#);
        check(r#"{"connect.version":1,"type":"string"}"#, r#"{"type":"string","connect.version":1}"#);
        check(
            r#"{"name":"a.b.R","fields":[{"type":["null","int"],"default":null,"name":"x","order":"ascending"}],"type":"record","aliases":["Old"]}"#,
            r#"{"type":"record","name":"R","namespace":"a.b","fields":[{"name":"x","type":["null","int"],"default":null}],"aliases":["Old"]}"#,
        );
        check(
            r#"{"type":"record","name":"R","namespace":"a","fields":[
                {"name":"x","type":{"type":"record","name":"S","namespace":"a","fields":[{"name":"self","type":["null","a.R"]}]}},
                {"name":"y","type":"a.S"},
                {"name":"z","type":{"type":"fixed","name":"F","namespace":"other","size":4}},
                {"name":"w","type":"other.F"}]}"#,
            r#"{"type":"record","name":"R","namespace":"a","fields":[{"name":"x","type":{"type":"record","name":"S","fields":[{"name":"self","type":["null","R"]}]}},{"name":"y","type":"S"},{"name":"z","type":{"type":"fixed","name":"F","namespace":"other","size":4}},{"name":"w","type":"other.F"}]}"#,
        );
        check(
            r#"{"type":"enum","symbols":["A"],"default":"A","name":"E","extra":{"k":[1.0]}}"#,
            r#"{"type":"enum","name":"E","symbols":["A"],"default":"A","extra":{"k":[1.0]}}"#,
        );
        check(
            r#"{"items":{"type":"map","values":"long"},"type":"array","x":1}"#,
            r#"{"type":"array","items":{"type":"map","values":"long"},"x":1}"#,
        );
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for (text, expect) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("7", "7 is no type"),
            (r#"{"name":"x"}"#, "has no \"type\""),
            (r#""nonsense""#, "not defined"),
            (r#"{"type":"record","name":"R"}"#, "has no fields"),
            (r#"{"type":"record","fields":[]}"#, "has no name"),
            (r#"{"type":"record","name":"a..R","fields":[]}"#, "no name of a type"),
            (r#"{"type":"record","name":"R","fields":[{"name":"x"}]}"#, "has no type"),
            (
                r#"{"type":"record","name":"R","fields":[{"name":"x","type":"int"},{"name":"x","type":"int"}]}"#,
                "there twice",
            ),
            (r#"{"type":"fixed","name":"F"}"#, "has no size"),
            (r#"{"type":"enum","name":"E"}"#, "has no symbols"),
            (r#"{"type":"enum","name":"E","symbols":[1]}"#, "no list of strings"),
            (r#"["null",["int"]]"#, "another union"),
            (r#"["int","int"]"#, "twice"),
            (r#"[{"type":"fixed","name":"F","size":1},{"type":"fixed","name":"F","size":1}]"#, "defined twice"),
        ] {
            let error = AvroSchema::parse(text).expect_err(text);
            assert!(error.to_string().contains(expect), "{text}: {error}");
        }
        assert!(AvroSchema::parse(&"[".repeat(100_000)).is_err(), "nesting is bounded");
        assert!(AvroSchema::parse(&format!("\"{}\"", "x".repeat(2 << 20))).is_err(), "length is bounded");
    }
}
