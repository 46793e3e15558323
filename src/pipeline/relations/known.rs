//! The relations that are known, and which of them a topic is of.

use std::{collections::hash_map::Entry, sync::Arc};

use encoder::{BoundPlan, TableFacts};
use pgoutput::{Oid, Relation, Xid};
use rustc_hash::FxHashMap;

use crate::{
    config::TableIdentity,
    failure::Failure,
    metrics::TableMetrics,
    pipeline::{collections::Mark, keys::KeyThen},
    snapshot::RowKey,
};

/// A relation.
pub(in crate::pipeline) enum Known {
    /// Its changes are wanted.
    Watched(Box<Table>),
    /// The publication holds it, and the configuration does not ask for it.
    Unwatched,
    /// Its changes are wanted, and which key they have is not known: why the stream stops at the first of them.
    Uncertain(Box<Failure>),
}

/// A relation whose changes are wanted.
pub(in crate::pipeline) struct Table {
    pub(in crate::pipeline) plan: Arc<BoundPlan>,
    pub(in crate::pipeline) metrics: TableMetrics,
    /// Events of this table in the transaction with the number below.
    pub(in crate::pipeline) events: u64,
    /// Which transaction [`events`](Self::events) counts in, by its number in the session.
    pub(in crate::pipeline) events_of: u64,
    /// `schema.table`
    pub(in crate::pipeline) name: Arc<str>,
    /// What tells its rows apart, if anything does.
    pub(in crate::pipeline) row_key: Option<RowKey>,
    /// Where the transaction counts the events of that name. It is found anew once the name may be another.
    pub(in crate::pipeline) mark: Mark,
    pub(super) relation: Relation,
    pub(super) identity: TableIdentity,
    pub(super) facts: TableFacts,
    /// Which key the plan has, where the stream does not say.
    pub(super) key_then: Option<KeyThen>,
}

impl Table {
    /// Whether the rows of a transaction have another key than the plan.
    pub(in crate::pipeline) fn key_is_replaced(&self, transaction: Xid) -> bool {
        let next = self.key_then.as_ref().and_then(|then| then.next.as_ref());
        next.is_some_and(|next| next.is_there(transaction))
    }

    /// As the stream has announced it, or as the catalog has it.
    pub(in crate::pipeline) fn relation(&self) -> &Relation {
        &self.relation
    }
}

/// Relations by OID. Which of them has a topic is asked of each that becomes known, so that it must not be looked for among all.
#[derive(Default)]
pub(in crate::pipeline) struct KnownRelations {
    by_oid: FxHashMap<Oid, Known>,
    /// Those of which only this is still held are among them.
    topics: FxHashMap<Oid, Vec<Arc<str>>>,
    /// With their names.
    by_topic: FxHashMap<Arc<str>, Vec<(Oid, Arc<str>)>>,
}

impl KnownRelations {
    pub(in crate::pipeline) fn get(&self, oid: Oid) -> Option<&Known> {
        self.by_oid.get(&oid)
    }

    /// Whoever changes it leaves it its topics.
    pub(in crate::pipeline) fn get_mut(&mut self, oid: Oid) -> Option<&mut Known> {
        self.by_oid.get_mut(&oid)
    }

    pub(in crate::pipeline) fn watched(&self, oid: Oid) -> Option<&Table> {
        match self.by_oid.get(&oid) {
            Some(Known::Watched(table)) => Some(table),
            _ => None,
        }
    }

    /// Adds it, in the place of what was known under its OID.
    pub(in crate::pipeline) fn insert(&mut self, oid: Oid, known: Known) {
        self.remove(oid);
        if let Known::Watched(table) = &known {
            let topics: Vec<Arc<str>> = table.plan.plan().topics().cloned().collect();
            for topic in &topics {
                self.by_topic.entry(Arc::clone(topic)).or_default().push((oid, Arc::clone(&table.name)));
            }
            self.topics.insert(oid, topics);
        }
        self.by_oid.insert(oid, known);
    }

    pub(in crate::pipeline) fn remove(&mut self, oid: Oid) -> Option<Known> {
        for topic in self.topics.remove(&oid).into_iter().flatten() {
            if let Entry::Occupied(mut tables) = self.by_topic.entry(topic) {
                tables.get_mut().retain(|(other, _)| *other != oid);
                if tables.get().is_empty() {
                    tables.remove();
                }
            }
        }
        self.by_oid.remove(&oid)
    }

    /// Lets go of all but which topics it has: so much is held of a table whose turn is over.
    pub(in crate::pipeline) fn let_go(&mut self, oid: Oid) {
        self.by_oid.remove(&oid);
    }

    /// Those whose topic this is, or that of their dead letters, with their names.
    pub(in crate::pipeline) fn of_topic(&self, topic: &str) -> impl Iterator<Item = (Oid, &str)> {
        self.by_topic.get(topic).into_iter().flatten().map(|(oid, name)| (*oid, &**name))
    }
}
