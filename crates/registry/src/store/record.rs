//! The records of a `_schemas` topic, as Confluent's registry writes them: JSON keys that say what kind of record it is, JSON values.
//!
//! The order of a key's fields matters, since the topic is compacted by the key's bytes: a registry that takes the topic over replaces a
//! record only by the same bytes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Level;

/// A record that cannot be used, and where it is. Its text holds at most a few words of the record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("offset {offset}: {reason}")]
pub struct MalformedRecord {
    /// The record's offset.
    pub offset: i64,
    /// What is wrong with it.
    pub reason: Malformed,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The key is not the JSON of a key.
    #[error("its key is no key of a schema registry: {0}")]
    Key(String),
    /// The value is not the JSON of this kind of record.
    #[error("its value is no value of a {kind} record: {problem}")]
    Value {
        /// The key's `keytype`.
        kind: &'static str,
        /// What the JSON lacks.
        problem: String,
    },
    /// Key and value name different versions.
    #[error("its key and its value name different versions of subject {subject}")]
    Contradiction {
        /// The key's subject.
        subject: String,
    },
    /// The id belongs to another schema already.
    #[error("the id {id} is that of another schema already")]
    IdTaken {
        /// The id.
        id: u32,
    },
}

/// A record that was understood.
#[derive(Debug, PartialEq)]
pub(super) enum Parsed {
    Schema {
        subject: String,
        version: u32,
        value: Option<Box<SchemaValue>>,
    },
    Level {
        subject: Option<String>,
        level: Option<Level>,
    },
    Mode {
        subject: Option<String>,
        mode: Option<String>,
    },
    DeleteSubject {
        subject: String,
        version_max: u32,
    },
    ClearSubject {
        subject: String,
    },
    /// Nothing that concerns schemas.
    Nothing,
    /// A kind that this build does not know.
    Unknown {
        kind: String,
    },
}

/// The value of a SCHEMA record.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SchemaValue {
    pub(super) subject: String,
    pub(super) version: u32,
    pub(super) id: u32,
    pub(super) schema: String,
    #[serde(default)]
    pub(super) schema_type: Option<String>,
    #[serde(default)]
    pub(super) references: Option<Vec<Value>>,
    #[serde(default)]
    pub(super) metadata: Option<Value>,
    #[serde(default)]
    pub(super) rule_set: Option<Value>,
    #[serde(default)]
    pub(super) deleted: bool,
}

#[derive(Deserialize)]
struct Key {
    keytype: String,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    version: Option<u32>,
}

/// Key and value of a SCHEMA record for an Avro schema without references.
pub(super) fn write_schema(subject: &str, version: u32, id: u32, schema: &str) -> (Vec<u8>, Vec<u8>) {
    #[derive(Serialize)]
    struct Key<'a> {
        keytype: &'a str,
        subject: &'a str,
        version: u32,
        magic: u32,
    }
    #[derive(Serialize)]
    struct Value<'a> {
        subject: &'a str,
        version: u32,
        id: u32,
        schema: &'a str,
        deleted: bool,
    }
    let json = "a struct of strings and numbers is always JSON";
    let key = serde_json::to_vec(&Key { keytype: "SCHEMA", subject, version, magic: 1 }).expect(json);
    let value = serde_json::to_vec(&Value { subject, version, id, schema, deleted: false }).expect(json);
    (key, value)
}

/// Reads a record.
pub(super) fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Parsed, Malformed> {
    // Confluent's registry passes over records without a key.
    let Some(key) = key else { return Ok(Parsed::Nothing) };
    let key: Key = serde_json::from_slice(key).map_err(|error| Malformed::Key(error.to_string()))?;
    let subject = key.subject.filter(|subject| !subject.is_empty());
    let named = |subject: Option<String>| subject.ok_or_else(|| Malformed::Key("it has no subject".to_owned()));
    Ok(match key.keytype.as_str() {
        "SCHEMA" => {
            let subject = named(subject)?;
            let version = key.version.ok_or_else(|| Malformed::Key("it has no version".to_owned()))?;
            let value: Option<Box<SchemaValue>> = value.map(|value| from_json("SCHEMA", value)).transpose()?;
            if value.as_ref().is_some_and(|value| value.subject != subject || value.version != version) {
                return Err(Malformed::Contradiction { subject });
            }
            Parsed::Schema { subject, version, value }
        }
        "CONFIG" => {
            #[derive(Deserialize)]
            struct Config {
                #[serde(rename = "compatibilityLevel", default)]
                level: Option<String>,
            }
            let config: Option<Config> = value.map(|value| from_json("CONFIG", value)).transpose()?;
            let level = config.and_then(|config| config.level).map(|level| level_of("CONFIG", &level)).transpose()?;
            Parsed::Level { subject, level }
        }
        "MODE" => {
            #[derive(Deserialize)]
            struct Mode {
                #[serde(default)]
                mode: Option<String>,
            }
            let mode: Option<Mode> = value.map(|value| from_json("MODE", value)).transpose()?;
            Parsed::Mode { subject, mode: mode.and_then(|mode| mode.mode) }
        }
        "DELETE_SUBJECT" => {
            #[derive(Deserialize)]
            struct Delete {
                version: u32,
            }
            let subject = named(subject)?;
            match value {
                Some(value) => {
                    let Delete { version } = from_json("DELETE_SUBJECT", value)?;
                    Parsed::DeleteSubject { subject, version_max: version }
                }
                None => Parsed::Nothing,
            }
        }
        "CLEAR_SUBJECT" => match value {
            Some(_) => Parsed::ClearSubject { subject: named(subject)? },
            None => Parsed::Nothing,
        },
        "NOOP" | "CONTEXT" => Parsed::Nothing,
        _ => Parsed::Unknown { kind: key.keytype },
    })
}

fn from_json<'a, T: Deserialize<'a>>(kind: &'static str, json: &'a [u8]) -> Result<T, Malformed> {
    serde_json::from_slice(json).map_err(|error| Malformed::Value { kind, problem: error.to_string() })
}

fn level_of(kind: &'static str, level: &str) -> Result<Level, Malformed> {
    Level::from_name(level).ok_or_else(|| Malformed::Value { kind, problem: "its level is unknown".to_owned() })
}
