//! `[[tables]]`: what is otherwise for some tables.

use encoder::EncodeOptions;

use super::entries::{self, Entry};
use super::events;
use super::keys;
use super::problem::Fault;
use super::reader::{Noted, Reader};
use super::routing::TopicTemplate;
use super::shaping::TableIdentity;
use super::{Policies, TablePattern};

/// What is otherwise for some tables.
#[derive(Clone, Debug)]
pub struct TableOverride {
    /// The tables; at least one pattern.
    pub tables: Vec<TablePattern>,
    /// Their topic, whatever template and routes say.
    pub topic: Option<TopicTemplate>,
    /// The columns of the key, instead of the replica identity's.
    pub key: Option<Vec<String>>,
    /// Partitions of their topic when it is created.
    pub partitions: Option<i32>,
    /// What becomes of them in trouble.
    pub policies: Policies,
    /// `[events]`, with what is otherwise for them.
    pub events: EncodeOptions,
}

/// Reads the list. `events` and `policies` are what holds for all tables.
pub(super) fn read(
    reader: &mut Reader,
    events: Option<&EncodeOptions>,
    policies: Policies,
) -> Result<Vec<TableOverride>, Noted> {
    let base = events.cloned().unwrap_or_default();
    entries::read(reader, &keys::TABLES, |entry| TableOverride::read(entry, &base, policies))
}

impl TableOverride {
    fn read(entry: &mut Entry<'_>, base: &EncodeOptions, policies: Policies) -> Result<Self, Noted> {
        let tables = entry.some("match", "[\"public.orders\"]");
        let topic = entry.optional("topic");
        let key = Self::key(entry);
        let partitions = Self::partitions(entry);
        let (on_incompatible, on_uncertain_key) =
            (entry.optional("on_incompatible"), entry.optional("on_uncertain_key"));
        let mut events = base.clone();
        events::read_into(entry, &mut events)?;
        Ok(Self {
            tables: tables?,
            topic: topic?,
            key: key?,
            partitions: partitions?,
            policies: Policies {
                on_incompatible: on_incompatible?.unwrap_or(policies.on_incompatible),
                on_uncertain_key: on_uncertain_key?.unwrap_or(policies.on_uncertain_key),
            },
            events,
        })
    }

    fn key(entry: &mut Entry<'_>) -> Result<Option<Vec<String>>, Noted> {
        let Some(key) = entry.list::<String>("key")? else { return Ok(None) };
        let twice = key.iter().enumerate().find(|(index, column)| key[..*index].contains(column));
        let found = match twice {
            Some((_, column)) => format!("found column {column:?} twice"),
            None if key.is_empty() => "found an empty list".to_owned(),
            None => return Ok(Some(key)),
        };
        Err(entry.note("key", Fault::new(found, "give the columns of the key, each once, as in [\"order_no\"]")))
    }

    fn partitions(entry: &mut Entry<'_>) -> Result<Option<i32>, Noted> {
        let Some(count) = entry.optional::<i64>("partitions")? else { return Ok(None) };
        match i32::try_from(count) {
            Ok(count @ 1..=100_000) => Ok(Some(count)),
            _ => Err(entry.note("partitions", Fault::new(format!("found {count}"), "give a number from 1 to 100000"))),
        }
    }

    /// Whether it is about this table.
    pub fn matches(&self, table: &TableIdentity) -> bool {
        let is_meant = |(schema, name): &(String, String)| self.tables.iter().any(|it| it.matches(schema, name));
        table.names.iter().any(is_meant)
    }
}
