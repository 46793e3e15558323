//! A schema and a value of it, made from bytes: apache-avro writes it, and the decoder has to read it back.

use apache_avro::{Decimal, Schema, types::Value as Avro, writer::datum::GenericDatumWriter};
use encoder::decode::{AvroSchema, Value};
use serde_json::{Value as Json, json};

/// Bytes that decide; zeros when they have run out.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }

    fn long(&mut self) -> i64 {
        let length = usize::from(self.byte() % 9);
        self.bytes(length).into_iter().fold(0, |number: i64, byte| number << 8 | i64::from(byte))
            ^ -i64::from(self.byte() % 2)
    }

    fn text(&mut self) -> String {
        let length = usize::from(self.byte() % 6);
        self.bytes(length).into_iter().map(char::from).collect()
    }
}

/// A schema in JSON. `names` counts the named types.
fn schema(choices: &mut Choices<'_>, depth: u8, names: &mut u32) -> Json {
    let kinds = if depth == 0 { 15 } else { 19 };
    match choices.byte() % kinds {
        0 => json!("null"),
        1 => json!("boolean"),
        2 => json!("int"),
        3 => json!("long"),
        4 => json!("float"),
        5 => json!("double"),
        6 => json!("bytes"),
        7 => json!("string"),
        8 => json!({ "type": "bytes", "logicalType": "decimal", "precision": 40, "scale": choices.byte() % 41 }),
        9 => json!({ "type": "long", "logicalType": "timestamp-micros" }),
        10 => json!({ "type": "int", "logicalType": "date" }),
        11 => json!({ "type": "string", "logicalType": "uuid" }),
        12 => json!({ "type": "fixed", "name": name(names), "size": choices.byte() % 20 }),
        13 => json!({ "type": "enum", "name": name(names), "symbols": ["A", "B", "C"] }),
        14 => json!({ "type": "long", "logicalType": "time-micros" }),
        15 => json!({ "type": "array", "items": schema(choices, depth - 1, names) }),
        16 => json!({ "type": "map", "values": schema(choices, depth - 1, names) }),
        17 => match schema(choices, depth - 1, names) {
            inner if inner == json!("null") || inner.is_array() => inner,
            inner => json!(["null", inner]),
        },
        _ => {
            let fields = choices.byte() % 4;
            let name = name(names);
            let fields: Vec<Json> = (0..fields)
                .map(|field| json!({ "name": format!("f{field}"), "type": schema(choices, depth - 1, names) }))
                .collect();
            json!({ "type": "record", "name": name, "fields": fields })
        }
    }
}

fn name(names: &mut u32) -> String {
    *names += 1;
    format!("n{names}")
}

