//! Avro's binary encoding, read by the schema that it was written with (Avro 1.12 specification, "Binary Encoding").

use std::{collections::HashMap, sync::Arc};

use apache_avro::{
    Schema,
    schema::{InnerDecimalSchema, Name, UuidSchema},
};
use thiserror::Error;

use super::{DEPTH_MAX, Value};
use crate::{avro::Reader, json::write_decimal};

/// More digits behind the point than PostgreSQL's numerics can have.
const SCALE_MAX: usize = 20_000;
/// More bytes than its longest numeric takes.
const DECIMAL_BYTES_MAX: usize = 1 << 16;
/// How many values there may be for each byte: in a record of a record of a null that a union chooses, one byte has three.
const VALUES_PER_BYTE: usize = 4;
/// How many values there may be beside those.
const EMPTY_VALUES_MAX: usize = 4096;
/// How many characters decimals may have in all for each byte of the record: a zero of a large scale is two bytes.
const DIGITS_PER_BYTE: usize = 64;
/// How many there may be beside those: a row of two hundred zeros of the largest scale.
const DIGITS_MAX: usize = 4 << 20;

/// A schema that values can be read by.
#[derive(Debug)]
pub struct AvroSchema {
    /// Each type that the schema has, once; types refer to each other by their place. The first is the whole.
    types: Vec<Type>,
}

/// The text is no Avro schema, or one that nothing is read by here.
#[derive(Debug, Error)]
#[error("the schema cannot be used: {0}")]
pub struct InvalidSchema(String);

/// The bytes are no value of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AvroError {
    /// They end too early, or a length says more than there is.
    #[error("the value ends too early")]
    Short,
    /// There is more behind the value.
    #[error("{0} bytes are left behind the value")]
    Rest(usize),
    /// No branch of a union, or no symbol of an enum, or no boolean.
    #[error("the number of a branch or symbol is none that the schema has")]
    Choice,
    /// Text that is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A decimal of more digits than any that PostgreSQL has.
    #[error("a decimal is longer than any of PostgreSQL's")]
    Decimal,
    /// Decimals that are much longer as text than the bytes that they were read from.
    #[error("its decimals have more digits in all than are read of so many bytes")]
    Digits,
    /// Values in each other, beyond the limit.
    #[error("values lie more than {DEPTH_MAX} deep in each other")]
    Deep,
    /// More values than so many bytes can reasonably have.
    #[error("it announces more values than so many bytes hold")]
    Many,
}

#[derive(Debug)]
enum Type {
    Null,
    Boolean,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Uuid,
    /// The length of a fixed one, and the scale.
    Decimal(Option<usize>, usize),
    Enum(Vec<Box<str>>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<(Arc<str>, usize)>),
}

impl AvroSchema {
    /// Reads a schema in its JSON form.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, InvalidSchema> {
        let schema = Schema::parse_str(text).map_err(|error| InvalidSchema(error.to_string()))?;
        let mut compiler = Compiler::default();
        compiler.add(&schema, None)?;
        Ok(Self { types: compiler.types })
    }

    /// Reads a value, which is all of the bytes.
    ///
    /// # Errors
    /// They are none of this schema.
    pub fn decode(&self, bytes: &[u8]) -> Result<Value, AvroError> {
        let in_proportion = |per_byte: usize, more: usize| bytes.len().saturating_mul(per_byte).saturating_add(more);
        let mut decoder = Decoder {
            types: &self.types,
            reader: Reader::new(bytes),
            values_left: in_proportion(VALUES_PER_BYTE, EMPTY_VALUES_MAX),
            digits_left: in_proportion(DIGITS_PER_BYTE, DIGITS_MAX),
        };
        let value = decoder.value(0, DEPTH_MAX)?;
        match decoder.reader.len() {
            0 => Ok(value),
            rest => Err(AvroError::Rest(rest)),
        }
    }
}

#[derive(Default)]
struct Compiler {
    types: Vec<Type>,
    by_name: HashMap<Name, usize>,
}

