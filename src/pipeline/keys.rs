//! Which key a table had when a row was written, where the stream does not say.
//!
//! With REPLICA IDENTITY FULL a Relation message names no key, so that it is the catalog's primary key; and by the time at which a row is
//! decoded, that may be another one. So the keys are looked up when a session starts, and each that is found later is put beside them with
//! the transaction that made it (`xmin` of the constraint). Who replaces a key has the table for itself until its transaction ends: a
//! transaction that was over by then has rows under the old key, and one that began after it has rows under the new one.
//!
//! The numbers of transactions say which of the two it is, but for those that ran while the key was replaced: one that took its number
//! before, and came to the table after, is taken for an earlier one, and rows of the transaction that replaces the key have the new one
//! from its beginning. A key that was replaced before this process began is not known.

use std::collections::VecDeque;

use pgoutput::Xid;

use crate::catalog::PrimaryKey;

/// So many keys of one table are remembered.
const KEYS_MAX: usize = 16;

/// The keys that a table has had, oldest first.
#[derive(Debug, Default)]
pub(super) struct KeyHistory(VecDeque<PrimaryKey>);

/// The key of the rows of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyThen {
    pub(super) columns: Vec<String>,
    /// The transaction that made the next one.
    pub(super) replaced_by: Option<Xid>,
}

impl KeyHistory {
    /// Takes note of the key that the table has now.
    pub(super) fn observe(&mut self, key: PrimaryKey) {
        if self.0.back().is_some_and(|newest| newest.columns == key.columns) {
            return;
        }
        if self.0.len() == KEYS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(key);
    }

    /// The key of the rows of a transaction, among those whose columns the rows have: a name that a column has lost is no other key.
    pub(super) fn at(&self, transaction: Xid, has_column: impl Fn(&str) -> bool) -> Option<KeyThen> {
        let fits = |key: &&PrimaryKey| key.columns.iter().all(|column| has_column(column));
        let mut replaced_by = None;
        let mut oldest = None;
        for key in self.0.iter().rev().filter(fits) {
            if !precedes(transaction, key.made_by) {
                return Some(KeyThen { columns: key.columns.clone(), replaced_by });
            }
            // Of what was before the first that was seen nothing is known, so that this one is for it too.
            let until = replaced_by.replace(key.made_by);
            oldest = Some(KeyThen { columns: key.columns.clone(), replaced_by: until });
        }
        oldest
    }
}

/// Whether a transaction took its number before another: they are counted in a circle, in which no two that matter are half of it apart.
pub(super) fn precedes(transaction: Xid, other: Xid) -> bool {
    // The least are none of transactions, and mean that it was long ago.
    const FIRST_NORMAL: u32 = 3;
    let (transaction, other) = (u32::from(transaction), u32::from(other));
    other >= FIRST_NORMAL && transaction.wrapping_sub(other) > u32::MAX / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(keys: &[(&str, u32)]) -> KeyHistory {
        let mut history = KeyHistory::default();
        for (columns, made_by) in keys {
            let columns = columns.split(' ').map(str::to_owned).collect();
            history.observe(PrimaryKey { columns, made_by: Xid::from(*made_by) });
        }
        history
    }

    /// The key of a transaction's rows, and until when it holds.
    fn at(keys: &[(&str, u32)], transaction: u32, columns: &str) -> Option<(String, Option<u32>)> {
        let found = history(keys).at(Xid::from(transaction), |column| columns.split(' ').any(|its| its == column));
        found.map(|key| (key.columns.join(" "), key.replaced_by.map(u32::from)))
    }

    #[test]
    fn a_row_has_the_key_of_its_time() {
        let keys = [("id", 100), ("code", 200), ("id code", 300)];
        let expect = |transaction, columns: &str, until| {
            assert_eq!(at(&keys, transaction, "id code v"), Some((columns.to_owned(), until)), "{transaction}");
        };
        expect(50, "id", Some(200));
        expect(100, "id", Some(200));
        expect(199, "id", Some(200));
        expect(200, "code", Some(300));
        expect(299, "code", Some(300));
        expect(300, "id code", None);
        expect(1000, "id code", None);
    }

    #[test]
    fn numbers_go_round() {
        let keys = [("id", u32::MAX - 10), ("code", 5)];
        assert_eq!(at(&keys, u32::MAX - 1, "id code"), Some(("id".to_owned(), Some(5))));
        assert_eq!(at(&keys, 6, "id code"), Some(("code".to_owned(), None)));
        assert_eq!(at(&[("id", 2)], u32::MAX, "id"), Some(("id".to_owned(), None)), "it was frozen");
    }

    #[test]
    fn a_column_that_was_renamed_is_the_same_key() {
        let keys = [("id", 100), ("number", 100)];
        assert_eq!(at(&keys, 150, "id v"), Some(("id".to_owned(), None)));
        assert_eq!(at(&keys, 150, "number v"), Some(("number".to_owned(), None)));
        assert_eq!(at(&keys, 150, "v"), None);
    }

    #[test]
    fn what_is_seen_again_is_nothing_new() {
        assert_eq!(history(&[("id", 100), ("id", 400)]).0.len(), 1);
        let many: Vec<_> = (1..100).map(|number| (if number % 2 == 0 { "a" } else { "b" }, number + 10)).collect();
        assert_eq!(history(&many).0.len(), KEYS_MAX);
    }
}
