//! Which tables are asked for: matched when a session starts, and again while it runs.
//!
//! What the publication holds is the server's business, by the catalog as it was where a row lies in the log. So a table that is added
//! is streamed from there on, whatever the stream's own position is, and nothing here has to be in step with the stream.
//!
//! While the stream runs, tables are only ever added. One that matches no more may be on its way through a migration that gives it
//! another name for a minute; to take it out would leave a gap that nobody asked for. The next start takes out what is not wanted.
//!
//! # Partitions on their own
//!
//! With `publish_via_partition_root = false` rows come under the name of the leaf that holds them, and what a leaf is a partition of
//! only the catalog of *today* knows: by the time a row is decoded, its leaf may be detached or dropped, as old partitions are. To take
//! it for a stranger would lose its rows. So leaves are remembered ([`Scope`]), and where that is no help, doubt is decided for the rows.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use pgoutput::{Oid, Relation};
use rustc_hash::FxHashSet;
use tracing::{debug, info, warn};

use crate::{
    catalog::{Catalog, MatchedTable, Publication, PublicationPlan, PublishedTable},
    config,
    failure::{Code, Failure},
};

/// Matches tables, and keeps the publication up with them.
pub(super) struct Membership {
    catalog: Catalog,
    postgres: config::Postgres,
    scope: Arc<Mutex<Scope>>,
    /// What was said while the stream ran, so that it is said once.
    told: BTreeSet<String>,
}

/// What decides whether a relation of the stream is asked for where its name does not say so.
#[derive(Debug, Default)]
pub(super) struct Scope {
    /// Every leaf that was seen under a table that is asked for. Bounded by the partitions there were since the start.
    leaves: FxHashSet<Oid>,
    has_partitioned: bool,
    /// Whether rows come under the names of leaves.
    publishes_leaves: bool,
    /// Whether the publication holds nothing but what was asked for.
    is_exact: bool,
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
    fn update(&mut self, postgres: &config::Postgres, matched: &[MatchedTable], publication: Option<&Publication>) {
        self.leaves.extend(matched.iter().flat_map(|matched| &matched.leaf_oids));
        self.has_partitioned |= matched.iter().any(|matched| matched.is_partitioned);
        let via_root = |publication: &Publication| publication.via_root;
        // What comes next in the log may have been published before a change of it.
        self.publishes_leaves |= !postgres.publish_via_partition_root || publication.is_some_and(|it| !via_root(it));
        self.is_exact = postgres.manage && !publication.is_some_and(|it| it.all_tables || it.has_schemas);
    }

    /// Decides on a relation whose name is not asked for, nor that of anything that it is a partition of now.
    pub(super) fn decide(&self, relation: Oid, exists: bool) -> Verdict {
        if self.leaves.contains(&relation) {
            Verdict::Leaf
        } else if self.publishes_leaves && self.has_partitioned && (self.is_exact || !exists) {
            Verdict::PerhapsALeaf
        } else {
            Verdict::Stranger
        }
    }
}

impl Membership {
    pub(super) fn new(catalog: Catalog, postgres: config::Postgres) -> Self {
        Self { catalog, postgres, scope: Arc::default(), told: BTreeSet::new() }
    }

    /// What it has learned, for whoever decides on relations.
    pub(super) fn scope(&self) -> Arc<Mutex<Scope>> {
        Arc::clone(&self.scope)
    }

    /// Checks the publication, or with `manage` makes it fit. `is_resumed` says that the stream has needed it before.
    ///
    /// It never publishes what would keep the application from updating its own rows.
    ///
    /// # Errors
    /// It does not fit and may not be changed, or is gone, or the server refuses the change.
    pub(super) async fn ensure(&mut self, is_resumed: bool) -> Result<(), Failure> {
        let matched = match self.catalog.matching_tables(&self.postgres.tables).await {
            // Without a hand in the publication, there may be tables later.
            Err(failure) if failure.code() == Code::TablesMissing && !self.postgres.manage => {
                warn!("{failure}");
                Vec::new()
            }
            outcome => outcome?,
        };
        let plan = self.plan(&matched).await?;
        if is_resumed && plan.existing.is_none() {
            // Made again, it would hide that what was committed meanwhile cannot be decoded.
            let found = format!("publication {} is gone, and the stream has not ended", self.postgres.publication);
            return Err(Failure::new(Code::PublicationMissing, found));
        }
        for remark in &plan.remarks {
            let outcome =
                if self.postgres.manage { "; that is mended now, for what is written from here on" } else { "" };
            warn!("{remark}{outcome}");
        }
        if self.postgres.manage {
            let without = self.catalog.tables_without_identity(&plan.new_tables).await?;
            if !without.is_empty() {
                let list: Vec<_> = without.iter().map(|found| format!("{}: {}", found.table, found.reason)).collect();
                return Err(Failure::new(Code::ReplicaIdentityMissing, list.join("; ")));
            }
            self.catalog.apply(&self.postgres.publication, &plan).await?;
        } else if let Some(unfit) = plan.unfit {
            return Err(unfit);
        }
        self.learn(&matched, plan.existing.as_ref());
        Ok(())
    }

