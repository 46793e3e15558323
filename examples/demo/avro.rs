//! Records as any consumer reads them: Confluent's framing, schemas from the registry by their id, values by apache-avro. Nothing of
//! pgsluice is used, so that an error of its encoder cannot hide here.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};
use serde_json::Value as Json;

use crate::http;

/// How long the registry may be away.
const REGISTRY_TIMEOUT: Duration = Duration::from_secs(10);

/// A column's name, and its value as PostgreSQL prints it; none is NULL.
pub(crate) type Column = (String, Option<String>);
/// A row, or a key.
pub(crate) type Row = Vec<Column>;

/// Decodes keys and values.
pub(crate) struct Decoder {
    registry: String,
    schemas: HashMap<u32, Known>,
}

/// A schema, and of each of its columns what Avro's own type does not say.
struct Known {
    schema: Schema,
    columns: HashMap<String, Meaning>,
}

#[derive(Debug, Clone, Copy)]
enum Meaning {
    Decimal { scale: usize },
    ZonedTimestamp,
}

/// A decoded record, still with its parts in it.
pub(crate) struct Fields<'a> {
    fields: Vec<(String, Value)>,
    columns: &'a HashMap<String, Meaning>,
}

impl Decoder {
    /// Schemas come from the registry at this `host:port`.
    pub(crate) fn new(registry: &str) -> Self {
        Self { registry: registry.to_owned(), schemas: HashMap::new() }
    }

    /// Decodes a framed key or value, which is a record.
    pub(crate) fn decode(&mut self, framed: &[u8]) -> Result<Fields<'_>> {
        let (head, mut datum) = framed.split_at_checked(5).context("shorter than its frame")?;
        ensure!(head[0] == 0, "the magic byte is {}", head[0]);
        let id = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        if !self.schemas.contains_key(&id) {
            let known = self.fetch(id).with_context(|| format!("schema {id}"))?;
            self.schemas.insert(id, known);
        }
        let Known { schema, columns } = &self.schemas[&id];
        let value = GenericDatumReader::builder(schema).build()?.read_value(&mut datum)?;
        ensure!(datum.is_empty(), "{} bytes are left over", datum.len());
        let fields = record(value).context("it is no record")?;
        Ok(Fields { fields, columns })
    }

    fn fetch(&self, id: u32) -> Result<Known> {
        let path = format!("/schemas/ids/{id}");
        let began = Instant::now();
        // The registry is the very program that is killed in between, so that it is asked again as any consumer would.
        let answer = loop {
            match http::get(&self.registry, &path) {
                Err(_) if began.elapsed() < REGISTRY_TIMEOUT => thread::sleep(Duration::from_millis(50)),
                outcome => break outcome?,
            }
        };
        ensure!(answer.status == 200, "the registry answers {}: {}", answer.status, answer.body);
        let body: Json = serde_json::from_str(&answer.body)?;
        let text = body["schema"].as_str().context("the registry's answer holds no schema")?;
        let mut columns = HashMap::new();
        collect_meanings(&serde_json::from_str(text)?, "", &mut columns);
        Ok(Known { schema: Schema::parse_str(text)?, columns })
    }
}

impl Fields<'_> {
    /// Takes a field that is a record, if it is there.
    pub(crate) fn take_record(&mut self, name: &str) -> Result<Option<Self>> {
        let fields = record(self.take(name)?);
        Ok(fields.map(|fields| Self { fields, columns: self.columns }))
    }

    /// Takes a field's text.
    pub(crate) fn take_text(&mut self, name: &str) -> Result<Option<String>> {
        let value = self.take(name)?;
        text(value, self.columns.get(name).copied())
    }

    /// Takes a field that is a number.
    pub(crate) fn take_number(&mut self, name: &str) -> Result<i64> {
        let text = self.take_text(name)?.with_context(|| format!("{name} is null"))?;
        text.parse().with_context(|| format!("{name} is {text}"))
    }

    /// All fields, each as PostgreSQL prints it.
    pub(crate) fn row(self) -> Result<Row> {
        let columns = self.columns;
        let column = |(name, value): (String, Value)| {
            let text = text(value, columns.get(&name).copied()).with_context(|| format!("column {name}"))?;
            Ok((name, text))
        };
        self.fields.into_iter().map(column).collect()
    }

    fn take(&mut self, name: &str) -> Result<Value> {
        let field = self.fields.iter_mut().find(|(field, _)| field == name);
        let (_, value) = field.with_context(|| format!("there is no field {name}"))?;
        Ok(std::mem::replace(value, Value::Null))
    }
}

