//! Which tables are asked for: matched when a session starts, and again while it runs.
//!
//! What the publication holds is the server's business, by the catalog as it was where a row lies in the log. So a table that is added
//! is streamed from there on, whatever the stream's own position is, and nothing here has to be in step with the stream.
//!
//! A first start is strict: what does not fit is refused, so that somebody looks. Once something was streamed, a table that cannot be
//! published (it has no replica identity, or belongs to another role) or not be written (as [`fitness`](super::fitness) finds out) is left
//! out and told, and the others go on: a table that an application makes must not be able to stop them. Each look asks again, so that it is
//! taken up once it fits.
//!
//! Tables are taken out by the first session of a process only. One that matches no more may be on its way through a migration that
//! gives it another name for a minute; to take it out meanwhile would leave a gap that nobody asked for.
//!
//! # Partitions on their own
//!
//! With `publish_via_partition_root = false` rows come under the name of the leaf that holds them, and what a leaf is a partition of
//! only the catalog of *today* knows: by the time a row is decoded, its leaf may be detached or dropped, as old partitions are. To take
//! it for a stranger would lose its rows. So leaves are remembered for as long as the process lives ([`Scope`]), and where that is no
//! help, doubt is decided for the rows. What is left of it: in a publication that holds more than was asked for, a leaf that was
//! detached while no process ran looks like any other table that is there.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pgoutput::{Oid, Relation};
use rustc_hash::{FxHashMap, FxHashSet};
use tracing::{debug, error, info, warn};

use super::{
    fitness::Fitness,
    memory::{self, Memory},
    topics::publishable,
};
use crate::{
    catalog::{Catalog, MatchedTable, PublicationPlan, PublicationShape, PublishedTable},
    config::{self, Config, TableIdentity},
    failure::{Code, Failure},
    metrics::Metrics,
};

/// Matches tables, and keeps the publication up with them. One for the life of the process.
pub(super) struct Membership {
    catalog: Catalog,
    /// What tables were like when they were matched.
    memory: Arc<Mutex<Memory>>,
    postgres: config::Postgres,
    scope: Arc<Mutex<Scope>>,
    fitness: Fitness,
    /// What was asked for and was found in the publication, ever.
    published: BTreeSet<PublishedTable>,
    /// What was said, so that it is said once.
    told: BTreeSet<String>,
    metrics: Arc<Metrics>,
}

/// What a session knows when it starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    /// Whether anything was streamed before, by this process or another.
    pub(super) has_streamed: bool,
    /// Whether what is still to be decoded needs the publication as it was.
    pub(super) needs_publication: bool,
    /// Whether it is the first session of its process.
    pub(super) is_first: bool,
}

/// What decides whether a relation of the stream is asked for where its name does not say so.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Every leaf that was seen under a table that is asked for. Bounded by the partitions there were since the process began.
    leaves: FxHashSet<Oid>,
    /// What each relation that was matched or identified was a partition of. Bounded by the tables there were.
    ancestors: FxHashMap<Oid, Vec<PublishedTable>>,
    /// Tables that were taken out of the publication because they are not asked for.
    removed: BTreeSet<PublishedTable>,
    has_partitioned: bool,
    /// Whether rows come under the names of leaves.
    publishes_leaves: bool,
    /// Whether the publication holds nothing but what was asked for.
    is_exact: bool,
}

/// Whether rows come under the names of leaves.
pub(super) fn publishes_leaves(scope: &Mutex<Scope>) -> bool {
    lock(scope).publishes_leaves
}

/// Why a relation is taken to be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is a partition of what is asked for, or was one.
    Leaf,
    /// It may have been one, and nobody can say any more.
    PerhapsALeaf,
    /// It is not asked for.
    Stranger,
}