    /// Looks again and again, for as long as the stream runs. What goes wrong is said, and tried again: the stream does not depend on it.
    pub(super) async fn keep(&mut self) -> Infallible {
        loop {
            tokio::time::sleep(self.postgres.match_interval).await;
            if let Err(failure) = self.look_again().await {
                if failure.code() == Code::PostgresUnavailable {
                    debug!("tables could not be matched again: {failure}");
                } else {
                    self.tell(format!("tables could not be matched again: {failure}"));
                }
            }
        }
    }

    async fn look_again(&mut self) -> Result<(), Failure> {
        let matched = self.catalog.matching_tables(&self.postgres.tables).await?;
        let plan = self.plan(&matched).await?;
        self.learn(&matched, plan.existing.as_ref());
        if plan.existing.is_none() {
            // The stream finds that out itself, and ends.
            return Ok(());
        }
        for remark in plan.remarks {
            let outcome = if self.postgres.manage { "; the next start mends that" } else { "" };
            self.tell(format!("{remark}{outcome}"));
        }
        if !self.postgres.manage {
            if let Some(unfit) = plan.unfit {
                self.tell(unfit.to_string());
            }
            return Ok(());
        }
        self.add(plan.new_tables).await
    }

    /// Adds those tables that can be added without harm.
    async fn add(&mut self, new: Vec<PublishedTable>) -> Result<(), Failure> {
        let mut fit = Vec::with_capacity(new.len());
        for table in new {
            // One at a time: a leaf that lacks an identity keeps its root out, and no other table.
            match self.catalog.tables_without_identity(std::slice::from_ref(&table)).await?.first() {
                None => fit.push(table),
                Some(without) => {
                    let code = Code::ReplicaIdentityMissing;
                    self.tell(format!(
                        "table {table} has appeared and is NOT streamed [{}]: {}: {}. {}",
                        code.as_str(),
                        without.table,
                        without.reason,
                        code.fix()
                    ));
                }
            }
        }
        if fit.is_empty() {
            return Ok(());
        }
        self.catalog.add_tables(&self.postgres.publication, &fit).await?;
        for table in fit {
            warn!("table {table} has appeared: it is streamed from here on, and rows from before are not copied");
        }
        Ok(())
    }

    async fn plan(&mut self, matched: &[MatchedTable]) -> Result<PublicationPlan, Failure> {
        let via_root = self.postgres.publish_via_partition_root;
        self.catalog.publication_plan(&self.postgres.publication, matched, via_root).await
    }

    fn learn(&self, matched: &[MatchedTable], publication: Option<&Publication>) {
        let mut scope = self.scope.lock().unwrap_or_else(PoisonError::into_inner);
        scope.update(&self.postgres, matched, publication);
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

/// Whether a relation of the stream is asked for, by its own name, by what it is a partition of, or in doubt.
///
/// # Errors
/// The server cannot be asked.
pub(super) async fn is_watched(
    catalog: &mut Catalog,
    patterns: &[config::TablePattern],
    scope: &Mutex<Scope>,
    relation: &Relation,
) -> Result<bool, Failure> {
    let matches = |schema: &str, name: &str| patterns.iter().any(|pattern| pattern.matches(schema, name));
    if matches(&relation.schema, &relation.name) {
        return Ok(true);
    }
    // A leaf is asked for by asking for what it is a partition of.
    let ancestors = catalog.ancestors(relation.id).await?;
    if ancestors.iter().flatten().any(|ancestor| matches(&ancestor.schema, &ancestor.name)) {
        return Ok(true);
    }
    let verdict = scope.lock().unwrap_or_else(PoisonError::into_inner).decide(relation.id, ancestors.is_some());
    let (schema, table) = (&relation.schema, &relation.name);
    match verdict {
        Verdict::Leaf => {}
        Verdict::PerhapsALeaf => warn!(
            "table {schema}.{table} is published and is a partition of nothing, though it may have been when its rows were written: it is \
             streamed, for to leave it out could lose rows"
        ),
        Verdict::Stranger => info!(schema, table, "the publication holds a table that is not asked for"),
    }
    Ok(verdict != Verdict::Stranger)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(publishes_leaves: bool, is_exact: bool) -> Scope {
        Scope { leaves: [Oid::from(7)].into_iter().collect(), has_partitioned: true, publishes_leaves, is_exact }
    }

    #[test]
    fn a_leaf_that_was_seen_stays_one() {
        for (publishes_leaves, is_exact, exists) in [(true, true, true), (true, false, false), (false, true, true)] {
            assert_eq!(scope(publishes_leaves, is_exact).decide(Oid::from(7), exists), Verdict::Leaf);
        }
    }

    #[test]
    fn doubt_is_decided_for_the_rows() {
        let unknown = Oid::from(8);
        assert_eq!(scope(true, true).decide(unknown, true), Verdict::PerhapsALeaf, "nobody else put it there");
        assert_eq!(scope(true, true).decide(unknown, false), Verdict::PerhapsALeaf);
        assert_eq!(scope(true, false).decide(unknown, false), Verdict::PerhapsALeaf, "it is gone");
        assert_eq!(scope(true, false).decide(unknown, true), Verdict::Stranger, "it is there, and no partition");
        assert_eq!(scope(false, true).decide(unknown, false), Verdict::Stranger, "rows come under their root's name");
        let nothing_is_partitioned =
            Scope { has_partitioned: false, leaves: FxHashSet::default(), ..scope(true, true) };
        assert_eq!(nothing_is_partitioned.decide(unknown, false), Verdict::Stranger);
    }
}
