//! What the catalog said of tables, for rows that are decoded after it says something else.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use encoder::TableFacts;
use pgoutput::{Lsn, Oid, Relation, RelationColumn, ReplicaIdentity};
use publisher::Attachment;
use rustc_hash::{FxHashMap, FxHashSet};
use tracing::warn;

use super::keys::{
    KeyHistory, KeyThen, Rows, When,
    kept::{self, Place},
};
use crate::{
    catalog::{Catalog, KeySeen, KeysSeen},
    config::OnUncertainKey,
    failure::Failure,
    snapshot::{FullXid, NewestLook, Visibility},
};

/// What is remembered. Bounded by the tables that were streamed since the process began, and those that were matched.
pub(super) struct Memory {
    facts: FxHashMap<Oid, TableFacts>,
    /// Of all tables that are matched: those that have another replica identity may have REPLICA IDENTITY FULL by the time at which somebody asks.
    keys: FxHashMap<Oid, KeyHistory>,
    /// The last look at all of them, until it is handed on to stand beside the checkpoint.
    looked: Option<Arc<Visibility>>,
    /// Whether something was found that does not stand there, and is not on its way.
    has_found: bool,
    /// Whether something was found since the session began, so that it may not stand there yet.
    has_found_since: bool,
    /// How many sessions have begun.
    session: u64,
    /// The number by which the first state of the next table is known.
    next_number: u64,
    /// Those that were announced, and of which the catalog knew what they were.
    streamed: FxHashSet<Oid>,
    /// Whether the records of each had a key when it was announced last.
    keyed: FxHashMap<Oid, bool>,
    newest: NewestLook,
    /// Where all this was seen.
    place: Option<Place>,
    /// What is older had ended before anything that is still to come.
    horizon: Option<FullXid>,
    /// How far the log is in Kafka for good: whatever happens, nothing before it is read again.
    committed: Lsn,
}

/// Looks up what the stream will not say of these tables, which are all that are asked for, as long as it can be: the keys of those with REPLICA
/// IDENTITY FULL are those of the catalog, and may be others by the time at which a row is decoded. A table can come to have it and another key before
/// the next look, so that every table's key is looked at.
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

