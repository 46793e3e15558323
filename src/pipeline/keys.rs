//! Which key a table had when a row was written, where the stream does not say.
//!
//! With REPLICA IDENTITY FULL a Relation message names no key, so that it is the catalog's primary key; and by the time at which a row is
//! decoded, that may be another one, or none. So the keys are looked up when a session starts, whenever tables are matched, and when a
//! relation is announced, each time with the snapshot in which they were seen. What can be told from that:
//!
//! 1. Who replaces or drops a key has the table for itself until its transaction ends. A transaction that wrote to the table before has ended
//!    by then, and one that writes to it afterwards ends later.
//! 2. So rows of a transaction that **had ended** where the old key was still seen have the old key.
//! 3. And rows of one that **had not ended** where the new key was seen already have the new key.
//! 4. Whatever changes a key makes the server announce the relation again before the next row, within the transaction that does it too. So
//!    between two announcements there is one key, and where one was found, those before it are over.
//!
//! An example, in which everything is decoded after the second look:
//!
//! | what happens | transaction | its rows |
//! |---|---|---|
//! | T0 inserts a row | 749 | `id`: it had ended at look 1 |
//! | **look 1**, `750:750:`, finds key (id) | | |
//! | T1 inserts a row | 750 | `id`, a guess: it took its number before the ALTER |
//! | ALTER TABLE ... DROP CONSTRAINT ..., ADD PRIMARY KEY (code) | 751 | `code`, a guess |
//! | T2 inserts a row | 752 | `code`, a guess: it took its number after the ALTER |
//! | **look 2**, `753:753:`, finds key (code), made by 751 | | |
//! | T3 inserts a row | 753 | `code`: it had not ended at look 2 |
//!
//! The two keys are two **states** of the table, and each has the first and the last look that found it. Nothing is known of the time between look 1,
//! the last of one state, and look 2, the first of the **next**. T1 and T2 have ended there, both of them: not at look 1 yet, and by look 2. So either
//! state may be theirs: they are in **doubt**, if the relation is announced in them. Between two announcements there is one key, so that those after
//! them are as they are (rule 4). That it is announced says little: the server does so too, anywhere in the log, because of what has happened by the time at
//! which it decodes.
//!
//! Which states a transaction can have is decided by time alone, and only then it is asked which of them the row's columns fit: a state that they do
//! not fit may have had another name for its column in between. Where all of them are one key under several names, the names that fit are it; and where it
//! is one whose columns have the names that they had, they are not published, and the rows have no key.
//!
//! Whoever ended before the first look of all may have written under a key that nobody has seen; but not if the one that was found was made with its
//! table, or by a transaction that is older than what the slot needs of the catalog (`catalog_xmin`), and so had ended before anything that is still to come.
//!
//! This says something only of a transaction that has ended for who looks, or has not altered the table: the server sends a transaction once its commit is
//! written, and shows it as running until a synchronous standby has it. So a look at an announced relation waits for one that has locked the table
//! as who alters it does ([`Catalog::await_alterations`]).
//!
//! What settles a doubt is when both were committed. With `track_commit_timestamp = on` the server says it of any transaction, by its own clock, which must not
//! have been set back in between; those that came by replication have another's, and are not asked. Who was committed later than the
//! transaction that made the newer key, the oldest that has left a row of it in the catalog, has written under it, by rule 1; if that was made after the
//! last look at the older one. Who was committed earlier may have written under the older one, or under what was there in between. And one
//! that was committed at that very moment has made the key itself, and may have written before and after that.
//!
//! What is left is the operator's to decide, by `postgres.on_uncertain_key` ([`OnUncertainKey`]): the stream stops at the first row that is in
//! doubt, unless it says which key such rows have. With `likely` a guess is made, and a warning says so, with what to do:
//!
//! - The number of the transaction that made the new key is compared. One that took its number later is taken to have
//!   written after it, and one that took it earlier to have written before it. That is wrong for one that wrote before a change whose transaction
//!   had taken its number long before, and for one that took its number long before it came to the table.
//! - What is made under a savepoint has the number of a part of its transaction, which is higher than that of the whole, and the stream names only
//!   the whole: so the rows behind it are taken to be from before it, unless the server says when the part was committed, which is when the whole was.
//!   The next transaction that writes is numbered after it, and has the new one.
//! - Rows that the transaction wrote before it replaced the key have the new one as well, unless the relation was announced before and not
//!   again.
//! - Of a key that was dropped with none in its place there is no number. Where the relation is announced again with the same columns, it is taken
//!   to be over, and where it is announced first in a session, not yet. (A partitioned table is announced with each partition, which says
//!   nothing.)
//!
//! Should a transaction that comes after T1's announcement, with no other in between, be one that comes after the ALTER in any case, then so did T1, and
//! the guess was wrong: the key is looked up again, and the log says so ([`Next::is_there`]).
//!
//! A session knows states by how many there were before them. The stream has the lower 32 bits of a transaction's id, which come again, and looks
//! are remembered for longer than that: so ids are made whole first, by the newest look of all ([`NewestLook`]).
//!
//! # From one process to the next
//!
//! States and looks are kept beside the checkpoint ([`kept`]), lest a restart forget what was in doubt, and take the key that it finds
//! for the key of rows from before it. They are written there with the checkpoint that a session begins with, before the publication or a slot is
//! made, and whenever something is committed after a look. At another timeline the states stay and their looks count for nothing
//! ([`KeyHistory::distrust`]): a standby that was promoted may lack the end of what its primary had, where transactions of other
//! numbers go on. So a row is in doubt there if the key is another one than before, and else it is not. States that no row can have any more, since what is
//! committed in Kafka is past the first look at the next one, are forgotten; not before, since a session that fails reads again from there.
//!
//! What cannot be known: a key that came and went between two looks at one and the same key, one before and one after it, or before a first look that finds
//! none; the rows that a transaction wrote to a table that it has made itself, before it gave that another key; names that were changed about between two looks, so that another column has the key's; of a table that appeared
//! while the stream ran, what was seen in the moments before a process died that had committed nothing since; and of a partitioned table, when ATTACH PARTITION
//! of an index completed its key, which locks out nobody.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use pgoutput::{Lsn, Timestamp, Xid};
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use crate::catalog::Catalog;
use crate::{
    catalog::KeySeen,
    config::OnUncertainKey,
    snapshot::{FullXid, NewestLook, Visibility},
};

