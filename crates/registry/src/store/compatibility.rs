//! Whether data that was written with one schema can be read with another: the specification's "Schema Resolution", asked of schemas
//! alone, as the Avro library for Java and so Confluent's registry ask it.
//!
//! The check of the crate apache-avro does not serve here. It compares a type's name with its definition and finds that they differ
//! ("wrong type"), although both are one type: a table that loses the first of two columns of the same named type is then
//! incompatible with itself.
//!
//! In one place this is stricter than Confluent's registry, and follows the specification: a decimal's scale must stay, since it is not
//! in the data, and a reader would read a hundredth for a whole. Its precision may grow.

use std::collections::HashSet;

use super::avro::{AvroSchema, Decimal, Named, Primitive, Shape, Type};

/// How many reasons are told; whoever mends the first few sees the rest.
const REASONS_MAX: usize = 10;

/// How many pairs of types are compared. Unions of namesakes can be nested so that their number doubles at each level; no table comes
/// near.
const STEPS_MAX: u32 = 200_000;

/// Why a reader with the one schema cannot read what was written with the other; empty when it can. Each reason begins with the place.
pub(super) fn why_unreadable(reader: &AvroSchema, writer: &AvroSchema) -> Vec<String> {
    let mut check = Check { reader, writer, assumed: HashSet::new(), reasons: Vec::new(), steps: 0 };
    check.compare(&reader.root, &writer.root, "");
    check.reasons.truncate(REASONS_MAX);
    check.reasons
}

struct Check<'a> {
    reader: &'a AvroSchema,
    writer: &'a AvroSchema,
    /// Pairs of named types that were compared, or are being compared further up: what is wrong with them is told once.
    assumed: HashSet<(&'a str, &'a str)>,
    reasons: Vec<String>,
    steps: u32,
}