impl Scope {
    fn update(&mut self, postgres: &config::Postgres, matched: &[MatchedTable], plan: &PublicationPlan) {
        let publication = plan.existing.as_ref();
        for root in matched {
            if !root.is_partitioned {
                self.remember(root.oid, &root.ancestors);
            }
            for leaf in &root.leaves {
                self.leaves.insert(leaf.oid);
                self.remember(leaf.oid, &leaf.ancestors);
            }
        }
        self.has_partitioned |= matched.iter().any(|matched| matched.is_partitioned);
        // What comes next in the log may have been published before a change of it.
        self.publishes_leaves |= !postgres.publish_via_partition_root || publication.is_some_and(|it| !it.via_root);
        self.is_exact = postgres.manage && !publication.is_some_and(|it| it.all_tables || it.has_schemas);
    }

    /// Adds to what a relation was a partition of: before it was detached, the rows that are still to come were written under that.
    fn remember(&mut self, relation: Oid, ancestors: &[PublishedTable]) {
        let remembered = self.ancestors.entry(relation).or_default();
        for ancestor in ancestors {
            if !remembered.contains(ancestor) {
                remembered.push(ancestor.clone());
            }
        }
    }

    /// The names that a relation goes by, as far as anybody knows.
    fn identity(&mut self, relation: Oid, own: &PublishedTable, ancestors: Option<&[PublishedTable]>) -> TableIdentity {
        if let Some(ancestors) = ancestors {
            self.remember(relation, ancestors);
        }
        let remembered = self.ancestors.get(&relation);
        let is_certain = remembered.is_some() || !self.publishes_leaves;
        let names = std::iter::once(own).chain(remembered.into_iter().flatten());
        TableIdentity { names: names.map(|table| (table.schema.clone(), table.name.clone())).collect(), is_certain }
    }

    /// Decides on a relation whose name is not asked for, nor that of anything that it is a partition of now.
    fn decide(&self, relation: Oid, table: &PublishedTable, exists: bool) -> Verdict {
        if self.leaves.contains(&relation) {
            return Verdict::Leaf;
        }
        if !self.publishes_leaves || self.removed.contains(table) {
            return Verdict::Stranger;
        }
        // Into an exact publication nobody else has put it. In any other, what is gone is doubtful only where anything is partitioned.
        let is_doubtful = self.is_exact || !exists && self.has_partitioned;
        if is_doubtful { Verdict::PerhapsALeaf } else { Verdict::Stranger }
    }
}

impl Membership {
    pub(super) fn new(catalog: Catalog, memory: Arc<Mutex<Memory>>, config: &Config, metrics: Arc<Metrics>) -> Self {
        let (postgres, fitness) = (config.postgres.clone(), Fitness::new(config));
        let (published, told) = (BTreeSet::new(), BTreeSet::new());
        Self { catalog, memory, postgres, scope: Arc::default(), fitness, published, told, metrics }
    }

    /// What it has learned, for whoever decides on relations.
    pub(super) fn scope(&self) -> Arc<Mutex<Scope>> {
        Arc::clone(&self.scope)
    }

    /// Checks the publication, or with `manage` makes it fit.
    ///
    /// It never publishes what would keep the application from updating its own rows.
    ///
    /// # Errors
    /// It does not fit and may not be changed, or is gone, or the server refuses the change.
    pub(super) async fn ensure(&mut self, beginning: Beginning) -> Result<(), Failure> {
        let Beginning { has_streamed, needs_publication, is_first } = beginning;
        let matched = match self.catalog.matching_tables(&self.postgres.tables).await {
            // Without a hand in the publication there may be tables later, and where there were some they may come back.
            Err(failure) if failure.code() == Code::TablesMissing && (has_streamed || !self.postgres.manage) => {
                self.tell(failure.to_string());
                Vec::new()
            }
            outcome => outcome?,
        };
        let mut plan = self.plan(&matched).await?;
        if let Err(failure) = excluded_partitions(&self.postgres, &matched, &plan) {
            if is_first {
                return Err(failure);
            }
            self.tell(failure.to_string());
        }
        if needs_publication && plan.existing.is_none() {
            // Made again, it would hide that what was committed meanwhile cannot be decoded.
            let found = format!("publication {} is gone, and the stream has not ended", plan.name);
            return Err(Failure::new(Code::PublicationMissing, found));
        }
        for remark in &plan.remarks {
            let outcome =
                if self.postgres.manage { "; that is mended now, for what is written from here on" } else { "" };
            self.tell(format!("{remark}{outcome}"));
        }
        let mut added = 0;
        if self.postgres.manage {
            let fit = self.fit(&matched, &plan, !has_streamed).await?;
            added = if plan.existing.is_none() {
                self.catalog.alter_publication(&plan.creation(&fit)).await?;
                fit.len()
            } else {
                self.alter(&plan, fit, beginning).await?
            };
        } else if let Some(unfit) = plan.unfit.take() {
            if !has_streamed || unfit.code() == Code::PublicationMissing {
                return Err(unfit);
            }
            self.tell(unfit.to_string());
        }
        if is_first && self.postgres.manage && !plan.must_be_rewritten() {
            for table in &plan.extra_tables {
                self.take_out(&plan, table).await?;
            }
        }
        self.learn(&matched, &plan, added);
        Ok(())
    }