/// A value for apache-avro, and what it is to be read as.
fn value(choices: &mut Choices<'_>, schema: &Schema) -> (Avro, Value) {
    let number = |text: String| Value::Number(text.into());
    match schema {
        Schema::Null => (Avro::Null, Value::Null),
        Schema::Boolean => {
            let value = choices.byte() % 2 == 1;
            (Avro::Boolean(value), Value::Boolean(value))
        }
        Schema::Int | Schema::Date => {
            let number = i32::from_be_bytes(choices.bytes(4).try_into().expect("four"));
            let avro = if matches!(schema, Schema::Int) { Avro::Int(number) } else { Avro::Date(number) };
            (avro, Value::Integer(number.into()))
        }
        Schema::Long | Schema::TimestampMicros | Schema::TimeMicros => {
            let number = choices.long();
            let avro = match schema {
                Schema::Long => Avro::Long(number),
                Schema::TimeMicros => Avro::TimeMicros(number),
                _ => Avro::TimestampMicros(number),
            };
            (avro, Value::Integer(number))
        }
        Schema::Float => {
            let float = f32::from_be_bytes(choices.bytes(4).try_into().expect("four"));
            let read = named(float.into()).unwrap_or_else(|| number(format!("{float}")));
            (Avro::Float(float), read)
        }
        Schema::Double => {
            let float = f64::from_be_bytes(choices.bytes(8).try_into().expect("eight"));
            (Avro::Double(float), named(float).unwrap_or_else(|| number(format!("{float}"))))
        }
        Schema::Bytes => {
            let length = choices.byte() % 8;
            let bytes = choices.bytes(length.into());
            (Avro::Bytes(bytes.clone()), Value::Bytes(bytes.into()))
        }
        Schema::String => {
            let text = choices.text();
            (Avro::String(text.clone()), Value::Text(text.into()))
        }
        Schema::Uuid(_) => {
            let text = "b05c4f0e-12a8-4a7e-9b0f-3a2f5c6d7e8f";
            (Avro::Uuid(text.parse().expect("a UUID")), Value::Text(text.into()))
        }
        Schema::Decimal(decimal) => {
            // The digits of a number of 128 bits, with the point put in by hand.
            let length = 1 + choices.byte() % 15;
            let unscaled = choices.bytes(length.into());
            let padding = if unscaled[0] >= 0x80 { 0xff } else { 0 };
            let mut wide = [padding; 16];
            wide[16 - unscaled.len()..].copy_from_slice(&unscaled);
            let integer = i128::from_be_bytes(wide);
            let power = |exponent: usize| "1".to_owned() + &"0".repeat(exponent);
            let mut digits = integer.unsigned_abs().to_string();
            while digits.len() < power(decimal.scale).len() {
                digits.insert(0, '0');
            }
            if decimal.scale > 0 {
                digits.insert(digits.len() - decimal.scale, '.');
            }
            let sign = if integer < 0 { "-" } else { "" };
            (Avro::Decimal(Decimal::from(unscaled)), number(format!("{sign}{digits}")))
        }
        Schema::Fixed(fixed) => {
            let bytes = choices.bytes(fixed.size);
            (Avro::Fixed(fixed.size, bytes.clone()), Value::Bytes(bytes.into()))
        }
        Schema::Enum(symbols) => {
            let index = choices.byte() % 3;
            let symbol = &symbols.symbols[usize::from(index)];
            (Avro::Enum(index.into(), symbol.clone()), Value::Text(symbol.as_str().into()))
        }
        Schema::Array(array) => {
            let items = (0..choices.byte() % 4).map(|_| value(choices, &array.items));
            let (avro, read) = items.unzip();
            (Avro::Array(avro), Value::List(read))
        }
        Schema::Map(map) => {
            // One entry: the order of several is apache-avro's own.
            let (name, (avro, read)) = (choices.text(), value(choices, &map.types));
            (Avro::Map([(name.clone(), avro)].into()), Value::Record(vec![(name.as_str().into(), read)]))
        }
        Schema::Union(union) => {
            let branch = choices.byte() % u8::try_from(union.variants().len()).expect("a few");
            let (avro, read) = value(choices, &union.variants()[usize::from(branch)]);
            (Avro::Union(branch.into(), Box::new(avro)), read)
        }
        Schema::Record(record) => {
            let fields = record.fields.iter().map(|field| {
                let (avro, read) = value(choices, &field.schema);
                ((field.name.clone(), avro), (field.name.as_str().into(), read))
            });
            let (avro, read) = fields.unzip();
            (Avro::Record(avro), Value::Record(read))
        }
        other => unreachable!("{other:?} is not made"),
    }
}

fn named(float: f64) -> Option<Value> {
    let name = match float {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ if float.is_nan() => "NaN",
        _ => return None,
    };
    Some(Value::Text(name.into()))
}

/// Whatever the bytes choose is read as what was written; a part of it is refused; and what are no bytes of the schema is an error or a value, whose
/// JSON is JSON.
pub(crate) fn check(input: &[u8]) {
    let mut choices = Choices(input);
    let text = schema(&mut choices, 3, &mut 0).to_string();
    let (Ok(parsed), decoder) = (Schema::parse_str(&text), AvroSchema::parse(&text)) else { return };
    let decoder = decoder.expect("what apache-avro parses is a schema");
    let garbage = decoder.decode(choices.0);
    if let Ok(value) = garbage {
        serde_json::from_str::<&serde_json::value::RawValue>(&value.to_json()).expect("it is JSON");
    }
    let (avro, expected) = value(&mut choices, &parsed);
    let written = GenericDatumWriter::builder(&parsed).build().expect("a writer").write_value_to_vec(avro);
    let written = written.expect("a value of the schema");
    assert_eq!(decoder.decode(&written).as_ref(), Ok(&expected), "{text}");
    for end in 0..written.len() {
        assert!(decoder.decode(&written[..end]).is_err(), "{text}: {end} of {} bytes", written.len());
    }
    let longer = [written.as_slice(), &[0]].concat();
    assert!(decoder.decode(&longer).is_err(), "{text}: a byte more");
}
