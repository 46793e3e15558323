//! What apache-avro has decoded, in the JSON that the recorded records have.

#![allow(dead_code, clippy::unwrap_used)] // Each test uses its own part.

use std::collections::HashMap;

use apache_avro::types::Value as Avro;
use num_bigint::BigInt;
use serde_json::{Map, Value, json};

/// Decimals are `{"decimal": ..}` and bytes `{"bytes": hex}`; `NaN` and the infinities are strings.
pub(crate) fn to_json(schema: &Value, value: &Avro) -> Value {
    Reader::default().value(schema, value)
}

#[derive(Default)]
struct Reader {
    /// Records by the last part of their names, which is enough here.
    records: HashMap<String, Value>,
}

impl Reader {
    fn value(&mut self, schema: &Value, value: &Avro) -> Value {
        match value {
            Avro::Union(branch, value) => {
                self.define(&schema[0]);
                self.value(&schema[*branch as usize], value)
            }
            Avro::Record(fields) => {
                let schema = self.define(schema);
                let declared = schema["fields"].as_array().unwrap();
                assert_eq!(declared.len(), fields.len());
                let field = |(schema, (name, value)): (&Value, &(String, Avro))| {
                    assert_eq!(schema["name"], **name);
                    (name.clone(), self.value(&schema["type"], value))
                };
                Value::Object(declared.iter().zip(fields).map(field).collect::<Map<_, _>>())
            }
            Avro::Array(items) => items.iter().map(|item| self.value(&schema["items"], item)).collect(),
            Avro::Map(values) => {
                let mut values: Vec<_> = values.iter().collect();
                values.sort_by_key(|(key, _)| *key);
                let value = |(key, value): (&String, &Avro)| (key.clone(), self.value(&schema["values"], value));
                Value::Object(values.into_iter().map(value).collect())
            }
            Avro::Null => Value::Null,
            Avro::Boolean(value) => json!(value),
            Avro::Int(value) => json!(value),
            Avro::Long(value) => json!(value),
            Avro::Float(value) => float(f64::from(*value)),
            Avro::Double(value) => float(*value),
            Avro::String(value) => json!(value),
            Avro::Bytes(bytes) => json!({ "bytes": hex(bytes) }),
            Avro::Decimal(value) => {
                let unscaled = BigInt::from_signed_bytes_be(&<Vec<u8>>::try_from(value).unwrap()).to_string();
                let scale = usize::try_from(schema["scale"].as_u64().unwrap()).unwrap();
                json!({ "decimal": with_point(&unscaled, scale) })
            }
            Avro::Date(days) => json!(days),
            Avro::TimeMicros(micros) | Avro::TimestampMicros(micros) | Avro::LocalTimestampMicros(micros) => {
                json!(micros)
            }
            Avro::Uuid(uuid) => json!(uuid.to_string()),
            other => panic!("no event has a {other:?}"),
        }
    }

    fn define(&mut self, schema: &Value) -> Value {
        match schema {
            Value::String(name) => self.records.get(name.rsplit('.').next().unwrap()).unwrap_or(schema).clone(),
            Value::Array(branches) => {
                for branch in branches {
                    self.define(branch);
                }
                schema.clone()
            }
            _ => {
                if schema["type"] == "record" {
                    self.records.insert(schema["name"].as_str().unwrap().to_owned(), schema.clone());
                    for field in schema["fields"].as_array().unwrap() {
                        self.define(&field["type"]);
                    }
                }
                schema.clone()
            }
        }
    }
}

/// The recorded JSON has strings for what JSON has no numbers for.
fn float(value: f64) -> Value {
    if value.is_nan() {
        json!("NaN")
    } else if value.is_infinite() {
        json!(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        json!(value)
    }
}

pub(crate) fn with_point(unscaled: &str, scale: usize) -> String {
    let (sign, digits) = unscaled.strip_prefix('-').map_or(("", unscaled), |digits| ("-", digits));
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (integer, fraction) = digits.split_at(digits.len() - scale);
    if scale == 0 { format!("{sign}{integer}") } else { format!("{sign}{integer}.{fraction}") }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