    /// Looks at what the stream will not say of the tables that are asked for.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub(super) async fn look_ahead(&mut self) -> Result<(), Failure> {
        let matched = match self.catalog.matching_tables(&self.postgres.tables).await {
            Err(failure) if failure.code() == Code::TablesMissing => return Ok(()),
            outcome => outcome?,
        };
        self.look_at(&matched).await
    }

    async fn look_at(&mut self, matched: &[MatchedTable]) -> Result<(), Failure> {
        let horizon = self.catalog.catalog_xmin(&self.postgres.slot).await?;
        memory::lock(&self.memory).see_horizon(horizon);
        memory::look_ahead(&mut self.catalog, &publishable(matched), &self.memory).await
    }

    /// Looks again, as it is done while the stream runs. Before anything is changed, `is_ours` is asked whether the stream is still this
    /// process's: another one may have taken over with another configuration.
    ///
    /// What goes wrong is told, and tried again: the stream does not depend on it.
    pub(super) async fn look_again(&mut self, is_ours: impl AsyncFn() -> bool) {
        if let Err(failure) = self.try_again(is_ours).await {
            if failure.code() == Code::PostgresUnavailable {
                debug!("tables could not be matched again: {failure}");
            } else {
                self.tell(format!("tables could not be matched again: {failure}"));
            }
        }
    }

    /// Asks the server of the session that begins from here on: a connection can outlive a failover, and would go on to show what the server before
    /// has in its catalog.
    pub(super) fn connect_anew(&mut self) {
        self.catalog.disconnect();
    }

    /// Asks the server how far its log is, for the lag that the metrics show: while nothing is read, nobody else says so.
    pub(super) async fn look_at_server(&mut self) {
        match self.catalog.flush_lsn().await {
            Ok(lsn) => self.metrics.server_position(lsn),
            Err(failure) => debug!("the server's position is not known: {failure}"),
        }
    }

    async fn try_again(&mut self, is_ours: impl AsyncFn() -> bool) -> Result<(), Failure> {
        self.look_at_server().await;
        let matched = self.catalog.matching_tables(&self.postgres.tables).await?;
        self.look_at(&matched).await?;
        let plan = self.plan(&matched).await?;
        if let Err(failure) = excluded_partitions(&self.postgres, &matched, &plan) {
            self.tell(failure.to_string());
        }
        if plan.existing.is_none() {
            // The stream finds that out itself, and ends.
            return Ok(());
        }
        for remark in &plan.remarks {
            let outcome = if self.postgres.manage { "; the next start mends that" } else { "" };
            self.tell(format!("{remark}{outcome}"));
        }
        let mut added = 0;
        if !self.postgres.manage {
            if let Some(unfit) = &plan.unfit {
                self.tell(unfit.to_string());
            }
        } else if !plan.must_be_rewritten() {
            let fit = self.fit(&matched, &plan, false).await?;
            if !fit.is_empty() && is_ours().await {
                added = self.add(&plan, fit, false).await?;
            }
        }
        self.learn(&matched, &plan, added);
        Ok(())
    }

    async fn alter(
        &mut self,
        plan: &PublicationPlan,
        fit: Vec<PublishedTable>,
        beginning: Beginning,
    ) -> Result<usize, Failure> {
        for statement in plan.settings() {
            self.catalog.alter_publication(&statement).await?;
        }
        if plan.must_be_rewritten() {
            let members = plan.existing.iter().flat_map(|publication| &publication.members);
            let kept = plan.wanted.iter().filter(|table| members.clone().any(|member| member == *table));
            let added = fit.len();
            let tables: Vec<_> = kept.cloned().chain(fit).collect();
            self.catalog.alter_publication(&plan.rewriting(&tables)).await?;
            return Ok(added);
        }
        self.add(plan, fit, !beginning.has_streamed).await
    }

    /// Those of the new tables on which the server would go on to take UPDATE and DELETE, and whose rows can be written.
    async fn fit(
        &mut self,
        matched: &[MatchedTable],
        plan: &PublicationPlan,
        is_strict: bool,
    ) -> Result<Vec<PublishedTable>, Failure> {
        let (new, publishes_leaves) = (&plan.new_tables, !publishes_roots(&self.postgres, plan));
        let unfit = self.fitness.unfit(&mut self.catalog, matched, new, publishes_leaves).await?;
        if is_strict && let Some((_, first)) = unfit.first() {
            let code = first.code();
            let same = unfit.iter().filter(|(_, failure)| failure.code() == code).map(|(_, failure)| failure.found());
            return Err(Failure::new(code, same.collect::<Vec<_>>().join("; ")));
        }
        for (table, failure) in &unfit {
            self.tell_not_streamed(table, failure);
        }
        let unfit: BTreeSet<_> = unfit.into_iter().map(|(table, _)| table).collect();
        Ok(new.iter().filter(|table| !unfit.contains(table)).cloned().collect())
    }

    /// Adds tables one by one, so that one which the server refuses keeps no other out.
    /// Adds tables to the publication, and returns how many it could.
    async fn add(
        &mut self,
        plan: &PublicationPlan,
        fit: Vec<PublishedTable>,
        is_strict: bool,
    ) -> Result<usize, Failure> {
        let mut added = fit.len();
        for table in fit {
            match self.catalog.alter_publication(&plan.addition(&table)).await {
                Ok(()) if is_strict => {}
                Ok(()) if self.published.contains(&table) => error!(
                    "table {table} had been taken out of publication {}, or was dropped and made again: it is streamed from here on, and \
                     what was written in between is not in Kafka",
                    plan.name
                ),
                Ok(()) => {
                    warn!("table {table} has appeared: it is streamed from here on");
                }
                Err(failure) if is_strict || failure.code() == Code::PostgresUnavailable => return Err(failure),
                Err(failure) => {
                    added -= 1;
                    self.tell_not_streamed(&table, &failure);
                }
            }
        }
        Ok(added)
    }

    async fn take_out(&mut self, plan: &PublicationPlan, table: &PublishedTable) -> Result<(), Failure> {
        match self.catalog.alter_publication(&plan.removal(table)).await {
            Ok(()) => {
                lock(&self.scope).removed.insert(table.clone());
                Ok(())
            }
            Err(failure) if failure.code() == Code::PostgresUnavailable => Err(failure),
            Err(failure) => {
                // The stream leaves it out by its name.
                warn!(
                    "table {table} is not asked for and could not be taken out of publication {}: {failure}",
                    plan.name
                );
                Ok(())
            }
        }
    }

    async fn plan(&mut self, matched: &[MatchedTable]) -> Result<PublicationPlan, Failure> {
        let shape = PublicationShape::of(&self.postgres);
        self.catalog.publication_plan(&self.postgres.publication, matched, shape).await
    }

    fn learn(&mut self, matched: &[MatchedTable], plan: &PublicationPlan, added: usize) {
        self.metrics.captured_tables(plan.wanted.len().saturating_sub(plan.new_tables.len()) + added);
        let new: BTreeSet<_> = plan.new_tables.iter().collect();
        self.published.extend(plan.wanted.iter().filter(|table| !new.contains(table)).cloned());
        lock(&self.scope).update(&self.postgres, matched, plan);
    }

    fn tell_not_streamed(&mut self, table: &PublishedTable, failure: &Failure) {
        self.tell(format!("table {table} has appeared and is NOT streamed: {failure}"));
    }

    fn tell(&mut self, what: String) {
        // A bound that is met only where names change all the time.
        if self.told.len() >= 1000 {
            self.told.clear();
        }
        if !self.told.contains(&what) {
            warn!("{what}");
            self.told.insert(what);
        }
    }
}