fn record(value: Value) -> Option<Vec<(String, Value)>> {
    match value {
        Value::Record(fields) => Some(fields),
        Value::Union(_, inner) => record(*inner),
        _ => None,
    }
}

/// A value as PostgreSQL prints it.
fn text(value: Value, meaning: Option<Meaning>) -> Result<Option<String>> {
    Ok(Some(match (value, meaning) {
        (Value::Null, _) => return Ok(None),
        (Value::Union(_, inner), _) => return text(*inner, meaning),
        (Value::Boolean(value), _) => if value { "t" } else { "f" }.to_owned(),
        (Value::Int(value), _) => value.to_string(),
        (Value::Long(value), _) => value.to_string(),
        (Value::String(value), Some(Meaning::ZonedTimestamp)) => timestamptz_text(&value)?,
        (Value::String(value), _) => value,
        (Value::Decimal(value), Some(Meaning::Decimal { scale })) => {
            let bytes: Vec<u8> = value.try_into()?;
            decimal_text(&bytes, scale)?
        }
        (other, _) => bail!("{other:?} is of a kind that the shop does not have"),
    }))
}

/// `2026-01-31T12:00:00.500000Z` is `2026-01-31 12:00:00.5+00` in PostgreSQL.
fn timestamptz_text(text: &str) -> Result<String> {
    let (date, time) = text.strip_suffix('Z').and_then(|text| text.split_once('T')).context("it is not in UTC")?;
    let time = if time.contains('.') { time.trim_end_matches('0').trim_end_matches('.') } else { time };
    Ok(format!("{date} {time}+00"))
}

/// A decimal is a big-endian two's complement number, and its schema's scale.
fn decimal_text(bytes: &[u8], scale: usize) -> Result<String> {
    ensure!(bytes.len() <= 16, "a number of {} bytes", bytes.len());
    let sign = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
    let unscaled = bytes.iter().fold(sign, |number: i128, byte| number << 8 | i128::from(*byte));
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale == 0 { "" } else { "." };
    Ok(format!("{}{whole}{point}{fraction}", if unscaled < 0 { "-" } else { "" }))
}

/// Finds, by the name of the field, the types that a plain Avro reader does not tell apart.
fn collect_meanings(schema: &Json, field: &str, found: &mut HashMap<String, Meaning>) {
    match schema {
        Json::Array(branches) => branches.iter().for_each(|branch| collect_meanings(branch, field, found)),
        Json::Object(object) => {
            let scale = object.get("scale").and_then(Json::as_u64).and_then(|scale| usize::try_from(scale).ok());
            if object.get("logicalType").and_then(Json::as_str) == Some("decimal") {
                found.insert(field.to_owned(), Meaning::Decimal { scale: scale.unwrap_or_default() });
            } else if object.get("connect.name").and_then(Json::as_str) == Some("io.debezium.time.ZonedTimestamp") {
                found.insert(field.to_owned(), Meaning::ZonedTimestamp);
            }
            for field in object.get("fields").and_then(Json::as_array).into_iter().flatten() {
                collect_meanings(&field["type"], field["name"].as_str().unwrap_or_default(), found);
            }
        }
        _ => {}
    }
}
