//! Confluent's framing and Avro, read as any consumer would: schemas from the registry by id, values by apache-avro.

use std::collections::HashMap;

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};

use super::{http_get, oracle::Row};
use crate::json;

/// Reads framed Avro.
pub(crate) struct Decoder {
    registry_address: String,
    registry_path: String,
    known: HashMap<u32, Known>,
}

struct Known {
    json: serde_json::Value,
    reader: GenericDatumReader<'static>,
    scales: Scales,
}

/// The scale of each decimal column, by the name of the column: a value does not say it.
type Scales = HashMap<String, usize>;

impl Decoder {
    /// A decoder that asks the registry at this URL.
    pub(crate) fn new(registry_url: &str) -> Self {
        let url: url::Url = registry_url.parse().expect("a URL");
        let host = url.host_str().expect("a host");
        Self {
            registry_address: format!("{host}:{}", url.port_or_known_default().expect("a port")),
            registry_path: url.path().trim_end_matches('/').to_owned(),
            known: HashMap::new(),
        }
    }

    /// Decodes a key or a value into its fields.
    pub(crate) fn decode(&mut self, framed: &[u8]) -> Fields<'_> {
        let (known, value) = self.read(framed);
        Fields { fields: fields(value).expect("it is a record"), scales: &known.scales }
    }

    /// Decodes a key or a value into JSON, as the module `json` has it, beside its schema.
    pub(crate) fn decode_json(&mut self, framed: &[u8]) -> (&serde_json::Value, serde_json::Value) {
        let (known, value) = self.read(framed);
        (&known.json, json::to_json(&known.json, &value))
    }

    fn read(&mut self, framed: &[u8]) -> (&Known, Value) {
        let (head, mut datum) = framed.split_at_checked(5).expect("it has Confluent's framing");
        assert_eq!(head[0], 0, "Confluent's magic byte");
        let id = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        if !self.known.contains_key(&id) {
            let known = self.fetch(id);
            self.known.insert(id, known);
        }
        let known = &self.known[&id];
        let value = known.reader.read_value(&mut datum).unwrap_or_else(|error| panic!("schema {id}: {error}"));
        assert!(datum.is_empty(), "{} bytes are left over after a value of schema {id}", datum.len());
        (known, value)
    }

    fn fetch(&self, id: u32) -> Known {
        let path = format!("{}/schemas/ids/{id}", self.registry_path);
        let answer = http_get(&self.registry_address, &path).expect("the registry answers");
        assert_eq!(answer.status, 200, "schema {id}: {}", answer.body);
        let body: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        let text = body["schema"].as_str().expect("a schema");
        let schema = Schema::parse_str(text).unwrap_or_else(|error| panic!("schema {id}: {error} in {text}"));
        let mut scales = Scales::new();
        collect_scales(&schema, "", &mut scales);
        // A reader borrows its schema; the few schemas of a test live as long as the process.
        let schema: &'static Schema = Box::leak(Box::new(schema));
        let json = serde_json::from_str(text).expect("a schema is JSON");
        Known { json, reader: GenericDatumReader::builder(schema).build().expect("it resolves"), scales }
    }
}

/// The fields of a record.
pub(crate) struct Fields<'a> {
    fields: Vec<(String, Value)>,
    scales: &'a Scales,
}

impl Fields<'_> {
    /// All of them, as the text of each.
    pub(crate) fn row(self) -> Row {
        let scales = self.scales;
        self.fields
            .into_iter()
            .map(|(name, value)| {
                let text = text(value, scales.get(&name).copied());
                (name, text)
            })
            .collect()
    }

    /// Takes a field's text.
    pub(crate) fn take_text(&mut self, name: &str) -> Option<String> {
        text(self.take(name), None)
    }

    /// Takes a field that is a record itself.
    pub(crate) fn take_fields(&mut self, name: &str) -> Option<Self> {
        Some(Self { fields: fields(self.take(name))?, scales: self.scales })
    }

    fn take(&mut self, name: &str) -> Value {
        let field = self.fields.iter_mut().find(|(field, _)| field == name);
        let (_, value) = field.unwrap_or_else(|| panic!("there is no field {name}"));
        std::mem::replace(value, Value::Null)
    }
}

fn fields(value: Value) -> Option<Vec<(String, Value)>> {
    match value {
        Value::Record(fields) => Some(fields),
        Value::Union(_, inner) => fields(*inner),
        Value::Null => None,
        other => panic!("{other:?} is no record"),
    }
}

fn text(value: Value, scale: Option<usize>) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Union(_, inner) => return text(*inner, scale),
        Value::Boolean(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Long(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::String(value) => value,
        Value::Bytes(bytes) => bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")),
        Value::Decimal(decimal) => {
            let bytes: Vec<u8> = decimal.try_into().expect("a decimal has bytes");
            decimal_text(&bytes, scale.expect("a decimal has a scale"))
        }
        Value::Array(items) => {
            let items = items.into_iter().map(|item| text(item, scale).unwrap_or_else(|| "NULL".to_owned()));
            format!("{{{}}}", items.collect::<Vec<_>>().join(","))
        }
        // `VariableScaleDecimal`
        Value::Record(fields) => match <[(String, Value); 2]>::try_from(fields) {
            Ok([(_, Value::Int(scale)), (_, Value::Bytes(bytes))]) => {
                decimal_text(&bytes, usize::try_from(scale).expect("a scale is not negative"))
            }
            other => panic!("{other:?} is no value of a column"),
        },
        other => panic!("{other:?} is no value of a column"),
    })
}

fn decimal_text(bytes: &[u8], scale: usize) -> String {
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
    let unscaled = bytes.iter().fold(i128::from(sign), |sum, byte| sum << 8 | i128::from(*byte));
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if unscaled < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn collect_scales(schema: &Schema, name: &str, scales: &mut Scales) {
    match schema {
        Schema::Record(record) => {
            record.fields.iter().for_each(|field| collect_scales(&field.schema, &field.name, scales));
        }
        Schema::Union(union) => union.variants().iter().for_each(|variant| collect_scales(variant, name, scales)),
        Schema::Decimal(decimal) => drop(scales.insert(name.to_owned(), decimal.scale)),
        _ => {}
    }
}