fn lock(scope: &Mutex<Scope>) -> MutexGuard<'_, Scope> {
    // It is whole after every statement, so that a panic elsewhere leaves nothing broken.
    scope.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses to leave out partitions whose rows come under the name of a table that is asked for: no message of the stream would tell them
/// apart.
///
/// # Errors
/// There are such.
pub(crate) fn excluded_partitions(
    postgres: &config::Postgres,
    matched: &[MatchedTable],
    plan: &PublicationPlan,
) -> Result<(), Failure> {
    let Some((root, excluded)) = matched.iter().find_map(|root| Some((&root.table, root.excluded.first()?))) else {
        return Ok(());
    };
    if !publishes_roots(postgres, plan) {
        return Ok(());
    }
    Err(Failure::new(
        Code::ConfigInvalid,
        format!(
            "postgres.exclude_tables leaves out {excluded}, a partition of {root}, whose rows come under the name of {root}: leave out \
             {root}, or set postgres.publish_via_partition_root = false"
        ),
    ))
}

/// Whether rows of partitions come under the names of their roots, once a managed publication is as it should be.
fn publishes_roots(postgres: &config::Postgres, plan: &PublicationPlan) -> bool {
    let configured = postgres.publish_via_partition_root;
    let existing = plan.existing.as_ref().filter(|_| !postgres.manage);
    existing.map_or(configured, |publication| publication.via_root)
}