impl Compiler {
    fn add(&mut self, schema: &Schema, namespace: Option<&str>) -> Result<usize, InvalidSchema> {
        if let Schema::Ref { name } = schema {
            let name = name.fully_qualified_name(namespace);
            let known = self.by_name.get(&*name).copied();
            return known.ok_or_else(|| InvalidSchema(format!("there is no type {}", name.fullname(None))));
        }
        // Its place is taken before its parts are looked at: they may refer to it.
        let place = self.types.len();
        self.types.push(Type::Null);
        let name = schema.name().map(|name| name.fully_qualified_name(namespace).into_owned());
        let inner = name.as_ref().and_then(|name| name.namespace().map(str::to_owned));
        let namespace = inner.as_deref().or(namespace);
        if let Some(name) = name {
            self.by_name.insert(name, place);
        }
        self.types[place] = match schema {
            Schema::Null => Type::Null,
            Schema::Boolean => Type::Boolean,
            Schema::Int
            | Schema::Long
            | Schema::Date
            | Schema::TimeMillis
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => Type::Long,
            Schema::Float => Type::Float,
            Schema::Double => Type::Double,
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Type::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Type::Text,
            Schema::Uuid(UuidSchema::Fixed(_)) => Type::Uuid,
            Schema::Fixed(fixed) | Schema::Duration(fixed) => Type::Fixed(fixed.size),
            Schema::Decimal(decimal) if decimal.scale > SCALE_MAX => {
                return Err(InvalidSchema(format!("a decimal has {} digits behind the point", decimal.scale)));
            }
            Schema::Decimal(decimal) => match &decimal.inner {
                InnerDecimalSchema::Bytes => Type::Decimal(None, decimal.scale),
                InnerDecimalSchema::Fixed(fixed) => Type::Decimal(Some(fixed.size), decimal.scale),
            },
            Schema::Enum(symbols) => Type::Enum(symbols.symbols.iter().map(|symbol| symbol.as_str().into()).collect()),
            Schema::Array(array) => Type::Array(self.add(&array.items, namespace)?),
            Schema::Map(map) => Type::Map(self.add(&map.types, namespace)?),
            Schema::Union(union) => {
                let branches = union.variants().iter().map(|branch| self.add(branch, namespace));
                Type::Union(branches.collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => {
                let fields = record.fields.iter();
                let fields = fields.map(|field| Ok((field.name.as_str().into(), self.add(&field.schema, namespace)?)));
                Type::Record(fields.collect::<Result<_, InvalidSchema>>()?)
            }
            Schema::Ref { .. } => return Err(InvalidSchema("a reference refers to nothing".to_owned())),
        };
        Ok(place)
    }
}

struct Decoder<'a> {
    types: &'a [Type],
    reader: Reader<'a>,
    values_left: usize,
    digits_left: usize,
}

impl Decoder<'_> {
    fn value(&mut self, place: usize, depth_left: usize) -> Result<Value, AvroError> {
        // A union takes a byte for its choice, and is nothing that is built.
        if !matches!(self.types[place], Type::Union(_)) {
            self.values_left = self.values_left.checked_sub(1).ok_or(AvroError::Many)?;
        }
        let deeper = || depth_left.checked_sub(1).ok_or(AvroError::Deep);
        Ok(match &self.types[place] {
            Type::Null => Value::Null,
            Type::Boolean => match self.bytes(1)? {
                [0] => Value::Boolean(false),
                [1] => Value::Boolean(true),
                _ => return Err(AvroError::Choice),
            },
            Type::Long => Value::Integer(self.long()?),
            // The shortest digits that stand for this float.
            Type::Float => {
                let number = self.reader.float().ok_or(AvroError::Short)?;
                floating(f64::from(number), || number.to_string())
            }
            Type::Double => {
                let number = self.reader.double().ok_or(AvroError::Short)?;
                floating(number, || number.to_string())
            }
            Type::Bytes => Value::Bytes(self.block()?.into()),
            Type::Text => Value::Text(self.text()?.into()),
            Type::Fixed(length) => Value::Bytes(self.bytes(*length)?.into()),
            Type::Uuid => Value::Text(uuid(self.bytes(16)?).into()),
            Type::Decimal(length, scale) => {
                let unscaled = match length {
                    Some(length) => self.bytes(*length)?,
                    None => self.block()?,
                };
                if unscaled.len() > DECIMAL_BYTES_MAX {
                    return Err(AvroError::Decimal);
                }
                // A byte has not three digits; a sign and a point come with them.
                let digits = unscaled.len() * 3 + scale + 2;
                self.digits_left = self.digits_left.checked_sub(digits).ok_or(AvroError::Digits)?;
                let mut text = Vec::new();
                write_decimal(&mut text, unscaled, *scale);
                Value::Number(String::from_utf8_lossy(&text).into())
            }
            Type::Enum(symbols) => Value::Text(self.choice(symbols)?.clone()),
            Type::Union(branches) => {
                let branch = *self.choice(branches)?;
                self.value(branch, deeper()?)?
            }
            Type::Array(items) => {
                let (depth_left, mut list) = (deeper()?, Vec::new());
                self.blocks(|decoder| {
                    list.push(decoder.value(*items, depth_left)?);
                    Ok(())
                })?;
                Value::List(list)
            }
            Type::Map(values) => {
                let (depth_left, mut fields) = (deeper()?, Vec::new());
                self.blocks(|decoder| {
                    let name = Arc::from(decoder.text()?);
                    fields.push((name, decoder.value(*values, depth_left)?));
                    Ok(())
                })?;
                Value::Record(fields)
            }
            Type::Record(types) => {
                let depth_left = deeper()?;
                let fields = types.iter();
                let fields = fields.map(|(name, place)| Ok((Arc::clone(name), self.value(*place, depth_left)?)));
                Value::Record(fields.collect::<Result<_, AvroError>>()?)
            }
        })
    }

    fn long(&mut self) -> Result<i64, AvroError> {
        self.reader.long().ok_or(AvroError::Short)
    }

    fn choice<'a, T>(&mut self, of: &'a [T]) -> Result<&'a T, AvroError> {
        let number = usize::try_from(self.long()?).ok();
        number.and_then(|number| of.get(number)).ok_or(AvroError::Choice)
    }

    fn text(&mut self) -> Result<&str, AvroError> {
        std::str::from_utf8(self.block()?).map_err(|_not_utf8| AvroError::Text)
    }

    /// Blocks, each led by how many entries it has, or by that as a negative number and how many bytes they take; and an empty one at the end.
    fn blocks(&mut self, mut entry: impl FnMut(&mut Self) -> Result<(), AvroError>) -> Result<(), AvroError> {
        loop {
            let count = self.long()?;
            if count < 0 {
                self.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                entry(self)?;
            }
            if count == 0 {
                return Ok(());
            }
        }
    }
}

impl<'a> Decoder<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], AvroError> {
        self.reader.take(count).ok_or(AvroError::Short)
    }

    fn block(&mut self) -> Result<&'a [u8], AvroError> {
        self.reader.bytes().ok_or(AvroError::Short)
    }
}

/// A number, or the name of one that JSON does not have.
fn floating(number: f64, digits: impl FnOnce() -> String) -> Value {
    if number.is_finite() {
        Value::Number(digits().into())
    } else {
        let name = if number.is_nan() {
            "NaN"
        } else if number > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        };
        Value::Text(name.into())
    }
}

fn uuid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (position, byte) in bytes.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for half in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(half.into(), 16));
        }
    }
    text
}