impl<'a> Check<'a> {
    /// Notes why the reader's type cannot read the writer's, and whether it can.
    fn compare(&mut self, reader: &'a Type, writer: &'a Type, place: &str) -> bool {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return self.tell(place, "the schemas are too involved to be compared");
        }
        match (reader, writer) {
            (_, Type::Union(branches)) => {
                let mut readable = true;
                for branch in branches {
                    readable &= self.compare(reader, branch, place);
                }
                readable
            }
            (Type::Union(branches), _) => self.compare_with_any(branches, writer, place),
            (Type::Primitive(to, to_decimal), Type::Primitive(from, from_decimal)) => {
                if !promotes(*from, *to) {
                    return self.tell(place, &format!("{} cannot be read as {}", from.name(), to.name()));
                }
                self.compare_decimals(*to_decimal, *from_decimal, place)
            }
            (Type::Array(reader), Type::Array(writer)) | (Type::Map(reader), Type::Map(writer)) => {
                self.compare(reader, writer, &format!("{place}/[]"))
            }
            (Type::Named(reader), Type::Named(writer)) => self.compare_named(reader, writer, place),
            (reader, writer) => {
                let found = format!("{} cannot be read as {}", words(writer, self.writer), words(reader, self.reader));
                self.tell(place, &found)
            }
        }
    }

    fn compare_with_any(&mut self, branches: &'a [Type], writer: &'a Type, place: &str) -> bool {
        // A branch of the same name or kind is the one that is meant, so that its reasons are those to be told.
        let mut meant = None;
        for branch in branches {
            let mut attempt = Check {
                reader: self.reader,
                writer: self.writer,
                assumed: self.assumed.clone(),
                reasons: Vec::new(),
                steps: self.steps,
            };
            let readable = attempt.compare(branch, writer, place);
            self.steps = attempt.steps;
            if readable {
                self.assumed = attempt.assumed;
                return true;
            }
            let is_meant = match (branch, writer) {
                (Type::Named(one), Type::Named(other)) => simple(one) == simple(other),
                (Type::Primitive(one, _), Type::Primitive(other, _)) => one == other,
                (Type::Array(_), Type::Array(_)) | (Type::Map(_), Type::Map(_)) => true,
                _ => false,
            };
            if is_meant {
                meant = Some(attempt.reasons);
            }
        }
        if let Some(reasons) = meant {
            self.reasons.extend(reasons);
            return false;
        }
        self.tell(place, &format!("the reader's union has no type for {}", words(writer, self.writer)))
    }

    fn compare_named(&mut self, reader: &'a str, writer: &'a str, place: &str) -> bool {
        if !self.assumed.insert((reader, writer)) {
            return true;
        }
        let (Some(to), Some(from)) = (self.reader.named.get(reader), self.writer.named.get(writer)) else {
            return self.tell(place, "a type is not defined");
        };
        if simple(reader) != simple(writer) && !to.aliases.iter().any(|alias| alias == writer) {
            return self.tell(place, &format!("{writer} cannot be read as {reader}"));
        }
        match (&to.shape, &from.shape) {
            (Shape::Record(_), Shape::Record(_)) => self.compare_fields(to, from, place),
            (Shape::Enum { symbols: known, has_default }, Shape::Enum { symbols, .. }) => {
                let missing: Vec<&str> =
                    symbols.iter().filter(|symbol| !known.contains(symbol)).map(String::as_str).collect();
                if missing.is_empty() || *has_default {
                    return true;
                }
                self.tell(place, &format!("the reader's enum {reader} lacks {}", missing.join(", ")))
            }
            (Shape::Fixed { size: to, decimal: to_decimal }, Shape::Fixed { size: from, decimal: from_decimal }) => {
                if to != from {
                    return self.tell(place, &format!("{from} bytes of {writer} cannot be read as {to}"));
                }
                self.compare_decimals(*to_decimal, *from_decimal, place)
            }
            _ => self.tell(place, &format!("{writer} and {reader} are of different kinds")),
        }
    }

    fn compare_fields(&mut self, reader: &'a Named, writer: &'a Named, place: &str) -> bool {
        let (Shape::Record(wanted), Shape::Record(written)) = (&reader.shape, &writer.shape) else { return false };
        let mut readable = true;
        for field in wanted {
            let place = format!("{place}/{}", field.name);
            let names = std::iter::once(&field.name).chain(&field.aliases);
            let found = names.into_iter().find_map(|name| written.iter().find(|written| written.name == *name));
            readable &= match found {
                Some(written) => self.compare(&field.of, &written.of, &place),
                None if field.has_default => true,
                None => self.tell(&place, "it was not written, and the reader has no default for it"),
            };
        }
        readable
    }

    fn compare_decimals(&mut self, reader: Option<Decimal>, writer: Option<Decimal>, place: &str) -> bool {
        match (reader, writer) {
            (Some(to), Some(from)) if to.scale != from.scale || to.precision < from.precision => self.tell(
                place,
                &format!(
                    "a decimal({},{}) cannot be read as decimal({},{})",
                    from.precision, from.scale, to.precision, to.scale
                ),
            ),
            _ => true,
        }
    }

    fn tell(&mut self, place: &str, found: &str) -> bool {
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(format!("{}: {found}", if place.is_empty() { "/" } else { place }));
        }
        false
    }
}

/// A type as it is told.
fn words(of: &Type, schema: &AvroSchema) -> String {
    match of {
        Type::Primitive(primitive, _) => primitive.name().to_owned(),
        Type::Array(_) => "an array".to_owned(),
        Type::Map(_) => "a map".to_owned(),
        Type::Union(_) => "a union".to_owned(),
        Type::Named(name) => match schema.named.get(name).map(|named| &named.shape) {
            Some(Shape::Enum { .. }) => format!("the enum {name}"),
            Some(Shape::Fixed { .. }) => format!("the fixed {name}"),
            _ => format!("the record {name}"),
        },
    }
}

/// Names are compared without their namespaces, as the library for Java does.
fn simple(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, simple)| simple)
}

