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

/// What is remembered. Bounded by the tables that were streamed since the process began, and those that were matched.
#[derive(Default)]
pub(super) struct Memory {
    facts: FxHashMap<Oid, TableFacts>,
    /// Of all tables that are matched: those that have another replica identity may have REPLICA IDENTITY FULL by the time at which somebody asks.
    keys: FxHashMap<Oid, KeyHistory>,
    /// Those that were announced, and of which the catalog knew what they were.
    streamed: FxHashSet<Oid>,
    /// Whether the records of each had a key when it was announced last.
    keyed: FxHashMap<Oid, bool>,
    newest: NewestLook,
    /// Where all this was seen.
    server: Option<(u64, u32)>,
}

/// Looks up what the stream will not say of these tables, as long as it can be: the keys of those with REPLICA IDENTITY FULL are those of the
/// catalog, and may be others by the time at which a row is decoded. A table can come to have it and another key before the next look, so that
/// every table's key is looked at.
///
/// # Errors
/// The server cannot be asked.
pub(super) async fn look_ahead(catalog: &mut Catalog, tables: &[Oid], memory: &Mutex<Memory>) -> Result<(), Failure> {
    let keys = catalog.primary_keys(tables).await?;
    let full = catalog.full_tables(tables).await?;
    let unknown: Vec<Oid> = {
        let memory = lock(memory);
        full.into_iter().filter(|table| !memory.facts.contains_key(table)).collect()
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

    /// Takes note of the server of the session that begins, and its timeline. At another one, such as a standby that was promoted, there may never
    /// have been what was seen last at the one before, and its transactions may have the numbers of others: so that is forgotten.
    pub(super) fn begin_at(&mut self, system_identifier: u64, timeline: u32) {
        let server = (system_identifier, timeline);
        match self.server.replace(server) {
            Some(before) if before != server => {
                warn!(
                    system_identifier,
                    timeline,
                    "the server is another than before, or has gone on as another timeline: what the catalog said before is forgotten, so that                      rows from before a change of their table that are still to come are described by the catalog of now, and those of a table                      with REPLICA IDENTITY FULL have the key of now"
                );
                self.facts.clear();
                self.keys.clear();
                self.newest = NewestLook::default();
                if before.0 != system_identifier {
                    // Its tables have other OIDs.
                    self.streamed.clear();
                    self.keyed.clear();
                }
            }
            _ => {}
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pgoutput::{Timestamp, Xid};

    use super::*;
    use crate::{
        catalog::PrimaryKey,
        pipeline::keys::{Announced, Writer},
    };

    const TABLE: u32 = 16384;

    fn look(column: &str, made_by: u32, seen: &str) -> FxHashMap<Oid, KeySeen> {
        let key = PrimaryKey { columns: vec![column.to_owned()], made_by: Xid::from(made_by), made_at: None };
        let seen = Arc::new(seen.parse().expect("a snapshot"));
        FxHashMap::from_iter([(Oid::from(TABLE), KeySeen { key: Some(key), is_partitioned: false, seen })])
    }

    fn relation() -> Relation {
        let column = |name: &str| RelationColumn {
            is_key: true,
            name: name.to_owned(),
            type_oid: Oid::from(23),
            type_modifier: -1,
        };
        Relation {
            xid: None,
            id: Oid::from(TABLE),
            schema: "public".to_owned(),
            name: "item".to_owned(),
            replica_identity: ReplicaIdentity::Full,
            columns: vec![column("id"), column("code")],
        }
    }

    /// The key of the rows of a transaction, and whether that is a guess.
    fn key_of(memory: &mut Memory, xid: u32) -> Option<(String, bool)> {
        let writer = Writer { xid: Xid::from(xid), committed_at: Timestamp::from(0) };
        let when = When::In(writer, Announced::default());
        let then = memory.recall(TableFacts::default(), None, &relation(), when).1?;
        Some((then.columns?.join(" "), then.doubt.is_some()))
    }

    /// A standby lacks the end of what its primary had, where transactions of other numbers go on.
    #[test]
    fn what_was_seen_at_another_server_is_forgotten() {
        for (system_identifier, timeline, is_another) in [(7, 1, false), (7, 2, true), (8, 1, true)] {
            let mut memory = Memory::default();
            memory.begin_at(7, 1);
            memory.take(look("id", 100, "150:150:"), FxHashMap::from_iter([(Oid::from(TABLE), TableFacts::default())]));
            memory.take(look("code", 200, "250:250:"), FxHashMap::default());
            assert_eq!(memory.note_key(Oid::from(TABLE), true), Keyless::Old);
            memory.begin_at(system_identifier, timeline);
            assert_eq!(memory.facts.is_empty(), is_another, "{system_identifier} {timeline}");
            memory.take(look("id", 100, "190:190:"), FxHashMap::default());
            let expected = if is_another { "id" } else { "code" };
            assert_eq!(key_of(&mut memory, 300), Some((expected.to_owned(), false)), "{system_identifier} {timeline}");
            let expected = if system_identifier == 7 { Keyless::Lost } else { Keyless::Found };
            assert_eq!(memory.note_key(Oid::from(TABLE), false), expected, "{system_identifier} {timeline}");
        }
    }
}