pub(super) mod kept;
#[cfg(test)]
mod tests;

/// So many keys of one table are remembered.
const KEYS_MAX: usize = 16;

/// The keys that a table has had, oldest first.
#[derive(Debug, Default)]
pub(super) struct KeyHistory {
    states: VecDeque<State>,
    /// How many were forgotten. A state is known by how many there were before it, and they count.
    forgotten: u64,
    /// Whether it is announced with each of its partitions.
    is_partitioned: bool,
    /// How far the log was where the table was found to be gone, or not to be asked for any more.
    gone_at: Option<Lsn>,
    /// What of this does not stand beside the checkpoint, and is not on its way there. The newest state's last look does not count, which is that of
    /// all tables.
    lacking: Lacking,
    /// States are remembered for longer than the ids of the stream last.
    newest: NewestLook,
}

/// What is lacking beside the checkpoint, from the least to the most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Lacking {
    Nothing,
    /// What says nothing new of its key: what was forgotten or is distrusted, where the table was looked at no more, or whether it is partitioned. It may
    /// wait for the next look.
    #[default]
    Ends,
    /// Something that was found of its key.
    Finds,
}

/// A key, or that there was none.
#[derive(Debug)]
struct State {
    key: Option<Key>,
    /// The first look that found it: what had not ended there has it, or a later one.
    first: Option<Arc<Visibility>>,
    /// The last one: what had ended there has it, or an earlier one.
    last: Option<Arc<Visibility>>,
    /// How far the log was at the first look.
    found_at: Option<Lsn>,
}

