//! Records as values: Avro behind Confluent's framing by the registry's schemas, and else JSON, or text, or bytes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use encoder::decode::{AvroSchema, Value, parse_json};
use publisher::FetchedRecord;
use registry::SchemaId;
use tokio::runtime::Handle;

use super::position::Position;
use crate::{
    failure::{Code, Failure},
    schemas::Schemas,
};

/// More schemas than topics have versions of; one that is forgotten costs a request.
const SCHEMAS_MAX: usize = 2048;
/// What stands before an Avro value: a zero, and the schema's id.
const FRAMING_BYTES: usize = 5;

/// Decodes keys and values. Its calls block.
pub(crate) struct Decoder {
    schemas: Schemas,
    runtime: Handle,
    known: HashMap<u32, Arc<AvroSchema>>,
    /// Ids that the registry did not know when it was asked for the sake of showing a record.
    unknown: HashSet<u32>,
}

/// What becomes of what begins as Avro does, with an id that the registry does not know: it may be no Avro at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It is an error: what is asked of the record, or is to be made of it, needs it decoded.
    Refused,
    /// It stays bytes, and is warned of once.
    Bytes,
}

/// A record, decoded.
pub(crate) struct Decoded {
    pub(crate) key: Value,
    pub(crate) value: Value,
    pub(crate) position: Position,
}

impl Decoder {
    pub(crate) fn new(schemas: Schemas, runtime: Handle) -> Self {
        Self { schemas, runtime, known: HashMap::new(), unknown: HashSet::new() }
    }

    /// Decodes a record.
    ///
    /// # Errors
    /// The registry does not know its schema, or the bytes are none of it, or the registry cannot be reached.
    pub(crate) fn decode(&mut self, record: &FetchedRecord<'_>, unknown: Unknown) -> Result<Decoded, Failure> {
        let at = |failure: Failure, what: &str| failure.for_topic(format!("{}, {what}", place(record)));
        let key = self.value(record.key(), unknown).map_err(|failure| at(failure, "its key"))?;
        let value = self.value(record.value(), unknown).map_err(|failure| at(failure, "its value"))?;
        let position = Position::of(record.headers(), &value);
        Ok(Decoded { key, value, position })
    }

    /// Where a record stands. Its value is decoded only if its headers do not say.
    ///
    /// # Errors
    /// As for [`decode`](Self::decode).
    pub(crate) fn position(&mut self, record: &FetchedRecord<'_>) -> Result<Position, Failure> {
        let by_headers = Position::of(record.headers(), &Value::Null);
        if by_headers != Position::Follows || record.value().is_none() {
            return Ok(by_headers);
        }
        let value = self.value(record.value(), Unknown::Refused).map_err(|failure| failure.for_topic(place(record)))?;
        Ok(Position::of(record.headers(), &value))
    }

    fn value(&mut self, bytes: Option<&[u8]>, unknown: Unknown) -> Result<Value, Failure> {
        let Some(bytes) = bytes else { return Ok(Value::Null) };
        if let Some(([0, id @ ..], datum)) = bytes.split_first_chunk::<FRAMING_BYTES>() {
            let id = u32::from_be_bytes(*id);
            if unknown == Unknown::Bytes && self.unknown.contains(&id) {
                return Ok(Value::Bytes(bytes.into()));
            }
            let Some(schema) = self.schema(id)? else {
                let found = format!("the registry has no schema with the id {id}");
                if unknown == Unknown::Refused {
                    return Err(Failure::new(Code::RecordUnreadable, found));
                }
                tracing::warn!("{found}: what begins with it is shown as bytes, in base64");
                if self.unknown.len() >= SCHEMAS_MAX {
                    self.unknown.clear();
                }
                self.unknown.insert(id);
                return Ok(Value::Bytes(bytes.into()));
            };
            return schema.decode(datum).map_err(|error| {
                Failure::new(
                    Code::RecordUnreadable,
                    format!("a record is no value of its schema, which has the id {id}: {error}"),
                )
            });
        }
        Ok(match (parse_json(bytes), std::str::from_utf8(bytes)) {
            (Ok(value), _) => value,
            (Err(_), Ok(text)) => Value::Text(text.into()),
            (Err(_), Err(_)) => Value::Bytes(bytes.into()),
        })
    }

    /// None if the registry knows none of this id.
    fn schema(&mut self, id: u32) -> Result<Option<Arc<AvroSchema>>, Failure> {
        if let Some(schema) = self.known.get(&id) {
            return Ok(Some(Arc::clone(schema)));
        }
        let text = self.runtime.block_on(self.schemas.schema_by_id(SchemaId::new(id)));
        let text = text.map_err(|refusal| Failure::new(refusal.code, refusal.found))?;
        let unreadable = |found: String| Failure::new(Code::RecordUnreadable, found);
        let Some(text) = text else { return Ok(None) };
        let schema = AvroSchema::parse(&text)
            .map_err(|error| unreadable(format!("the schema with the id {id} cannot be read: {error}")))?;
        if self.known.len() >= SCHEMAS_MAX {
            self.known.clear();
        }
        Ok(Some(Arc::clone(self.known.entry(id).or_insert(Arc::new(schema)))))
    }
}

/// Where a record is, in words.
pub(crate) fn place(record: &FetchedRecord<'_>) -> String {
    format!("{} partition {} offset {}", record.topic(), record.partition(), record.offset())
}