fn promotes(from: Primitive, to: Primitive) -> bool {
    use Primitive::{Bytes, Double, Float, Int, Long, String};
    from == to
        || matches!(
            (from, to),
            (Int, Long | Float | Double) | (Long, Float | Double) | (Float, Double) | (String, Bytes) | (Bytes, String)
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reader: &str, writer: &str, expect: &[&str]) {
        let [reader, writer] = [reader, writer].map(|text| AvroSchema::parse(text).expect("a schema"));
        assert_eq!(why_unreadable(&reader, &writer), expect);
    }

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
    }

    const ID: &str = r#"{"name":"id","type":"int"}"#;

    #[test]
    fn fields_come_and_go_by_their_defaults() {
        let with = |field: &str| record(&format!("{ID},{field}"));
        let (nullable, required) =
            (with(r#"{"name":"n","type":["null","string"],"default":null}"#), with(r#"{"name":"n","type":"string"}"#));
        let missing = ["/n: it was not written, and the reader has no default for it"];
        check(&nullable, &record(ID), &[]);
        check(&record(ID), &nullable, &[]);
        check(&required, &record(ID), &missing);
        check(&record(ID), &required, &[]);
        check(&nullable, &required, &[]);
        check(&required, &nullable, &["/n: null cannot be read as string"]);
        check(&with(r#"{"name":"m","aliases":["n"],"type":"string"}"#), &required, &[]);
        check(&record(ID), &record(r#"{"name":"id","type":"string"}"#), &["/id: string cannot be read as int"]);
    }

    /// The whole table of promotions of the specification.
    #[test]
    fn numbers_widen_and_bytes_are_strings() {
        let all = Primitive::ALL_NAMES;
        let allowed = [
            ("int", "long"),
            ("int", "float"),
            ("int", "double"),
            ("long", "float"),
            ("long", "double"),
            ("float", "double"),
            ("string", "bytes"),
            ("bytes", "string"),
        ];
        for from in all {
            for to in all {
                let expect = format!("/: {from} cannot be read as {to}");
                let expect: &[&str] = if from == to || allowed.contains(&(from, to)) { &[] } else { &[&expect] };
                check(&format!("\"{to}\""), &format!("\"{from}\""), expect);
            }
        }
    }

    #[test]
    fn unions_are_compared_branch_by_branch() {
        check(r#"["null","string"]"#, r#""string""#, &[]);
        check(r#"["null","long"]"#, r#""int""#, &[]);
        check(r#""int""#, r#"["int"]"#, &[]);
        check(r#""int""#, r#"["int","null"]"#, &["/: null cannot be read as int"]);
        check(r#"["null","int"]"#, r#"["int","null"]"#, &[]);
        check(r#"["int","string"]"#, r#"["int","boolean"]"#, &["/: the reader's union has no type for boolean"]);
        check(r#"["null"]"#, "[]", &[]);
    }

    #[test]
    fn named_types_are_compared_by_name_and_shape() {
        let fixed = |name: &str, size: u32| format!(r#"{{"type":"fixed","name":"{name}","size":{size}}}"#);
        check(&fixed("a.F", 4), &fixed("b.F", 4), &[]);
        check(&fixed("F", 4), &fixed("F", 5), &["/: 5 bytes of F cannot be read as 4"]);
        check(&fixed("F", 4), &fixed("G", 4), &["/: G cannot be read as F"]);
        let symbols =
            |symbols: &str, more: &str| format!(r#"{{"type":"enum","name":"E","symbols":[{symbols}]{more}}}"#);
        check(&symbols(r#""A","B""#, ""), &symbols(r#""A""#, ""), &[]);
        check(&symbols(r#""A""#, ""), &symbols(r#""A","B""#, ""), &["/: the reader's enum E lacks B"]);
        check(&symbols(r#""A""#, r#","default":"A""#), &symbols(r#""A","B""#, ""), &[]);
        check(
            r#"{"type":"record","name":"New","aliases":["Old"],"fields":[]}"#,
            r#"{"type":"record","name":"Old","fields":[]}"#,
            &[],
        );
        check(
            r#"{"type":"array","items":"int"}"#,
            r#"{"type":"map","values":"int"}"#,
            &["/: a map cannot be read as an array"],
        );
        check(
            r#"{"type":"array","items":"int"}"#,
            r#"{"type":"array","items":"string"}"#,
            &["/[]: string cannot be read as int"],
        );
    }

    /// The case that apache-avro gets wrong: where the writer names the type, the reader defines it.
    #[test]
    fn a_name_and_its_definition_are_one_type() {
        let variable = r#"{"type":"record","name":"V","fields":[{"name":"scale","type":"int"}]}"#;
        let both = record(&format!(r#"{{"name":"a","type":{variable}}},{{"name":"b","type":"V"}}"#));
        let second = record(&format!(r#"{{"name":"b","type":{variable}}}"#));
        check(&second, &both, &[]);
    }

    #[test]
    fn recursion_ends_and_what_is_wrong_inside_is_told_once() {
        let list =
            |of: &str| record(&format!(r#"{{"name":"head","type":"{of}"}},{{"name":"tail","type":["null","R"]}}"#));
        check(&list("long"), &list("int"), &[]);
        check(&list("int"), &list("long"), &["/head: long cannot be read as int"]);
        // As in Debezium's envelope, whose `before` defines what `after` names.
        let envelope = |of: &str| {
            format!(
                r#"{{"type":"record","name":"Envelope","fields":[
                    {{"name":"before","type":["null",{{"type":"record","name":"Value","fields":[{{"name":"id","type":"{of}"}}]}}],"default":null}},
                    {{"name":"after","type":["null","Value"],"default":null}}]}}"#
            )
        };
        check(&envelope("long"), &envelope("int"), &[]);
        let told = why_unreadable(
            &AvroSchema::parse(&envelope("int")).expect("a schema"),
            &AvroSchema::parse(&envelope("string")).expect("a schema"),
        );
        assert_eq!(told[0], "/before/id: string cannot be read as int");
    }

    #[test]
    fn nested_namesakes_do_not_take_for_ever() {
        let nest = |spaces: &[&str]| {
            let mut text = r#""int""#.to_owned();
            if spaces.len() > 1 {
                text = r#""string""#.to_owned();
            }
            for level in 0..20 {
                let branch = |space: &&str, of: &str| {
                    format!(r#"{{"type":"record","name":"{space}.R{level}","fields":[{{"name":"f","type":{of}}}]}}"#)
                };
                let names: Vec<String> = spaces.iter().map(|space| format!("\"{space}.R{}\"", level - 1_i32)).collect();
                let first = branch(&spaces[0], &text);
                let others: Vec<String> =
                    spaces[1..].iter().map(|space| branch(space, &format!("[{}]", names.join(",")))).collect();
                let all: Vec<String> = std::iter::once(first).chain(others).collect();
                text = if level == 0 {
                    let all: Vec<String> = spaces.iter().map(|space| branch(space, &text)).collect();
                    format!("[{}]", all.join(","))
                } else {
                    format!("[{}]", all.join(","))
                };
            }
            AvroSchema::parse(&text).expect("a schema")
        };
        let (reader, writer) = (nest(&["a", "b"]), nest(&["a"]));
        assert!(!why_unreadable(&reader, &writer).is_empty());
    }

    #[test]
    fn a_decimal_keeps_its_scale() {
        let decimal = |precision: u32, scale: u32| {
            format!(r#"{{"type":"bytes","logicalType":"decimal","precision":{precision},"scale":{scale}}}"#)
        };
        check(&decimal(12, 2), &decimal(10, 2), &[]);
        check(&decimal(10, 2), &decimal(12, 2), &["/: a decimal(12,2) cannot be read as decimal(10,2)"]);
        check(&decimal(12, 4), &decimal(12, 2), &["/: a decimal(12,2) cannot be read as decimal(12,4)"]);
        check(r#""bytes""#, &decimal(12, 2), &[]);
    }

    impl Primitive {
        const ALL_NAMES: [&'static str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
    }
}