/// A primary key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    columns: Vec<String>,
    /// The OID of its constraint, and its columns by their numbers, which a rename leaves as they are.
    #[serde(default)]
    constraint: u32,
    #[serde(default)]
    numbers: Vec<i16>,
    /// Who made it.
    made_by: FullXid,
    /// Whether it was made with its table.
    #[serde(default)]
    is_born: bool,
    /// When that was committed, in microseconds since 1970, if the server says so by its own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_at_us: Option<i64>,
}

/// When rows were written whose key is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    /// They are those that the table holds.
    Now,
    /// By this transaction, which has ended for who has looked.
    In(Writer, Announced),
}

/// What is known of rows but the time at which they were written.
pub(super) struct Rows<'a> {
    /// Whether they have a column of this name.
    pub(super) has_column: &'a dyn Fn(&str) -> bool,
    /// Whether their table has one now.
    pub(super) exists: &'a dyn Fn(&str) -> bool,
    /// What is older had ended before anything that is still to come.
    pub(super) horizon: Option<FullXid>,
}

/// A transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    pub(super) xid: Xid,
    /// When it was committed, if the server says so by its own clock. What its Begin has may be the time of the server that it was replicated from.
    pub(super) committed_at: Option<Timestamp>,
}

/// What the stream has said of the relation before, in this session.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Announced {
    /// Which state of its key it was in.
    pub(super) state: Option<u64>,
    /// Whether it is announced again, and its columns are the same.
    pub(super) is_again: bool,
}

/// The key of the rows of a transaction.
#[derive(Debug)]
pub(super) struct KeyThen {
    /// None if the table had none, or if it is in doubt.
    pub(super) columns: Option<Vec<String>>,
    /// Which state of the history it is; none if it is one that nobody has seen.
    pub(super) state: Option<u64>,
    /// The state after it, if there is one.
    pub(super) next: Option<Next>,
    /// Why it is not certain.
    pub(super) doubt: Option<Doubt>,
}

/// What has come in the place of a key.
#[derive(Debug, Clone)]
pub(super) struct Next {
    /// Who made it, if there is one.
    by: Option<FullXid>,
    first: Option<Arc<Visibility>>,
    /// Whether it is a guess that it had not come yet.
    is_guess: bool,
    newest: NewestLook,
}

/// Between which keys nothing decides.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    /// Those that are known, oldest first.
    pub(super) keys: Vec<Option<Vec<String>>>,
    /// Whether it may be one that nobody has seen, before all of them.
    pub(super) is_older: bool,
    /// Who has made the newest, if there is one.
    pub(super) by: Option<Xid>,
    /// The lowest number of a transaction that may be in doubt, and the first that is not, where that is known.
    pub(super) between: (Option<u64>, Option<u64>),
}

impl Next {
    /// Whether it has come by the time at which a transaction writes, although the relation was not announced again.
    pub(super) fn is_there(&self, transaction: Xid) -> bool {
        let transaction = self.newest.full(transaction);
        let is_certain = self.first.as_ref().is_some_and(|first| !first.had_ended(transaction));
        is_certain || self.is_guess && self.by.is_some_and(|by| by < transaction)
    }
}

impl State {
    fn columns(&self) -> Option<&Vec<String>> {
        self.key.as_ref().map(|key| &key.columns)
    }

    /// Whether a transaction has this state or a later one, for it had not ended where this one was seen.
    fn is_before(&self, transaction: FullXid) -> bool {
        self.first.as_ref().is_some_and(|first| !first.had_ended(transaction))
    }

    /// Whether a transaction has this state or an earlier one, for it had ended where this one was seen.
    fn is_behind(&self, transaction: FullXid) -> bool {
        self.last.as_ref().is_some_and(|last| last.had_ended(transaction))
    }

