//! What the catalog said of tables, for rows that are decoded after it says something else.

use std::sync::{Mutex, MutexGuard, PoisonError};

use encoder::TableFacts;
use pgoutput::{Oid, Relation, RelationColumn, ReplicaIdentity};
use rustc_hash::{FxHashMap, FxHashSet};
use tracing::warn;

use super::keys::{KeyHistory, KeyThen, When};
use crate::{
    catalog::{Catalog, KeySeen},
    failure::Failure,
    snapshot::NewestLook,
};

/// What is remembered. Bounded by the tables that were streamed since the process began, and those that have REPLICA IDENTITY FULL.
#[derive(Default)]
pub(super) struct Memory {
    facts: FxHashMap<Oid, TableFacts>,
    /// Of tables with REPLICA IDENTITY FULL.
    keys: FxHashMap<Oid, KeyHistory>,
    /// Those that were announced, and of which the catalog knew what they were.
    streamed: FxHashSet<Oid>,
    /// Whether the records of each had a key when it was announced last.
    keyed: FxHashMap<Oid, bool>,
    newest: NewestLook,
}

/// Looks up what the stream will not say of those of the tables that have REPLICA IDENTITY FULL, as long as it can be: their keys are those of
/// the catalog, and may be others by the time at which a row is decoded.
///
/// # Errors
/// The server cannot be asked.
pub(super) async fn look_ahead(catalog: &mut Catalog, tables: &[Oid], memory: &Mutex<Memory>) -> Result<(), Failure> {
    let tables = catalog.full_tables(tables).await?;
    let keys = catalog.primary_keys(&tables).await?;
    let unknown: Vec<Oid> = {
        let memory = lock(memory);
        tables.into_iter().filter(|table| !memory.facts.contains_key(table)).collect()
    };
    let facts = catalog.facts_of_tables(&unknown).await?;
    lock(memory).take(keys, facts);
    Ok(())
}

/// It is whole after every statement, so that a panic elsewhere leaves nothing broken.
pub(super) fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of the key of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Keyless {
    /// Its records have a key, or it was said that they have none.
    Old,
    /// They have none, as far as this process knows they never had.
    Found,
    /// They have none any more.
    Lost,
}

impl Memory {
    fn take(&mut self, keys: FxHashMap<Oid, KeySeen>, facts: FxHashMap<Oid, TableFacts>) {
        for (table, key) in keys {
            self.history(table).observe(key);
        }
        for (table, facts) in facts {
            // What is there already is of the rows that are still to come.
            self.facts.entry(table).or_insert(facts);
        }
    }

    fn history(&mut self, table: Oid) -> &mut KeyHistory {
        self.keys.entry(table).or_insert_with(|| KeyHistory::new(self.newest.clone()))
    }

    /// Whether the table was streamed under some name.
    pub(super) fn has_streamed(&self, table: Oid) -> bool {
        self.streamed.contains(&table)
    }

    /// Takes note of whether the records of a table have a key, and says whether that is news.
    pub(super) fn note_key(&mut self, table: Oid, has_key: bool) -> Keyless {
        match (self.keyed.insert(table, has_key), has_key) {
            (_, true) | (Some(false), false) => Keyless::Old,
            (None, false) => Keyless::Found,
            (Some(true), false) => Keyless::Lost,
        }
    }

    /// What was found of a table, and its primary key, completed by what is remembered for rows of that time; and what is known of their key, if
    /// the stream does not say it.
    pub(super) fn recall(
        &mut self,
        found: TableFacts,
        key: Option<KeySeen>,
        relation: &Relation,
        when: When,
    ) -> (TableFacts, Option<KeyThen>) {
        let then = if relation.replica_identity == ReplicaIdentity::Full {
            let history = self.history(relation.id);
            if let Some(key) = key {
                history.observe(key);
            }
            history.at(when, |column| relation.columns.iter().any(|its| its.name == column))
        } else {
            None
        };
        let mut facts = self.complete(found, relation, then.is_some());
        if let Some(then) = &then {
            facts.primary_key.clone_from(&then.columns);
        }
        (facts, then)
    }

    fn complete(&mut self, found: TableFacts, relation: &Relation, key_is_known: bool) -> TableFacts {
        if describes(&found, relation) {
            self.facts.insert(relation.id, found.clone());
            self.streamed.insert(relation.id);
            return found;
        }
        if let Some(held) = self.facts.get(&relation.id) {
            return completed(&found, held, relation);
        }
        let lacks_key =
            relation.replica_identity == ReplicaIdentity::Full && !key_is_known && !has_key(&found, relation);
        warn!(
            schema = relation.schema,
            table = relation.name,
            lacks_key,
            "{}, and this process has not seen it as it was: what is still to come of that time is described by the stream alone, so that \
             columns are optional, and a table with REPLICA IDENTITY FULL may have no key",
            if found.columns.is_empty() { "the table is gone" } else { "the table has been changed since" }
        );
        found
    }
}

/// Whether these are the facts of the table as the stream has it, as far as one can tell: each of its columns, and the key if there is one.
fn describes(facts: &TableFacts, relation: &Relation) -> bool {
    let is_known =
        |column: &RelationColumn| facts.column(&column.name).is_some_and(|facts| facts.type_oid == column.type_oid);
    // The stream names the key itself, but for whole rows.
    let key_is_known =
        relation.replica_identity != ReplicaIdentity::Full || facts.primary_key.is_none() || has_key(facts, relation);
    key_is_known && relation.columns.iter().all(is_known)
}

/// What the catalog says of the columns that are still what they were, and what it said before of the others; likewise the key.
fn completed(found: &TableFacts, held: &TableFacts, relation: &Relation) -> TableFacts {
    let facts_of = |column: &RelationColumn| {
        let of = |facts: &TableFacts| facts.column(&column.name).filter(|it| it.type_oid == column.type_oid).cloned();
        of(found).or_else(|| of(held))
    };
    let key_of = if has_key(found, relation) || !has_key(held, relation) { found } else { held };
    TableFacts {
        columns: relation.columns.iter().filter_map(facts_of).collect(),
        primary_key: key_of.primary_key.clone(),
    }
}

fn has_key(facts: &TableFacts, relation: &Relation) -> bool {
    let is_there = |name: &String| relation.columns.iter().any(|column| column.name == *name);
    facts.primary_key.as_ref().is_some_and(|key| key.iter().all(is_there))
}
