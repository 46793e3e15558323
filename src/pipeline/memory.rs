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
mod tests {
    use std::sync::Arc;

    use encoder::ColumnFacts;
    use pgoutput::Xid;

    use super::*;
    use crate::pipeline::keys::{Announced, Writer};

    const TABLE: u32 = 16384;

    const HERE: Place = Place { system_identifier: 7, timeline: 1 };

    fn look(column: &str, made_by: u32, seen: &str) -> KeysSeen {
        let mut key = KeySeen::for_test(column, Xid::from(made_by), None, seen);
        if let Some(key) = &mut key.key {
            key.is_born = column == "id";
        }
        let (seen, end) = (Some(Arc::clone(&key.seen)), key.found_at);
        KeysSeen { keys: FxHashMap::from_iter([(Oid::from(TABLE), key)]), seen, end }
    }

    /// A look at which there was another table, and not this one.
    fn gone(seen: &str, end: u64) -> KeysSeen {
        let mut look = look("id", 100, seen);
        look.end = Lsn::from(end);
        look.keys = look.keys.into_values().map(|key| (Oid::from(TABLE + 1), key)).collect();
        look
    }

    /// What stands beside the checkpoint once this is committed.
    fn commit(stands: &mut BTreeMap<String, Vec<u8>>, attachments: Vec<Attachment>) {
        for attachment in attachments {
            match attachment.value {
                Some(value) => stands.insert(attachment.suffix, value),
                None => stands.remove(&attachment.suffix),
            };
        }
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

    /// The key of the rows of a transaction, and whether that is in doubt.
    fn key_of(memory: &mut Memory, xid: u32) -> Option<(String, bool)> {
        let writer = Writer { xid: Xid::from(xid), committed_at: None };
        let when = When::In(writer, Announced::default());
        let then = memory.recall(TableFacts::default(), None, &relation(), when, OnUncertainKey::Likely).1?;
        Some((then.columns?.join(" "), then.doubt.is_some()))
    }

    fn expect(memory: &mut Memory, xid: u32, key: &str, is_doubtful: bool) {
        assert_eq!(key_of(memory, xid), Some((key.to_owned(), is_doubtful)), "{xid}");
    }

    /// A standby lacks the end of what its primary had, where transactions of other numbers go on.
    #[test]
    fn what_was_seen_at_another_server_is_forgotten() {
        for (system_identifier, timeline) in [(7, 1), (7, 2), (8, 1)] {
            let place = Place { system_identifier, timeline };
            let mut memory = Memory::default();
            memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
            memory.take(look("id", 100, "150:150:"), FxHashMap::from_iter([(Oid::from(TABLE), TableFacts::default())]));
            assert_eq!(memory.note_key(Oid::from(TABLE), true), Keyless::Old);
            memory.begin_at(place, &BTreeMap::new()).expect("nothing stands there");
            assert_eq!(memory.facts.is_empty(), place != HERE, "{place:?}");
            memory.take(look("code", 200, "250:250:"), FxHashMap::default());
            expect(&mut memory, 300, "code", false);
            match (system_identifier, timeline) {
                (7, 1) => expect(&mut memory, 140, "id", false),
                // It may be another transaction of that number.
                (7, _) => expect(&mut memory, 140, "id", true),
                // Somebody has made the key later, and nobody has seen what was there before.
                _ => expect(&mut memory, 140, "code", true),
            }
            let expected = if system_identifier == 7 { Keyless::Lost } else { Keyless::Found };
            assert_eq!(memory.note_key(Oid::from(TABLE), false), expected, "{place:?}");
        }
    }

    /// Whatever another process finds: what was seen before it stays known, and what was not seen stays in doubt.
    #[test]
    fn the_next_process_knows_what_was_seen() {
        let mut stands = BTreeMap::new();
        let begin = |stands: &BTreeMap<String, Vec<u8>>, place| {
            let mut memory = Memory::default();
            let strangers = memory.begin_at(place, stands).expect("it is readable");
            (memory, strangers)
        };
        let (mut memory, _) = begin(&stands, HERE);
        memory.take(look("id", 100, "150:150:"), FxHashMap::default());
        assert!(memory.has_found());
        commit(&mut stands, memory.unkept());
        // A look that finds nothing new is one record, and no look is none.
        memory.take(look("id", 100, "180:180:"), FxHashMap::default());
        assert!(!memory.has_found());
        let again = memory.unkept();
        assert_eq!(again.iter().map(|it| it.suffix.as_str()).collect::<Vec<_>>(), ["keys"]);
        commit(&mut stands, again);
        assert_eq!(memory.unkept(), []);

        let (mut memory, strangers) = begin(&stands, HERE);
        assert_eq!(strangers, []);
        memory.take(look("code", 200, "250:250:"), FxHashMap::default());
        for (xid, key, is_doubtful) in
            [(179, "id", false), (180, "id", true), (249, "code", true), (250, "code", false)]
        {
            expect(&mut memory, xid, key, is_doubtful);
        }
        // What a session handed on and did not commit is handed on again by the next.
        let lost = memory.unkept();
        memory.begin_at(HERE, &stands).expect("it is readable");
        memory.take(look("code", 200, "260:260:"), FxHashMap::default());
        let again = memory.unkept();
        assert_eq!(again[0], lost[0], "the table's");
        commit(&mut stands, again);
        memory.begin_at(HERE, &stands).expect("it is readable");
        memory.take(look("code", 200, "270:270:"), FxHashMap::default());
        assert_eq!(memory.unkept().len(), 1, "it was committed");
        let (mut memory, _) = begin(&stands, HERE);
        expect(&mut memory, 179, "id", false);
        expect(&mut memory, 200, "code", true);

        // On another timeline nothing is known of when; at another server nothing at all.
        let (mut memory, strangers) = begin(&stands, Place { timeline: 2, ..HERE });
        assert_eq!(strangers, []);
        memory.take(look("code", 200, "300:300:"), FxHashMap::default());
        expect(&mut memory, 179, "id", true);
        let (memory, strangers) = begin(&stands, Place { system_identifier: 8, ..HERE });
        assert_eq!(strangers, [Attachment::removal(format!("keys/{TABLE}"))]);
        assert!(memory.keys.is_empty());
        for (suffix, value) in [("keys", "{}"), ("keys/1", "{}"), ("keys/x", "{}"), ("keys/1", "no JSON")] {
            let stands = BTreeMap::from([(suffix.to_owned(), value.as_bytes().to_vec())]);
            let failure = Memory::default().begin_at(HERE, &stands).expect_err("it cannot be used");
            assert_eq!(failure.code(), crate::failure::Code::CheckpointCorrupt, "{suffix}");
        }
    }

    /// Nobody has looked while it was there.
    #[test]
    fn of_a_table_that_nobody_has_seen_nothing_is_kept() {
        let mut memory = Memory::default();
        memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
        memory.take(gone("150:150:", 5000), FxHashMap::default());
        assert_eq!(memory.unkept().len(), 2, "the other table, and the look");
        let when = When::In(Writer { xid: Xid::from(140), committed_at: None }, Announced::default());
        let then = memory.recall(TableFacts::default(), None, &relation(), when, OnUncertainKey::Stop).1;
        assert!(then.expect("it has REPLICA IDENTITY FULL").doubt.is_some());
        assert!(!memory.has_found());
        memory.take(gone("160:160:", 6000), FxHashMap::default());
        assert_eq!(memory.unkept().iter().map(|it| it.suffix.as_str()).collect::<Vec<_>>(), ["keys"]);
        // A record that says nothing is taken away.
        let nothing = r#"{"version":1,"place":{"system_identifier":7,"timeline":1},"is_partitioned":false,"is_current":false,"states":[]}"#;
        let stands = BTreeMap::from([(format!("keys/{TABLE}"), nothing.as_bytes().to_vec())]);
        let removals = Memory::default().begin_at(HERE, &stands).expect("it is readable");
        assert_eq!(removals, [Attachment::removal(format!("keys/{TABLE}"))]);
    }

    /// A session that fails reads again from what is committed: until then all states may be needed.
    #[test]
    fn a_state_is_forgotten_once_what_came_before_is_committed() {
        let mut memory = Memory::default();
        memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
        memory.take(look("id", 100, "150:150:"), FxHashMap::default());
        memory.take(look("code", 200, "250:250:"), FxHashMap::default());
        memory.commit(memory.session, Lsn::from(249));
        let _handed_on = memory.unkept();
        expect(&mut memory, 140, "id", false);
        memory.commit(memory.session, Lsn::from(250));
        assert!(memory.unkept().is_empty(), "it waits for the next look");
        memory.commit(memory.session - 1, Lsn::INVALID);
        memory.take(look("code", 200, "260:260:"), FxHashMap::default());
        assert_eq!(memory.unkept().len(), 2, "the table's, and the look");
        assert_eq!(
            memory.keys[&Oid::from(TABLE)]
                .at(When::Now, OnUncertainKey::Stop, &Rows { has_column: &|_| true, exists: &|_| true, horizon: None })
                .state
                .map(|state| state & 0xffff),
            Some(1)
        );
    }

    /// What is handed on in the middle of a transaction may be aborted with it.
    #[test]
    fn what_was_found_in_a_session_may_be_lost_until_the_next_has_begun() {
        let mut memory = Memory::default();
        memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
        memory.take(look("id", 100, "150:150:"), FxHashMap::default());
        let _with_the_checkpoint = memory.unkept();
        memory.begin(Lsn::from(1));
        assert!(!memory.may_lose());
        // That a table is looked at no more, and then is again, is no news of its key.
        memory.take(gone("160:160:", 5000), FxHashMap::default());
        memory.take(look("id", 100, "170:170:"), FxHashMap::default());
        memory.take(look("code", 200, "250:250:"), FxHashMap::default());
        let handed_on = memory.unkept();
        assert!(!handed_on.is_empty() && !memory.has_found() && memory.may_lose());
        memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
        memory.take(look("code", 200, "260:260:"), FxHashMap::default());
        let _with_the_checkpoint = memory.unkept();
        memory.begin(Lsn::from(1));
        memory.take(gone("270:270:", 6000), FxHashMap::default());
        memory.take(look("code", 200, "280:280:"), FxHashMap::default());
        assert!(!memory.may_lose());
    }

    /// A name that a column has lost is no column that is not published.
    #[test]
    fn a_key_that_was_renamed_before_anybody_looked_is_in_doubt() {
        let columns = |names: &[&str]| TableFacts {
            columns: names.iter().map(|name| ColumnFacts::new(*name, Oid::from(23), "int4")).collect(),
            primary_key: None,
        };
        for (now, is_doubtful) in [(["uid", "code", ""], true), (["uid", "code", "id"], false)] {
            let mut memory = Memory::default();
            memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
            let mut look = look("uid", 100, "150:150:");
            look.keys.values_mut().filter_map(|key| key.key.as_mut()).for_each(|key| key.is_born = true);
            memory.take(look, FxHashMap::default());
            let when = When::In(Writer { xid: Xid::from(140), committed_at: None }, Announced::default());
            let then = memory.recall(columns(&now), None, &relation(), when, OnUncertainKey::Stop).1.expect("a key");
            assert_eq!((then.columns.is_none(), then.doubt.is_some()), (true, is_doubtful), "{now:?}");
        }
    }

    /// Rows of a table that is gone may be still to come, until the log is read up to there.
    #[test]
    fn a_table_that_is_gone_is_known_until_its_last_row() {
        let mut stands = BTreeMap::new();
        let mut memory = Memory::default();
        memory.begin_at(HERE, &stands).expect("nothing stands there");
        memory.take(look("id", 100, "150:150:"), FxHashMap::default());
        memory.take(gone("200:200:", 5000), FxHashMap::default());
        memory.commit(memory.session, Lsn::from(4999));
        commit(&mut stands, memory.unkept());
        let mut memory = Memory::default();
        memory.begin_at(HERE, &stands).expect("it is readable");
        memory.take(gone("300:300:", 9000), FxHashMap::default());
        expect(&mut memory, 180, "id", false);
        memory.commit(memory.session, Lsn::from(4999));
        commit(&mut stands, memory.unkept());
        assert!(stands.contains_key(&format!("keys/{TABLE}")));
        memory.take(gone("310:310:", 9100), FxHashMap::default());
        memory.commit(memory.session, Lsn::from(5000));
        commit(&mut stands, memory.unkept());
        assert_eq!(stands.keys().collect::<Vec<_>>(), ["keys", &format!("keys/{}", TABLE + 1)]);
        // One that comes back is there again.
        let mut memory = Memory::default();
        memory.begin_at(HERE, &stands).expect("it is readable");
        memory.take(gone("400:400:", 9200), FxHashMap::default());
        memory.take(look("id", 100, "410:410:"), FxHashMap::default());
        memory.take(gone("420:420:", 9300), FxHashMap::default());
        memory.commit(memory.session, Lsn::from(9299));
        commit(&mut stands, memory.unkept());
        assert!(stands.contains_key(&format!("keys/{TABLE}")));
        // It was announced after those were looked at that there were.
        let mut memory = Memory::default();
        memory.begin_at(HERE, &BTreeMap::new()).expect("nothing stands there");
        memory.take(look("id", 100, "500:500:"), FxHashMap::default());
        memory.take(gone("490:490:", 9000), FxHashMap::default());
        memory.commit(memory.session, Lsn::from(9999));
        assert_eq!(memory.unkept().len(), 3, "both tables, and the look");
    }
}