    /// Whether a transaction has this state or a later one, by the time of its commit. `older` is the state before.
    fn is_earlier(&self, older: &Self, committed_at: Option<Timestamp>) -> bool {
        let made_since = |key: &Key| older.last.as_ref().is_some_and(|last| !last.had_ended(key.made_by));
        let Some(key) = self.key.as_ref().filter(|key| made_since(key)) else { return false };
        key.made_at().zip(committed_at).is_some_and(|(made_at, committed_at)| made_at < committed_at)
    }

    /// Whether a transaction may have written before this key was made, which is the first that was seen. Who is older than the horizon had ended before
    /// anything that is still to come.
    fn is_younger(&self, transaction: FullXid, committed_at: Option<Timestamp>, horizon: Option<FullXid>) -> bool {
        let Some(key) = self.key.as_ref().filter(|_| !self.is_before(transaction)) else { return false };
        match key.made_at().zip(committed_at).map(|(made_at, committed_at)| committed_at.cmp(&made_at)) {
            Some(Ordering::Greater) => false,
            Some(Ordering::Less) => true,
            _ => !key.is_born && horizon.is_none_or(|horizon| key.made_by >= horizon),
        }
    }

    /// Whether a transaction that may have this state or an earlier one is likely to have this one.
    fn is_likely(&self, transaction: FullXid, committed_at: Option<Timestamp>, has_news: bool) -> bool {
        let Some(key) = &self.key else { return has_news };
        key.made_by <= transaction || key.made_at().is_some_and(|made_at| committed_at.is_some_and(|it| made_at <= it))
    }

    /// Whether two are one key, perhaps under two names.
    fn is_same(&self, other: &Self) -> bool {
        match (&self.key, &other.key) {
            (Some(key), Some(other)) => key.constraint == other.constraint && key.numbers == other.numbers,
            (None, None) => true,
            _ => false,
        }
    }
}

impl Key {
    fn made_at(&self) -> Option<Timestamp> {
        self.made_at_us.map(Timestamp::from_unix_micros)
    }
}

impl KeyHistory {
    /// Of a table of which nothing was seen yet, at a server of which this was seen. Its states are known by numbers from this one on.
    pub(super) fn new(newest: NewestLook, first_number: u64) -> Self {
        Self { newest, forgotten: first_number, ..Self::default() }
    }

    /// Knows its states by other numbers, before anybody has asked for one.
    pub(super) fn number_from(&mut self, first_number: u64) {
        self.forgotten = first_number;
    }

    /// Takes note of the key that the table had in a snapshot.
    pub(super) fn observe(&mut self, KeySeen { key, is_partitioned, seen, found_at }: KeySeen) {
        self.newest.observe(&seen);
        if self.is_partitioned != is_partitioned || self.gone_at.is_some() {
            self.lack(Lacking::Ends);
        }
        self.is_partitioned = is_partitioned;
        self.gone_at = None;
        let key = key.map(|key| Key {
            made_by: seen.seen_writer(key.made_by),
            made_at_us: key.made_at.map(Timestamp::unix_micros),
            is_born: key.is_born,
            columns: key.columns,
            constraint: key.constraint.into(),
            numbers: key.numbers,
        });
        if let Some(newest) = self.states.back_mut() {
            // Several connections look, and one may have looked before another and come after it.
            if newest.last.as_ref().is_some_and(|last| seen.is_before(last)) {
                return;
            }
            if newest.columns() == key.as_ref().map(|key| &key.columns) {
                if newest.first.is_none() && newest.last.is_none() {
                    // What was seen before is distrusted.
                    *newest = State { key, first: Some(Arc::clone(&seen)), last: Some(seen), found_at: Some(found_at) };
                    self.lack(Lacking::Finds);
                    return;
                }
                newest.last = Some(seen);
                if let (Some(held), Some(key)) = (&mut newest.key, key)
                    && (held.constraint, &held.numbers) != (key.constraint, &key.numbers)
                {
                    // It was made again with the same columns, as a change of their types does.
                    (held.constraint, held.numbers) = (key.constraint, key.numbers);
                    self.lack(Lacking::Finds);
                }
                return;
            }
        }
        if self.states.len() == KEYS_MAX {
            self.forget_oldest();
        }
        self.states.push_back(State {
            key,
            first: Some(Arc::clone(&seen)),
            last: Some(seen),
            found_at: Some(found_at),
        });
        self.lack(Lacking::Finds);
    }

