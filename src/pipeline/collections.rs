//! How many events one transaction has in each table, for its END.

use std::sync::Arc;

use rustc_hash::FxHashMap;

/// The counts of one transaction, in the order in which the tables came first. Bounded by the tables of the publication.
///
/// Tables count by name: a consumer adds up what it finds in a topic, and a table that is renamed, or dropped and created again, while
/// the transaction goes on has events under each name.
#[derive(Default)]
pub(super) struct Collections {
    counts: Vec<(Arc<str>, u64)>,
    places: FxHashMap<Arc<str>, usize>,
}

/// Where a table's count is, so that not every event has to be looked up by name.
#[derive(Clone, Copy, Default)]
pub(super) struct Mark {
    /// The number of the transaction that the place is in; 0 in none.
    transaction: u64,
    place: usize,
}

impl Collections {
    /// Adds events of a table. `transaction` is the number of this transaction in the session, from 1.
    pub(super) fn add(&mut self, name: &Arc<str>, mark: &mut Mark, transaction: u64, events: u64) {
        if mark.transaction != transaction {
            let place = *self.places.entry(Arc::clone(name)).or_insert_with(|| {
                self.counts.push((Arc::clone(name), 0));
                self.counts.len() - 1
            });
            *mark = Mark { transaction, place };
        }
        self.counts[mark.place].1 += events;
    }

    /// The events of all tables.
    pub(super) fn events(&self) -> u64 {
        self.counts.iter().map(|(_, events)| events).sum()
    }

    /// Each table with its events.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, u64)> {
        self.counts.iter().map(|(name, events)| (&**name, *events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_count_whatever_table_has_it() {
        let (orders, items): (Arc<str>, Arc<str>) = ("public.orders".into(), "public.items".into());
        let (mut one, mut other, mut created_again) = (Mark::default(), Mark::default(), Mark::default());
        let mut collections = Collections::default();
        collections.add(&orders, &mut one, 1, 2);
        collections.add(&items, &mut other, 1, 1);
        collections.add(&orders, &mut one, 1, 1);
        collections.add(&orders, &mut created_again, 1, 4);
        assert_eq!(collections.iter().collect::<Vec<_>>(), [("public.orders", 7), ("public.items", 1)]);
        assert_eq!(collections.events(), 8);
        let mut next = Collections::default();
        next.add(&items, &mut other, 2, 1);
        assert_eq!(next.iter().collect::<Vec<_>>(), [("public.items", 1)]);
    }
}
