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
//! the last of one state, and look 2, the first of the **next**. T1 and T2 have ended there, both of them: not at look 1 yet, and by look 2. So they are
//! in **doubt**, and a **guess** is made when the relation is announced, T1's before the ALTER and T2's after it (rule 4). A transaction that comes
//! after T1's announcement, with no other in between, has the state that was taken for T1. Should it be one like T2 or T3, which comes after the
//! ALTER in any case, then so did T1, and the guess was wrong: the key is looked up again, and the log says so ([`Next::is_there`]).
//!
//! A session knows states by how many there were before them. The stream has the lower 32 bits of a transaction's id, which come again, and looks
//! are remembered for longer than that: so ids are made whole first, by the newest look of all ([`NewestLook`]).
//!
//! In doubt are the transactions that have ended after the last look at the old key and before the first at the new one: those of one
//! `postgres.match_interval`, however late they are decoded, and of the time in which no process ran. Of them only those are
//! in doubt in which the relation is announced, by rule 4, and those after them are as they are. That it is announced says little: the
//! server does so too, anywhere in the log, because of what has happened by the time at which it decodes.
//!
//! What settles a doubt is when both were committed. With `track_commit_timestamp = on` the server says it of the transaction that made the new key, the
//! oldest that has left a row of it in the catalog, and each Begin says it of its own. By rule 1 a transaction that wrote before the change was
//! committed earlier, and one that wrote after it later, by the server's one clock, which must not have been set back in between. One that was
//! committed at that very moment has made the key itself, and may have written before and after that: it stays in doubt. So does whoever wrote
//! around a key that was dropped with none in its place, of which the catalog keeps nothing.
//!
//! What is left is the operator's to decide, by `postgres.on_uncertain_key` ([`OnUncertainKey`]): the stream stops before the first row that is in
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
//! # From one process to the next
//!
//! States and looks are kept beside the checkpoint ([`kept`]), lest a restart forget what was in doubt, and take the key that it finds
//! for the key of rows from before it. They are written there with the checkpoint that a session begins with, before the publication or a slot is
//! made, and whenever something is committed after a look. At another timeline the states stay and their looks count for nothing
//! ([`KeyHistory::distrust`]): a standby that was promoted may lack the end of what its primary had, where transactions of other
//! numbers go on. So a row is in doubt there if the key is another one than before, and else it is not.
//!
//! What cannot be known: keys that came and went between two looks, or before the first look at a table that appeared while the stream ran; and of such a
//! table, what was seen in the moments before a process died that had committed nothing since.

use std::{collections::VecDeque, sync::Arc};

use pgoutput::{Begin, Lsn, Timestamp, Xid};
use serde::{Deserialize, Serialize};

use crate::{
    catalog::KeySeen,
    config::OnUncertainKey,
    snapshot::{FullXid, NewestLook, Visibility},
};

pub(super) mod kept;

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
    /// Whether all of this stands beside the checkpoint, or is on its way there. The newest state's last look does not count, which is that of all tables.
    is_kept: bool,
    /// States are remembered for longer than the ids of the stream last.
    newest: NewestLook,
}

/// A key, or that there was none.
#[derive(Debug)]
struct State {
    key: Option<Key>,
    first: Arc<Visibility>,
    last: Arc<Visibility>,
}

/// A primary key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    columns: Vec<String>,
    /// Who made it.
    made_by: FullXid,
    /// When that was committed, in microseconds since 1970, if the server said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_at_us: Option<i64>,
}

/// When rows were written whose key is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    /// They are those that the table holds.
    Now,
    /// By this transaction.
    In(Writer, Announced),
}

/// A transaction as its Begin names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    pub(super) xid: Xid,
    pub(super) committed_at: Timestamp,
}

impl Writer {
    pub(super) fn of(begin: &Begin) -> Self {
        Self { xid: begin.xid, committed_at: begin.commit_time }
    }
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
    /// None if the table had none.
    pub(super) columns: Option<Vec<String>>,
    /// Which state of the history it is.
    pub(super) state: u64,
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
    first: Arc<Visibility>,
    /// Whether it is a guess that it had not come yet.
    is_guess: bool,
    newest: NewestLook,
}