    fn forget_oldest(&mut self) {
        self.states.pop_front();
        self.forgotten += 1;
        self.lack(Lacking::Ends);
    }

    /// Forgets states that no row behind this position can have. Returns whether no row of the table is to come at all.
    pub(super) fn forget_before(&mut self, position: Lsn) -> bool {
        let is_found = |state: &State| state.found_at.is_some_and(|found_at| found_at <= position);
        let over = (1..self.states.len()).rev().find(|next| is_found(&self.states[*next])).unwrap_or(0);
        for _ in 0..over {
            self.forget_oldest();
        }
        self.gone_at.is_some_and(|end| end <= position)
    }

    /// Takes note that the table was not there any more in this snapshot, or was not asked for. The log was so far by then.
    pub(super) fn leave(&mut self, seen: &Visibility, end: Lsn) {
        let last = self.states.back().and_then(|newest| newest.last.as_ref());
        if last.is_none_or(|last| last.is_before(seen)) && self.gone_at.is_none() {
            self.gone_at = Some(end);
            self.lack(Lacking::Ends);
        }
    }

    /// Takes note that it is handed on, and says whether it was not before.
    pub(super) fn keep(&mut self) -> bool {
        std::mem::replace(&mut self.lacking, Lacking::Nothing) != Lacking::Nothing
    }

    fn lack(&mut self, what: Lacking) {
        self.lacking = self.lacking.max(what);
    }

    /// Whether something was found of its key that does not stand beside the checkpoint yet.
    pub(super) fn has_news(&self) -> bool {
        self.lacking == Lacking::Finds
    }

    /// Takes note of what stands beside the checkpoint of it.
    pub(super) fn compare(&mut self, kept: Option<&Self>) {
        // Numbers are this process's own.
        let outline = |history: &Self| (history.is_partitioned, history.gone_at, history.states.len());
        let is_same = |kept: &Self| {
            let mut states = kept.states.iter().zip(&self.states);
            outline(kept) == outline(self)
                && states.all(|(kept, own)| kept.key == own.key && kept.found_at == own.found_at)
        };
        let stands = kept.is_some_and(|kept| kept.lacking == Lacking::Nothing && is_same(kept));
        self.lacking = if stands { Lacking::Nothing } else { Lacking::Finds };
    }

    /// Takes the looks for nothing: they were at a server whose transactions may have had other numbers.
    pub(super) fn distrust(&mut self) {
        for state in &mut self.states {
            (state.first, state.last, state.found_at) = (None, None, None);
        }
        self.gone_at = None;
        self.lack(Lacking::Ends);
    }