/// The names of a relation of the stream, if it is asked for: by its own name, by what it is a partition of, or in doubt.
///
/// # Errors
/// The server cannot be asked.
pub(super) async fn identify(
    catalog: &mut Catalog,
    selection: &config::TableSelection,
    scope: &Mutex<Scope>,
    relation: &Relation,
) -> Result<Option<TableIdentity>, Failure> {
    let name = PublishedTable { schema: relation.schema.clone(), name: relation.name.clone() };
    let includes = |table: &PublishedTable| selection.includes(&table.schema, &table.name);
    let excludes = |table: &PublishedTable| selection.excludes(&table.schema, &table.name);
    let is_no_leaf = !lock(scope).publishes_leaves;
    if includes(&name) && selection.exclude.is_empty() && is_no_leaf {
        return Ok(Some(lock(scope).identity(relation.id, &name, None)));
    }
    // A leaf is asked for, left out and shaped with what it is a partition of.
    let ancestors = catalog.ancestors(relation.id).await?;
    let excluded_by = std::iter::once(&name).chain(ancestors.iter().flatten()).find(|table| excludes(table));
    if let Some(excluded_by) = excluded_by {
        info!(
            schema = name.schema,
            table = name.name,
            "the publication holds a table that is left out with {excluded_by}"
        );
        return Ok(None);
    }
    if includes(&name) || ancestors.iter().flatten().any(includes) {
        return Ok(Some(lock(scope).identity(relation.id, &name, ancestors.as_deref())));
    }
    let verdict = lock(scope).decide(relation.id, &name, ancestors.is_some());
    let (schema, table) = (&relation.schema, &relation.name);
    match verdict {
        Verdict::Leaf => {}
        Verdict::PerhapsALeaf => warn!(
            "table {schema}.{table} is published and is a partition of nothing, though it may have been when its rows were written: it is \
             streamed, for to leave it out could lose rows, and each column is hidden that is to be hidden in any table"
        ),
        Verdict::Stranger => {
            info!(schema, table, "the publication holds a table that is not asked for");
            return Ok(None);
        }
    }
    // Of what was once a leaf, its being none today says nothing.
    let ancestors = ancestors.filter(|_| verdict == Verdict::Leaf);
    Ok(Some(lock(scope).identity(relation.id, &name, ancestors.as_deref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(publishes_leaves: bool, is_exact: bool) -> Scope {
        let root = PublishedTable { schema: "public".into(), name: "root".into() };
        let leaves = [Oid::from(7)].into_iter().collect();
        let ancestors = [(Oid::from(7), vec![root])].into_iter().collect();
        Scope { leaves, ancestors, removed: BTreeSet::new(), has_partitioned: true, publishes_leaves, is_exact }
    }

    fn decide(scope: &Scope, oid: u32, exists: bool) -> Verdict {
        let table = PublishedTable { schema: "public".into(), name: "leaf".into() };
        scope.decide(Oid::from(oid), &table, exists)
    }

    #[test]
    fn a_leaf_that_was_seen_stays_one() {
        for (publishes_leaves, is_exact, exists) in [(true, true, true), (true, false, false), (false, true, true)] {
            assert_eq!(decide(&scope(publishes_leaves, is_exact), 7, exists), Verdict::Leaf);
        }
    }

    #[test]
    fn doubt_is_decided_for_the_rows() {
        assert_eq!(decide(&scope(true, true), 8, true), Verdict::PerhapsALeaf, "nobody else put it there");
        assert_eq!(decide(&scope(true, true), 8, false), Verdict::PerhapsALeaf);
        assert_eq!(decide(&scope(true, false), 8, false), Verdict::PerhapsALeaf, "it is gone");
        assert_eq!(decide(&scope(true, false), 8, true), Verdict::Stranger, "it is there, and no partition");
        assert_eq!(decide(&scope(false, true), 8, false), Verdict::Stranger, "rows come under their root's name");
        let table_is_gone = |is_exact| Scope { has_partitioned: false, ..scope(true, is_exact) };
        assert_eq!(decide(&table_is_gone(true), 8, false), Verdict::PerhapsALeaf, "the root may be gone with it");
        assert_eq!(decide(&table_is_gone(false), 8, false), Verdict::Stranger, "all tables that come and go are there");
    }

    #[test]
    fn what_a_leaf_was_a_partition_of_is_remembered() {
        let mut scope = scope(true, true);
        let table = |name: &str| PublishedTable { schema: "public".into(), name: name.into() };
        let mut identity = |oid, ancestors: Option<&[&str]>| {
            let ancestors: Option<Vec<_>> = ancestors.map(|names| names.iter().map(|name| table(name)).collect());
            let identity = scope.identity(Oid::from(oid), &table("leaf"), ancestors.as_deref());
            let names: Vec<_> = identity.names.into_iter().map(|(_, name)| name).collect();
            (names.join(" "), identity.is_certain)
        };
        assert_eq!(identity(7, None), ("leaf root".to_owned(), true), "it was matched once");
        assert_eq!(identity(8, None), ("leaf".to_owned(), false), "it is gone, and was not seen");
        assert_eq!(identity(9, Some(&["b", "a"])), ("leaf b a".to_owned(), true));
        assert_eq!(identity(9, Some(&[])), ("leaf b a".to_owned(), true), "it was detached");
        assert_eq!(identity(9, None), ("leaf b a".to_owned(), true), "it was dropped");
        scope.publishes_leaves = false;
        let plain = scope.identity(Oid::from(8), &table("leaf"), None);
        assert!(plain.is_certain, "rows come under their root's name");
    }

    #[test]
    fn what_was_taken_out_is_a_stranger_however_it_looks() {
        let mut scope = scope(true, true);
        scope.removed.insert(PublishedTable { schema: "public".into(), name: "leaf".into() });
        assert_eq!(decide(&scope, 8, true), Verdict::Stranger);
    }
}