/// Between which two keys nothing decides.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Doubt {
    pub(super) old: Option<Vec<String>>,
    pub(super) new: Option<Vec<String>>,
    pub(super) by: Option<Xid>,
    /// Whether the new one was taken.
    pub(super) takes_new: bool,
}

impl Next {
    /// Whether it has come by the time at which a transaction writes, although the relation was not announced again.
    pub(super) fn is_there(&self, transaction: Xid) -> bool {
        let transaction = self.newest.full(transaction);
        !self.first.had_ended(transaction) || self.is_guess && self.by.is_some_and(|by| by < transaction)
    }
}

impl State {
    fn columns(&self) -> Option<&Vec<String>> {
        self.key.as_ref().map(|key| &key.columns)
    }

    /// Whether a transaction wrote under it, and not before it was made, if anything says so for certain.
    fn is_settled(&self, committed_at: Timestamp) -> Option<bool> {
        let made_at = self.key.as_ref().and_then(|key| key.made_at_us).map(Timestamp::from_unix_micros)?;
        (made_at != committed_at).then_some(made_at < committed_at)
    }

    /// Whether a transaction that had ended by the time at which this was seen, and committed then, is likely to have written under it.
    fn is_likely(&self, transaction: FullXid, committed_at: Timestamp, has_news: bool) -> bool {
        let Some(key) = &self.key else { return has_news };
        key.made_at_us.map(Timestamp::from_unix_micros) == Some(committed_at) || key.made_by <= transaction
    }

    /// Whether its key can be one of a relation with these columns.
    fn fits(&self, has_column: &impl Fn(&str) -> bool) -> bool {
        self.columns().is_none_or(|columns| columns.iter().all(|column| has_column(column)))
    }
}

impl KeyHistory {
    /// Of a table of which nothing was seen yet, at a server of which this was seen.
    pub(super) fn new(newest: NewestLook) -> Self {
        Self { newest, ..Self::default() }
    }

    /// Takes note of the key that the table had in a snapshot.
    pub(super) fn observe(&mut self, KeySeen { key, is_partitioned, seen }: KeySeen) {
        self.newest.observe(&seen);
        let is_as_kept = self.is_partitioned == is_partitioned && self.gone_at.is_none();
        self.is_partitioned = is_partitioned;
        self.gone_at = None;
        self.is_kept &= is_as_kept;
        if let Some(newest) = self.states.back_mut() {
            // Several connections look, and one may have looked before another and come after it.
            if seen.is_before(&newest.last) {
                return;
            }
            if newest.columns() == key.as_ref().map(|key| &key.columns) {
                newest.last = seen;
                return;
            }
        }
        if self.states.len() == KEYS_MAX {
            self.states.pop_front();
            self.forgotten += 1;
        }
        let key = key.map(|key| Key {
            made_by: seen.seen_writer(key.made_by),
            made_at_us: key.made_at.map(Timestamp::unix_micros),
            columns: key.columns,
        });
        self.states.push_back(State { key, first: Arc::clone(&seen), last: seen });
        self.is_kept = false;
    }

    /// Takes note that the table was not there any more in this snapshot, or was not asked for. The log was so far by then.
    pub(super) fn leave(&mut self, seen: &Visibility, end: Lsn) {
        let is_news = self.states.back().is_none_or(|newest| newest.last.is_before(seen));
        if is_news && self.gone_at.is_none() {
            self.gone_at = Some(end);
            self.is_kept = false;
        }
    }

    /// Whether no row of it is to come any more behind this position.
    pub(super) fn is_over(&self, position: Lsn) -> bool {
        self.gone_at.is_some_and(|end| end <= position)
    }

    /// Takes note that it is handed on, and says whether it was not before.
    pub(super) fn keep(&mut self) -> bool {
        !std::mem::replace(&mut self.is_kept, true)
    }

    /// Takes note of what stands beside the checkpoint of it.
    pub(super) fn compare(&mut self, kept: Option<&Self>) {
        let outline =
            |history: &Self| (history.forgotten, history.is_partitioned, history.gone_at, history.states.len());
        let is_same = |kept: &Self| {
            let mut states = kept.states.iter().zip(&self.states);
            outline(kept) == outline(self) && states.all(|(kept, own)| kept.key == own.key && kept.first == own.first)
        };
        self.is_kept = kept.is_some_and(|kept| kept.is_kept && is_same(kept));
    }