/// Numbers for the states of one table, which no other has, nor that one when it comes back.
fn numbers(next: &mut u64) -> u64 {
    const STATES_MAX: u64 = 1 << 32;
    let first = *next;
    *next += STATES_MAX;
    first
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

impl Default for Memory {
    fn default() -> Self {
        Self {
            facts: FxHashMap::default(),
            keys: FxHashMap::default(),
            looked: None,
            has_found: false,
            has_found_since: false,
            session: 0,
            next_number: 0,
            streamed: FxHashSet::default(),
            keyed: FxHashMap::default(),
            newest: NewestLook::default(),
            place: None,
            horizon: None,
            committed: Lsn::INVALID,
        }
    }
}

impl Memory {
    fn take(&mut self, found: KeysSeen, facts: FxHashMap<Oid, TableFacts>) {
        if let Some(seen) = found.seen {
            for (table, history) in &mut self.keys {
                if !found.keys.contains_key(table) {
                    history.leave(&seen, found.end);
                }
            }
            self.looked = Some(seen);
        }
        for (table, key) in found.keys {
            self.history(table).observe(key);
        }
        let has_news = self.keys.values().any(KeyHistory::has_news);
        self.find(has_news);
        for (table, facts) in facts {
            // What is there already is of the rows that are still to come.
            self.facts.entry(table).or_insert(facts);
        }
    }

    /// Takes note of the server of the session that begins, of its timeline, and of what stands beside the checkpoint; returns what is to be taken away
    /// from there.
    ///
    /// At another server there may never have been what was seen last at the one before, and its transactions may have the numbers of others, so
    /// that it is forgotten. On another timeline, as of a standby that was promoted, what the catalog said is, and of keys it is only not known
    /// until when they were there.
    ///
    /// # Errors
    /// What stands there cannot be used.
    pub(super) fn begin_at(
        &mut self,
        here: Place,
        attachments: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Vec<Attachment>, Failure> {
        self.horizon = None;
        self.committed = Lsn::INVALID;
        self.session += 1;
        match self.place.replace(here) {
            Some(before) if before != here => {
                let Place { system_identifier, timeline } = here;
                warn!(
                    system_identifier,
                    timeline,
                    "the server is another than before, or has gone on as another timeline: what the catalog said before is forgotten, so that \
                     rows from before a change of their table that are still to come are described by the catalog of now"
                );
                self.facts.clear();
                self.looked = None;
                if before.system_identifier == system_identifier {
                    self.keys.values_mut().for_each(KeyHistory::distrust);
                } else {
                    // Its tables have other OIDs.
                    self.keys.clear();
                    self.newest = NewestLook::default();
                    self.streamed.clear();
                    self.keyed.clear();
                }
            }
            _ => {}
        }
        let kept = kept::read(attachments, here, &self.newest)?;
        // What a session handed on may not have been committed.
        for (table, history) in &mut self.keys {
            history.compare(kept.histories.get(table));
        }
        for (table, mut history) in kept.histories {
            history.number_from(numbers(&mut self.next_number));
            self.keys.entry(table).or_insert(history);
        }
        let has_news = self.keys.values().any(KeyHistory::has_news);
        self.find(has_news);
        Ok(kept.strangers)
    }

    /// Whether something was found that does not stand beside the checkpoint yet. What only says until when it was so may wait.
    pub(super) fn has_found(&self) -> bool {
        self.has_found
    }

    fn find(&mut self, has_news: bool) {
        self.has_found |= has_news;
        self.has_found_since |= has_news;
    }

    /// Takes note that the session has begun at this position, with all that was found before beside its checkpoint. Returns its number.
    pub(super) fn begin(&mut self, position: Lsn) -> u64 {
        self.has_found_since = false;
        self.committed = position;
        self.session
    }

    /// Takes note of what a session has in Kafka for good. One that is over has nothing more to say.
    pub(super) fn commit(&mut self, session: u64, position: Lsn) {
        if session == self.session {
            self.committed = position;
        }
    }

    /// Takes note of the oldest transaction whose catalog the slot needs.
    pub(super) fn see_horizon(&mut self, horizon: Option<FullXid>) {
        self.horizon = horizon.or(self.horizon);
    }

    /// Whether something was found that may not stand beside the checkpoint, since only the beginning of a session says for certain that it does.
    pub(super) fn may_lose(&self) -> bool {
        self.has_found_since
    }

    /// What is to stand beside the next checkpoint, and does not yet. What no row can have that is still to come is forgotten.
    pub(super) fn unkept(&mut self) -> Vec<Attachment> {
        let committed = self.committed;
        let (looked, has_found) = (self.looked.take(), std::mem::take(&mut self.has_found));
        let Some(place) = self.place.filter(|_| looked.is_some() || has_found) else { return Vec::new() };
        let mut attachments = Vec::new();
        self.keys.retain(|table, history| {
            let is_over = history.forget_before(committed);
            if is_over {
                attachments.push(kept::removal(*table));
            } else if history.keep() {
                attachments.push(kept::table(place, *table, history));
            }
            !is_over
        });
        attachments.extend(looked.map(|looked| kept::look(place, &looked)));
        attachments
    }

    fn history(&mut self, table: Oid) -> &mut KeyHistory {
        let new = || KeyHistory::new(self.newest.clone(), numbers(&mut self.next_number));
        self.keys.entry(table).or_insert_with(new)
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
        word: OnUncertainKey,
    ) -> (TableFacts, Option<KeyThen>) {
        let then = if relation.replica_identity == ReplicaIdentity::Full {
            if let Some(key) = key {
                let history = self.history(relation.id);
                history.observe(key);
                let has_news = history.has_news();
                self.find(has_news);
            }
            // Where each column of the rows is there now, none was renamed, and what is there besides is not published.
            let is_as_now = relation.columns.iter().all(|its| is_known(&found, its));
            let rows = Rows {
                has_column: &|column| relation.columns.iter().any(|its| its.name == column),
                exists: &|column| is_as_now && found.column(column).is_some(),
                horizon: self.horizon,
            };
            let nothing = KeyHistory::default();
            let then = self.keys.get(&relation.id).unwrap_or(&nothing).at(when, word, &rows);
            Some(then)
        } else {
            None
        };
        let is_known = then.as_ref().is_some_and(|then| then.doubt.is_none() || then.columns.is_some());
        let mut facts = self.complete(found, relation, is_known);
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
    // The stream names the key itself, but for whole rows.
    let key_is_known =
        relation.replica_identity != ReplicaIdentity::Full || facts.primary_key.is_none() || has_key(facts, relation);
    key_is_known && relation.columns.iter().all(|column| is_known(facts, column))
}

fn is_known(facts: &TableFacts, column: &RelationColumn) -> bool {
    facts.column(&column.name).is_some_and(|facts| facts.type_oid == column.type_oid)
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
mod tests;