    /// The key of rows. Where nothing decides, `word` does.
    pub(super) fn at(&self, when: When, word: OnUncertainKey, rows: &Rows<'_>) -> KeyThen {
        let has_all = |state: &State, has_column: &dyn Fn(&str) -> bool| {
            state.columns().is_none_or(|columns| columns.iter().all(|column| has_column(column)))
        };
        let fits = |state: &State| has_all(state, rows.has_column);
        let Some(newest) = self.states.len().checked_sub(1) else {
            let doubt = Doubt { keys: Vec::new(), is_older: true, by: None, between: (None, None) };
            let doubt = matches!(when, When::In(..)).then_some(doubt);
            return KeyThen { columns: None, state: None, next: None, doubt };
        };
        let When::In(writer, announced) = when else {
            // A name that a column has lost is no other key.
            let position = (0..=newest).rev().find(|position| fits(&self.states[*position])).unwrap_or(newest);
            return self.then(position, None, false);
        };
        let transaction = self.newest.full(writer.xid);
        let (from, to) = self.candidates(transaction, writer.committed_at, announced);
        let candidates = || from..=to;
        let is_found = announced.state.is_some_and(|announced| announced >= self.forgotten);
        let is_older =
            from == 0 && !is_found && self.states[0].is_younger(transaction, writer.committed_at, rows.horizon);
        let is_one = !is_older && candidates().all(|position| self.states[position].is_same(&self.states[to]));
        let fitting: BTreeSet<_> = candidates()
            .map(|position| &self.states[position])
            .filter(|state| fits(state))
            .map(State::columns)
            .collect();
        let first_fitting =
            |mut positions: Box<dyn Iterator<Item = usize>>| positions.find(|it| fits(&self.states[*it]));
        if is_one && fitting.len() == 1 {
            // Under whichever name: the newest that fits.
            return self.then(first_fitting(Box::new(candidates().rev())).unwrap_or(to), None, false);
        }
        if is_one && has_all(&self.states[to], rows.exists) {
            // Its columns have the names that they had, and are not published.
            return KeyThen { columns: None, ..self.then(to, None, false) };
        }
        let mut keys: Vec<_> = candidates().map(|position| self.states[position].columns().cloned()).collect();
        keys.dedup();
        let before = from.checked_sub(1).and_then(|older| self.states[older].last.as_ref());
        let doubt = Doubt {
            keys,
            is_older,
            by: self.states[to].key.as_ref().map(|key| key.made_by.xid()),
            between: (
                before.or(self.states[from].last.as_ref()).map(|last| last.xmin()),
                self.states[to].first.as_ref().map(|first| first.xmax()),
            ),
        };
        let has_news = announced.is_again && !self.is_partitioned;
        let is_likely = |position: &usize| self.states[*position].is_likely(transaction, writer.committed_at, has_news);
        let likely = (from + 1..=to).rev().find(is_likely).unwrap_or(from);
        let taken = match word {
            OnUncertainKey::Before if is_older => None,
            OnUncertainKey::Before => first_fitting(Box::new(candidates())),
            OnUncertainKey::After => first_fitting(Box::new(candidates().rev())),
            OnUncertainKey::Stop | OnUncertainKey::Likely => {
                first_fitting(Box::new((from..=likely).rev().chain(likely + 1..=to)))
            }
        };
        let is_guess = word == OnUncertainKey::Likely && taken.is_some_and(|taken| taken < to);
        if let Some(taken) = taken {
            return self.then(taken, Some(doubt), is_guess);
        }
        let state = (!is_older).then_some(self.forgotten + from as u64);
        KeyThen { columns: None, state, ..self.then(from, Some(doubt), false) }
    }

    /// The oldest and the newest state that a transaction can have.
    fn candidates(
        &self,
        transaction: FullXid,
        committed_at: Option<Timestamp>,
        announced: Announced,
    ) -> (usize, usize) {
        let mut to = self.states.len() - 1;
        while to > 0 && self.states[to - 1].is_behind(transaction) {
            to -= 1;
        }
        let is_first = |position: &usize| {
            let (number, state) = (self.forgotten + *position as u64, &self.states[*position]);
            // Where a later one was found, those before it are over.
            announced.state.is_some_and(|announced| announced >= number)
                || state.is_before(transaction)
                || state.is_earlier(&self.states[*position - 1], committed_at)
        };
        let from = (1..=to).rev().find(is_first).unwrap_or(0);
        (from, to)
    }

    fn then(&self, position: usize, doubt: Option<Doubt>, is_guess: bool) -> KeyThen {
        let next = self.states.get(position + 1).map(|next| Next {
            by: next.key.as_ref().map(|key| key.made_by),
            first: next.first.clone(),
            is_guess,
            newest: self.newest.clone(),
        });
        let columns = self.states[position].columns().cloned();
        KeyThen { columns, state: Some(self.forgotten + position as u64), next, doubt }
    }
}