    /// Takes the looks for nothing: they were at a server whose transactions may have had other numbers.
    pub(super) fn distrust(&mut self) {
        let unknown = Arc::new(Visibility::unknown());
        for state in &mut self.states {
            state.last = Arc::clone(&unknown);
        }
        self.is_kept = false;
    }

    /// The key of rows, among those whose columns the rows have: a name that a column has lost is no other key. None if no key is known that
    /// they could have. Where nothing decides, `word` does.
    pub(super) fn at(&self, when: When, word: OnUncertainKey, has_column: impl Fn(&str) -> bool) -> Option<KeyThen> {
        let numbered = (self.forgotten..).zip(&self.states);
        let fitting: Vec<(u64, &State)> = numbered.filter(|(_, state)| state.fits(&has_column)).collect();
        let (mut position, mut next, mut doubt) = (fitting.len().checked_sub(1)?, None, None);
        if let When::In(writer, announced) = when {
            let transaction = self.newest.full(writer.xid);
            let has_news = announced.is_again && !self.is_partitioned;
            while let Some(older) = position.checked_sub(1) {
                let ((_, old), (number, new)) = (fitting[older], fitting[position]);
                if !new.first.had_ended(transaction) || announced.state.is_some_and(|state| state >= number) {
                    break;
                }
                let is_settled = if old.last.had_ended(transaction) {
                    Some(false)
                } else if old.last.is_unknown() {
                    // The two may have been committed at two servers, by two clocks.
                    None
                } else {
                    new.is_settled(writer.committed_at)
                };
                let takes_new = is_settled.unwrap_or_else(|| match word {
                    OnUncertainKey::Before => false,
                    OnUncertainKey::After => true,
                    OnUncertainKey::Stop | OnUncertainKey::Likely => {
                        new.is_likely(transaction, writer.committed_at, has_news)
                    }
                });
                if is_settled.is_none() {
                    let (old, by) = (old.columns().cloned(), new.key.as_ref().map(|key| key.made_by.xid()));
                    doubt = Some(Doubt { old, new: new.columns().cloned(), by, takes_new });
                }
                if takes_new {
                    break;
                }
                next = Some(Next {
                    by: new.key.as_ref().map(|key| key.made_by),
                    first: Arc::clone(&new.first),
                    is_guess: is_settled.is_none() && word == OnUncertainKey::Likely,
                    newest: self.newest.clone(),
                });
                position = older;
            }
        }
        let (state, then) = fitting[position];
        Some(KeyThen { columns: then.columns().cloned(), state, next, doubt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::PrimaryKey;

    /// Keys by their columns, who made each, and in which snapshot it was seen.
    fn history(looks: &[(&str, u32, &str)]) -> KeyHistory {
        timed(&looks.iter().map(|(columns, made_by, seen)| (*columns, *made_by, None, *seen)).collect::<Vec<_>>())
    }

    /// And when they were made, in microseconds after 2000.
    fn timed(looks: &[(&str, u32, Option<i64>, &str)]) -> KeyHistory {
        let mut history = KeyHistory::default();
        for (columns, made_by, made_at, seen) in looks {
            let columns: Vec<_> = columns.split_whitespace().map(str::to_owned).collect();
            let key = (!columns.is_empty()).then_some(PrimaryKey {
                columns,
                made_by: Xid::from(*made_by),
                made_at: made_at.map(Timestamp::from),
            });
            let seen = Arc::new(seen.parse().expect("a snapshot"));
            history.observe(KeySeen { key, is_partitioned: false, seen });
        }
        history
    }

    /// A transaction of which nobody knows when it was committed.
    fn writer(xid: u32) -> Writer {
        Writer { xid: Xid::from(xid), committed_at: Timestamp::from(0) }
    }

    /// One that was committed so many microseconds after 2000.
    fn committed(xid: u32, at: i64) -> When {
        When::In(Writer { xid: Xid::from(xid), committed_at: Timestamp::from(at) }, FIRST)
    }

    fn likely(history: &KeyHistory, when: When) -> KeyThen {
        history.at(when, OnUncertainKey::Likely, |_| true).expect("it is known")
    }

    /// What the history says of a transaction: the key, and a question mark if it is a guess.
    fn at(history: &KeyHistory, transaction: u32, announced: Announced, columns: &str) -> Option<String> {
        let has_column = |column: &str| columns.split(' ').any(|its| its == column);
        let then = history.at(When::In(writer(transaction), announced), OnUncertainKey::Likely, has_column)?;
        let key = then.columns.map_or("none".to_owned(), |columns| columns.join(" "));
        Some(format!("{key}{}", if then.doubt.is_some() { "?" } else { "" }))
    }

    const FIRST: Announced = Announced { state: None, is_again: false };
    const AGAIN: Announced = Announced { state: None, is_again: true };

    #[test]
    fn the_example_is_true() {
        let keys = history(&[("id", 100, "750:750:"), ("code", 751, "753:753:")]);
        for (transaction, expected) in [(749, "id"), (750, "id?"), (751, "code?"), (752, "code?"), (753, "code")] {
            assert_eq!(at(&keys, transaction, FIRST, "id code").as_deref(), Some(expected), "{transaction}");
        }
        let next = likely(&keys, When::In(writer(750), FIRST)).next.expect("there is another");
        assert!(next.is_there(Xid::from(752)) && next.is_there(Xid::from(753)));
    }

    #[test]
    fn a_row_has_the_key_of_its_time() {
        // Transaction 120 was open at the first look, and 230 at the second.
        let keys = history(&[("id", 100, "120:150:120"), ("code", 200, "230:250:230")]);
        let expect = |transaction, announced, expected: &str| {
            assert_eq!(at(&keys, transaction, announced, "id code v").as_deref(), Some(expected), "{transaction}");
        };
        for announced in [FIRST, AGAIN] {
            expect(50, announced, "id");
            expect(149, announced, "id");
            expect(230, announced, "code");
            expect(250, announced, "code");
            expect(1000, announced, "code");
        }
        expect(120, FIRST, "id?");
        expect(199, FIRST, "id?");
        expect(199, AGAIN, "id?");
        expect(200, FIRST, "code?");
        expect(229, FIRST, "code?");
        // What was found is not left again.
        let found = Announced { state: Some(1), is_again: false };
        expect(160, found, "code");
        assert_eq!(likely(&keys, When::Now).columns, Some(vec!["code".to_owned()]));
    }

    /// It took its number before the look at the old key, which it replaces afterwards; the key has that of a part of it.
    #[test]
    fn a_key_that_was_replaced_under_a_savepoint() {
        let keys = history(&[("id", 100, "150:151:150"), ("code", 152, "153:153:")]);
        assert_eq!(at(&keys, 150, AGAIN, "id code").as_deref(), Some("id?"));
        let kept = timed(&[("id", 100, None, "150:151:150"), ("code", 152, Some(7), "153:153:")]);
        let then = likely(&kept, committed(150, 7));
        assert_eq!(then.columns.as_deref(), Some(["code".to_owned()].as_slice()), "it was committed with its part");
        assert!(then.doubt.is_some(), "and may have written before that");
        assert_eq!(at(&keys, 149, AGAIN, "id code").as_deref(), Some("id"), "it had ended when the old one was there");
        let keys = history(&[("id", 100, "150:151:150"), ("code", 152, "150:153:150")]);
        assert_eq!(at(&keys, 150, FIRST, "id code").as_deref(), Some("code"), "it goes on after the new one was there");
    }

    #[test]
    fn a_key_that_was_dropped_holds_for_what_came_before() {
        let keys = history(&[("id", 100, "150:150:"), ("", 0, "200:200:")]);
        for (transaction, announced, expected) in
            [(149, AGAIN, "id"), (160, FIRST, "id?"), (160, AGAIN, "none?"), (200, FIRST, "none")]
        {
            assert_eq!(at(&keys, transaction, announced, "id v").as_deref(), Some(expected), "{transaction}");
        }
        let partitioned =
            KeyHistory { is_partitioned: true, ..history(&[("id", 100, "150:150:"), ("", 0, "200:200:")]) };
        assert_eq!(at(&partitioned, 160, AGAIN, "id").as_deref(), Some("id?"), "it is announced with each partition");
        let then = likely(&keys, When::Now);
        assert!(then.columns.is_none() && then.next.is_none() && then.doubt.is_none());
        let keys = history(&[("id", 100, "150:150:"), ("", 0, "200:200:"), ("code", 300, "301:301:")]);
        assert_eq!(at(&keys, 149, FIRST, "id code").as_deref(), Some("id"));
        assert_eq!(at(&keys, 299, FIRST, "id code").as_deref(), Some("none?"));
        assert_eq!(at(&keys, 301, FIRST, "id code").as_deref(), Some("code"));
    }

    #[test]
    fn what_is_not_announced_again_is_noticed() {
        let keys = history(&[("id", 100, "150:150:"), ("code", 200, "250:250:")]);
        let next = |transaction| likely(&keys, When::In(writer(transaction), FIRST)).next;
        let certain = next(140).expect("there is another");
        assert!(!certain.is_there(Xid::from(249)), "it would have been announced");
        assert!(certain.is_there(Xid::from(250)), "it has not ended where the new one was seen");
        let guessed = next(160).expect("there is another");
        assert!(!guessed.is_there(Xid::from(199)) && !guessed.is_there(Xid::from(200)));
        assert!(guessed.is_there(Xid::from(201)), "so that the guess was wrong");
        assert!(next(210).is_none());
    }

    #[test]
    fn numbers_go_round() {
        let epoch = 1_u64 << 32;
        let late = format!("{}:{}:", epoch + 10, epoch + 10);
        let early = format!("{}:{}:", epoch - 50, epoch - 50);
        let keys = history(&[("id", u32::MAX - 100, &early), ("code", 5, &late)]);
        assert_eq!(at(&keys, u32::MAX - 60, FIRST, "id code").as_deref(), Some("id"));
        assert_eq!(at(&keys, u32::MAX - 1, FIRST, "id code").as_deref(), Some("id?"));
        assert_eq!(at(&keys, 6, FIRST, "id code").as_deref(), Some("code?"));
        assert_eq!(at(&keys, 10, FIRST, "id code").as_deref(), Some("code"));
        let frozen = history(&[("id", 2, "1000:1000:")]);
        assert_eq!(at(&frozen, u32::MAX, FIRST, "id").as_deref(), Some("id"));
    }

    /// A process may live for longer than the half of an id that the stream has.
    #[test]
    fn a_number_that_comes_again_is_of_another_transaction() {
        let mut keys = history(&[("id", 100, "150:150:"), ("code", 200, "250:250:")]);
        let guessed = likely(&keys, When::In(writer(160), FIRST)).next.expect("another");
        let certain = likely(&keys, When::In(writer(140), FIRST)).next.expect("another");
        for ages in 1_u64..=6 {
            let now = 250 + ages * 1_500_000_000;
            let look = format!("{now}:{now}:");
            let key = Some(PrimaryKey { columns: vec!["code".to_owned()], made_by: Xid::from(200), made_at: None });
            keys.observe(KeySeen { key, is_partitioned: false, seen: Arc::new(look.parse().expect("a snapshot")) });
            for transaction in [now - 110, now - 90, now + 5] {
                let xid = u32::try_from(transaction & u64::from(u32::MAX)).expect("the lower half");
                assert_eq!(at(&keys, xid, FIRST, "id code").as_deref(), Some("code"), "{transaction}");
                assert!(certain.is_there(Xid::from(xid)) && guessed.is_there(Xid::from(xid)), "{transaction}");
            }
        }
    }

    #[test]
    fn a_column_that_was_renamed_is_the_same_key() {
        let keys = history(&[("id", 100, "150:150:"), ("number", 100, "200:200:")]);
        assert_eq!(at(&keys, 170, FIRST, "id v").as_deref(), Some("id"));
        assert_eq!(at(&keys, 170, FIRST, "number v").as_deref(), Some("number"));
        assert_eq!(at(&keys, 170, FIRST, "v"), None);
    }

    #[test]
    fn what_is_seen_again_is_nothing_new() {
        let twice = history(&[("id", 100, "150:150:"), ("id", 400, "450:450:")]);
        assert_eq!(twice.states.len(), 1);
        let late = history(&[("id", 100, "150:150:"), ("code", 200, "250:250:"), ("id", 100, "160:160:")]);
        assert_eq!(
            at(&late, 300, FIRST, "id code").as_deref(),
            Some("code"),
            "the last look was taken before the second"
        );
        let mut many = KeyHistory::default();
        for number in 1..100 {
            let key = Some(PrimaryKey {
                columns: vec![format!("c{}", number % 2)],
                made_by: Xid::from(number),
                made_at: None,
            });
            let seen = Arc::new(format!("{number}:{number}:").parse().expect("a snapshot"));
            many.observe(KeySeen { key, is_partitioned: false, seen });
        }
        assert_eq!(many.states.len(), KEYS_MAX);
        assert_eq!(likely(&many, When::Now).state, 98);
    }

    /// Rows from before a change were committed before it, and rows from after it later; only one that was committed with it may have both.
    #[test]
    fn the_time_of_the_commits_settles_it() {
        let looks = [("id", 100, None, "150:150:"), ("code", 200, Some(1_000), "250:250:")];
        let expect = |history: &KeyHistory, transaction, at, expected: &str, is_certain| {
            let then = likely(history, committed(transaction, at));
            assert_eq!(
                (then.columns.map(|it| it.concat()), then.doubt.is_none()),
                (Some(expected.to_owned()), is_certain),
                "{transaction} at {at}"
            );
        };
        let keys = timed(&looks);
        for transaction in [160, 240] {
            expect(&keys, transaction, 999, "id", true);
            expect(&keys, transaction, 1_001, "code", true);
        }
        expect(&keys, 200, 1_000, "code", false);
        // What had ended by a look, or had not, is no matter of clocks.
        expect(&keys, 140, 1_001, "id", true);
        expect(&keys, 250, 999, "code", true);
        // Before the second look the server became another, with a clock of its own.
        let mut keys = timed(&looks[..1]);
        keys.distrust();
        keys.observe(KeySeen {
            key: Some(PrimaryKey {
                columns: vec!["code".to_owned()],
                made_by: Xid::from(200),
                made_at: Some(Timestamp::from(1_000)),
            }),
            is_partitioned: false,
            seen: Arc::new("250:250:".parse().expect("a snapshot")),
        });
        for (transaction, expected) in [(140, "id"), (160, "id"), (240, "code")] {
            expect(&keys, transaction, 999, expected, false);
        }
        expect(&keys, 250, 999, "code", true);
    }

    #[test]
    fn what_is_in_doubt_has_the_key_that_somebody_says() {
        let keys = history(&[("id", 100, "150:150:"), ("code", 200, "250:250:"), ("", 0, "350:350:")]);
        let said = |transaction, word| {
            let then = keys.at(When::In(writer(transaction), FIRST), word, |_| true).expect("it is known");
            (then.columns.map(|it| it.concat()), then.doubt.is_some())
        };
        let (id, code) = (Some("id".to_owned()), Some("code".to_owned()));
        for (transaction, before, after) in [(160, &id, &code), (240, &id, &code), (260, &code, &None)] {
            assert_eq!(said(transaction, OnUncertainKey::Before), (before.clone(), true), "{transaction}");
            assert_eq!(said(transaction, OnUncertainKey::After), (after.clone(), true), "{transaction}");
        }
        for word in [OnUncertainKey::Before, OnUncertainKey::After, OnUncertainKey::Stop, OnUncertainKey::Likely] {
            for (transaction, expected) in [(140, &id), (350, &None)] {
                assert_eq!(said(transaction, word), (expected.clone(), false), "{transaction} {word:?}");
            }
        }
        // Nobody has guessed, so that nothing is noticed to have been wrong.
        let next = keys.at(When::In(writer(160), FIRST), OnUncertainKey::Before, |_| true).and_then(|then| then.next);
        assert!(!next.expect("there is another").is_there(Xid::from(240)));
    }
}
