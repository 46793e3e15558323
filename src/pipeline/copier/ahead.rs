//! What the catalog says of a table that is to be copied, which is asked of many tables at a time.
//!
//! A database may have thousands of tables with a few rows each. What is asked and made ready for one of them costs more than its rows, and nearly as
//! much as for a hundred. So the first of them takes along those that wait behind it: the catalog is asked about all of them, and what Kafka and the
//! registry need for them is made ready ([`Relations::prepare_ahead`]).
//!
//! What was found is held against the table when its rows are read, by its fingerprint, which was asked for before anything else: one that was altered
//! since is asked about again, by itself.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use encoder::TableFacts;
use pgoutput::Oid;
use rustc_hash::FxHashMap;
use tracing::debug;

use super::Copier;
use crate::{catalog::SnapshotTable, failure::Failure, pipeline::relations::Relations};

/// How many tables are asked about at a time, which bounds what is held of them, and what one request asks of the brokers.
const TABLES_MAX: usize = 64;
/// For how long what was found is taken for what there is.
const FRESH: Duration = Duration::from_secs(30);
/// For how long tables are asked about one by one, after they could not be together: one that is locked keeps others waiting.
const ONE_BY_ONE: Duration = Duration::from_mins(1);

/// A table as the catalog has it.
pub(super) struct Found {
    pub(super) fingerprint: String,
    pub(super) table: SnapshotTable,
    pub(super) rows_estimated: Option<u64>,
    pub(super) facts: TableFacts,
}

/// What was found of a table.
enum LookedUp {
    Found(Box<Found>),
    Gone,
}

impl LookedUp {
    fn found(self) -> Option<Found> {
        match self {
            Self::Found(found) => Some(*found),
            Self::Gone => None,
        }
    }
}

impl From<Option<Found>> for LookedUp {
    fn from(found: Option<Found>) -> Self {
        found.map_or(Self::Gone, |found| Self::Found(Box::new(found)))
    }
}

/// What is known of tables before their turns.
#[derive(Default)]
pub(super) struct Ahead(Mutex<State>);

#[derive(Default)]
struct State {
    found: FxHashMap<Oid, (Instant, LookedUp)>,
    failed_at: Option<Instant>,
}

impl Ahead {
    fn lock(&self) -> MutexGuard<'_, State> {
        // It is whole after every statement, so that a panic elsewhere leaves nothing broken.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, table: Oid) -> Option<LookedUp> {
        let state = &mut *self.lock();
        state.found.retain(|_, (at, _)| at.elapsed() < FRESH);
        state.found.remove(&table).map(|(_, found)| found)
    }

    /// Those of these tables that are to be asked about with another.
    fn together(&self, tables: Vec<Oid>) -> Vec<Oid> {
        let state = self.lock();
        if state.failed_at.is_some_and(|at| at.elapsed() < ONE_BY_ONE) {
            return Vec::new();
        }
        tables.into_iter().filter(|table| !state.found.contains_key(table)).collect()
    }
}

impl Copier {
    /// What the catalog says of a table; none if it is gone.
    pub(super) async fn look_up(&self, relations: &mut Relations, table: Oid) -> Result<Option<Found>, Failure> {
        if let Some(found) = self.ahead.take(table) {
            return Ok(found.found());
        }
        let next = self.state().next(TABLES_MAX - 1);
        let next = self.ahead.together(next);
        if !next.is_empty() {
            let tables: Vec<Oid> = std::iter::once(table).chain(next).collect();
            match self.ask(relations, &tables).await {
                Ok(mut found) => {
                    let relations_of = |found: &Found| (found.table.relation.clone(), found.facts.clone());
                    let ready: Vec<_> = found.values().map(relations_of).collect();
                    relations.prepare_ahead(&ready).await;
                    let at = Instant::now();
                    let state = &mut *self.ahead.lock();
                    state.found.extend(tables.iter().map(|table| (*table, (at, found.remove(table).into()))));
                    return Ok(state.found.remove(&table).and_then(|(_, found)| found.found()));
                }
                Err(failure) => {
                    debug!(tables = tables.len(), "tables could not be asked about together: {failure}");
                    self.ahead.lock().failed_at = Some(Instant::now());
                }
            }
        }
        Ok(self.ask(relations, &[table]).await?.remove(&table))
    }

    async fn ask(&self, relations: &mut Relations, tables: &[Oid]) -> Result<FxHashMap<Oid, Found>, Failure> {
        // Asked for first: under the lock it has to be the same.
        let mut fingerprints = relations.catalog.fingerprints(tables).await?;
        let described = relations.catalog.snapshot_tables(&self.publication, tables).await?;
        let estimated = relations.catalog.estimated_rows(tables).await?;
        let mut facts = relations.catalog.facts_of_tables(tables).await?;
        let found = |(oid, table): (Oid, SnapshotTable)| {
            let fingerprint = fingerprints.remove(&oid)?;
            let (rows_estimated, facts) = (estimated.get(&oid).copied(), facts.remove(&oid).unwrap_or_default());
            Some((oid, Found { fingerprint, table, rows_estimated, facts }))
        };
        Ok(described.into_iter().filter_map(found).collect())
    }
}
