//! What a writer knows, and how it registers.

use super::record::write_schema;
use super::{AvroSchema, InvalidSchema, Level, MalformedRecord, Noted, Store, why_incompatible};
use crate::client::SchemaId;
use crate::error::{ErrorKind, Facts, RegistryError};

/// The log of a topic in two views: what was committed, and all that was ever written.
#[derive(Debug, Default)]
pub struct Ledger {
    committed: Store,
    written: Store,
}

/// How a schema gets its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// It is registered.
    Registered(SchemaId),
    /// This record is to be written, and committed; then it is registered.
    Write {
        /// The id that the schema then has.
        id: SchemaId,
        /// The version that the subject then has.
        version: u32,
        /// The record's key.
        key: Vec<u8>,
        /// The record's value.
        value: Vec<u8>,
    },
}

/// Why a schema is not registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The text is no schema.
    #[error("the schema is not valid: {0}")]
    Invalid(#[from] InvalidSchema),
    /// The subject's level does not allow it.
    #[error("incompatible with {}", reasons.join("; "))]
    Incompatible {
        /// The level that holds for the subject.
        level: Level,
        /// What does not fit, each with version and place.
        reasons: Vec<String>,
    },
    /// The registry or the subject is in a mode that takes no schema.
    #[error("the mode of the subject or of the registry lets nothing be registered")]
    ReadOnly,
    /// A record of the topic cannot be understood.
    #[error(
        "a record of the topic cannot be understood, and what it says could matter: {}",
        .0.as_ref().map_or_else(|| "it is one of many".to_owned(), ToString::to_string)
    )]
    Malformed(Option<MalformedRecord>),
    /// Every id is in use.
    #[error("there is no id left")]
    Exhausted,
}

impl Ledger {
    /// Takes the next record of the log as a reader sees it that does not heed transactions.
    pub fn read_uncommitted(&mut self, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Noted> {
        self.written.apply(offset, key, value)
    }

    /// Takes the next record of the log that was committed.
    pub fn read_committed(&mut self, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Noted> {
        self.committed.apply(offset, key, value)
    }

    /// What was committed.
    pub fn committed(&self) -> &Store {
        &self.committed
    }

    /// All that was ever written. Of use for ids: none of them is ever given to another schema.
    pub fn written(&self) -> &Store {
        &self.written
    }

    /// How a schema is to be registered, which is right as long as nobody else writes.
    ///
    /// # Errors
    /// It must not be.
    pub fn plan(&self, subject: &str, schema: &AvroSchema) -> Result<Plan, Refused> {
        if let Some(version) = self.committed.lookup(subject, schema, false) {
            return Ok(Plan::Registered(SchemaId::new(version.id)));
        }
        if !self.written.is_whole() {
            return Err(Refused::Malformed(self.written.malformed().cloned()));
        }
        if !self.committed.is_writable(subject) {
            return Err(Refused::ReadOnly);
        }
        let level = self.committed.effective_level(subject);
        let reasons = why_incompatible(level, schema, self.committed.versions(subject, false));
        if !reasons.is_empty() {
            return Err(Refused::Incompatible { level, reasons });
        }
        // What was given up is taken up again where it was, unless the subject has gone on meanwhile.
        let given_up = self.written.lookup(subject, schema, false);
        let given_up = given_up.filter(|found| found.number > self.committed.version_max(subject));
        let (version, id) = if let Some(found) = given_up {
            (found.number, found.id)
        } else {
            let known = self.committed.id_of(subject, schema).or_else(|| self.written.id_of(subject, schema));
            // The API's ids are signed, and so are its versions.
            let next = |max: u32| max.checked_add(1).filter(|next| i32::try_from(*next).is_ok());
            let id = known.or_else(|| next(self.written.id_max())).ok_or(Refused::Exhausted)?;
            (next(self.written.version_max(subject)).ok_or(Refused::Exhausted)?, id)
        };
        let (key, value) = write_schema(subject, version, id, schema.text());
        Ok(Plan::Write { id: SchemaId::new(id), version, key, value })
    }
}

impl Refused {
    /// The same as an error of a registry, as a remote one would answer it; `place` says where the schemas are.
    pub fn into_error(self, place: &str, subject: &str) -> RegistryError {
        let found = self.to_string();
        let (kind, status, code, level) = match &self {
            Self::Incompatible { level, .. } => (ErrorKind::Incompatible, 409, 409, Some(level.to_string())),
            Self::Invalid(_) => (ErrorKind::Rejected, 422, 42_201, None),
            Self::ReadOnly => (ErrorKind::Rejected, 422, 42_205, None),
            Self::Malformed(_) => (ErrorKind::Rejected, 500, 50_001, None),
            Self::Exhausted => (ErrorKind::Rejected, 500, 50_005, None),
        };
        RegistryError::new(Facts {
            kind,
            url: place.to_owned(),
            operation: "registering subject",
            subject: Some(subject.to_owned()),
            status: Some(status),
            code: Some(code),
            is_of_api: true,
            found,
            retry_after: None,
            level,
            fix: self.fix(),
        })
    }

    fn fix(&self) -> Option<&'static str> {
        match self {
            Self::Malformed(_) => {
                Some("see who wrote it; then write a record with the same key, whose value is right or which has none")
            }
            Self::Incompatible { .. } => Some(
                "undo the change of the table, or relax the subject's compatibility level until the new schema is registered: write a CONFIG record for it to the topic, or let a registry that has taken the topic over do it",
            ),
            Self::ReadOnly => Some("write a MODE record with READWRITE"),
            _ => None,
        }
    }
}
