//! Whether a table can be streamed, asked before it is published: an application's new table must not be able to stop the others, and a row that
//! cannot be written stops them all.
//!
//! What is asked is what the stream asks when the table's first row comes, of the catalog in the place of the Relation message. It is no
//! promise: a table may change between the answer and that row, and then the stream stops there, with everything kept.
//!
//! Nor is it asked of a table that somebody else publishes. That is so with `postgres.manage = false`, and in a publication FOR ALL TABLES
//! whoever manages it: the server publishes a table there as soon as there is one, and one that does not fit stops the stream at its first row.

use std::collections::{BTreeMap, BTreeSet};

use encoder::{Naming, PlanError, TableFacts, TablePlan};
use pgoutput::{Oid, Relation};
use rustc_hash::FxHashMap;

use super::topics::{SideTopics, TopicOwner, owners};
use crate::{
    catalog::{Catalog, MatchedTable, PublishedTable},
    config::{Config, Shaping, TableIdentity},
    failure::{Code, Failure},
    failures,
};

/// So many tables are described at once, which bounds what is held of them.
const DESCRIBED_MAX: usize = 500;

/// A table as its Relation message would describe it, with what the catalog knows besides.
pub(crate) struct Described {
    pub(crate) relation: Relation,
    pub(crate) identity: TableIdentity,
    pub(crate) facts: TableFacts,
}

/// Which columns a publication sends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SentColumns<'a> {
    /// Those of the tables that it names columns of, or has since version 15.
    pub(crate) of_tables: &'a BTreeMap<PublishedTable, BTreeSet<String>>,
    /// Of other tables all, and those that are generated and stored only so.
    pub(crate) generated: bool,
}

/// Describes relations; those that are gone are left out.
///
/// # Errors
/// The server cannot be asked.
pub(crate) async fn describe(
    catalog: &mut Catalog,
    relations: &[(Oid, TableIdentity)],
    sent: SentColumns<'_>,
) -> Result<Vec<Described>, Failure> {
    let oids: Vec<Oid> = relations.iter().map(|(oid, _)| *oid).collect();
    let identities: FxHashMap<Oid, &TableIdentity> = relations.iter().map(|(oid, it)| (*oid, it)).collect();
    let mut facts = catalog.facts_of_tables(&oids).await?;
    let described = catalog.described_tables(&oids).await?.into_iter().filter_map(|table| {
        let (schema, name) = table.name();
        let name = PublishedTable { schema: schema.to_owned(), name: name.to_owned() };
        let relation = table.published(sent.of_tables.get(&name), sent.generated);
        let identity = (*identities.get(&relation.id)?).clone();
        let facts = facts.remove(&relation.id).unwrap_or_default();
        Some(Described { relation, identity, facts })
    });
    Ok(described.collect())
}

impl Described {
    /// The plan of its records, as the stream would compile it.
    ///
    /// # Errors
    /// There can be none.
    pub(crate) fn plan(&self, shaping: &Shaping, naming: &Naming) -> Result<TablePlan, PlanError> {
        shaping.plan(&self.relation, &self.identity, &self.facts, naming)
    }
}

/// What is asked of a table.
pub(super) struct Fitness {
    shaping: Shaping,
    naming: Naming,
    side_topics: SideTopics,
    generated_columns: bool,
}

/// Tables that cannot be streamed, each with why not; one may be there more than once.
pub(super) type Unfit = Vec<(PublishedTable, Failure)>;

impl Fitness {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            shaping: Shaping::new(config),
            naming: Naming::new(config.name.as_str(), config.postgres.connect.database()),
            side_topics: SideTopics::new(config),
            generated_columns: config.postgres.publish_generated_columns,
        }
    }

    /// Those of the tables in `new` that are not to be published. A table is unfit as a whole if one of its leaves is, since whoever publishes
    /// it publishes all of them.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub(super) async fn unfit(
        &self,
        catalog: &mut Catalog,
        matched: &[MatchedTable],
        new: &[PublishedTable],
        publishes_leaves: bool,
    ) -> Result<Unfit, Failure> {
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let mut unfit: Unfit = Vec::new();
        for without in catalog.tables_without_identity(new).await? {
            let found = format!("{}: {}", without.table, without.reason);
            unfit.push((without.root, Failure::new(Code::ReplicaIdentityMissing, found)));
        }
        let open = still_fit(new, &unfit);
        let open = matched.iter().filter(|matched| open.contains(&matched.table));
        let unplanned = self.without_plan(catalog, open, publishes_leaves).await?;
        unfit.extend(unplanned);
        let streamed = {
            let left_out = names(&unfit);
            let is_streamed = |matched: &&MatchedTable| !left_out.contains(&matched.table);
            matched.iter().filter(is_streamed).cloned().collect::<Vec<_>>()
        };
        let owners = owners(&self.shaping, &streamed, publishes_leaves, None);
        let clashes = shared_topics(owners.values(), &still_fit(new, &unfit), &self.side_topics);
        unfit.extend(clashes);
        Ok(unfit)
    }

    /// Those for whose records there can be no plan.
    async fn without_plan(
        &self,
        catalog: &mut Catalog,
        tables: impl Iterator<Item = &MatchedTable>,
        publishes_leaves: bool,
    ) -> Result<Unfit, Failure> {
        let none = BTreeMap::new();
        let sent = SentColumns { of_tables: &none, generated: self.generated_columns };
        let (roots, relations): (Vec<_>, Vec<_>) = tables
            .flat_map(|matched| {
                matched.relations(publishes_leaves).into_iter().map(|relation| (&matched.table, relation))
            })
            .unzip();
        let roots: FxHashMap<Oid, &PublishedTable> = relations.iter().map(|(oid, _)| *oid).zip(roots).collect();
        let mut unfit = Vec::new();
        for relations in relations.chunks(DESCRIBED_MAX) {
            for described in describe(catalog, relations, sent).await? {
                if let Err(error) = described.plan(&self.shaping, &self.naming)
                    && let Some(root) = roots.get(&described.relation.id)
                {
                    unfit.push(((*root).clone(), failures::of_plan(error)));
                }
            }
        }
        Ok(unfit)
    }
}

/// Those of the new tables whose topic is not theirs alone. Of two that are new neither has it: it is not for the order of their names to say
/// which of them is meant.
fn shared_topics<'a>(
    owners: impl Iterator<Item = &'a TopicOwner>,
    new: &BTreeSet<&PublishedTable>,
    side_topics: &SideTopics,
) -> Unfit {
    let mut tables: BTreeMap<&str, Vec<&TopicOwner>> = BTreeMap::new();
    for owner in owners {
        for topic in &owner.topics {
            tables.entry(topic).or_default().push(owner);
        }
    }
    let mut unfit = Vec::new();
    for (topic, owners) in tables {
        let purpose = side_topics.purpose(topic).map(|purpose| format!("it would be {purpose}"));
        for owner in owners.iter().filter(|owner| new.contains(&owner.root)) {
            let other = || owners.iter().map(|other| &other.table).filter(|other| **other != owner.table).min();
            let shared = || Some(format!("it is the topic of table {} too", other()?));
            if let Some(found) = purpose.clone().or_else(shared) {
                let found = format!("the topic of {}: {found}", owner.table);
                unfit.push((owner.root.clone(), Failure::new(Code::SchemaUnrepresentable, found).for_topic(topic)));
            }
        }
    }
    unfit
}

fn names(unfit: &Unfit) -> BTreeSet<&PublishedTable> {
    unfit.iter().map(|(table, _)| table).collect()
}

fn still_fit<'a>(new: &'a [PublishedTable], unfit: &Unfit) -> BTreeSet<&'a PublishedTable> {
    let unfit = names(unfit);
    new.iter().filter(|table| !unfit.contains(table)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> PublishedTable {
        PublishedTable { schema: "public".into(), name: name.into() }
    }

    /// Those of the new tables that are unfit, with what is said of them.
    fn clashes(topics: &[(&str, &[&str])], new: &[&str]) -> Vec<String> {
        let text = "name = \"shop\"\n[postgres]\nurl = \"postgres://ann@db/shop\"\ntables = [\"*.*\"]\n\
                    [kafka]\nbootstrap_servers = \"kafka:9092\"\ncheckpoint_topic = \"positions\"\n\
                    [events]\ntransaction_topic = true\n";
        let config = Config::parse(text, []).unwrap_or_else(|error| panic!("{error}"));
        let owner = |(name, topics): &(&str, &[&str])| TopicOwner {
            root: table(name.split('/').next().unwrap_or_default()),
            table: (*name).to_owned(),
            topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        };
        let owners: Vec<_> = topics.iter().map(owner).collect();
        let new: Vec<_> = new.iter().map(|name| table(name)).collect();
        let unfit = shared_topics(owners.iter(), &new.iter().collect(), &SideTopics::new(&config));
        unfit.into_iter().map(|(table, failure)| format!("{} {}", table.name, failure.found())).collect()
    }

    #[test]
    fn a_new_table_does_not_take_the_topic_of_another() {
        assert!(clashes(&[("a", &["x"]), ("b", &["y"])], &["a", "b"]).is_empty());
        assert_eq!(
            clashes(&[("a", &["x"]), ("b", &["x"])], &["b"]),
            ["b the topic of b: it is the topic of table a too"]
        );
        assert_eq!(
            clashes(&[("a", &["x"]), ("b", &["x"])], &["a", "b"]),
            ["a the topic of a: it is the topic of table b too", "b the topic of b: it is the topic of table a too"],
            "it is for nobody here to say which"
        );
        assert_eq!(
            clashes(&[("a", &["x", "x.dead-letters"]), ("b", &["x.dead-letters"])], &["b"]),
            ["b the topic of b: it is the topic of table a too"]
        );
        assert!(
            clashes(&[("a", &["x"]), ("b", &["x"])], &[]).is_empty(),
            "the stream says so where both are published"
        );
    }

    #[test]
    fn nor_one_that_is_for_no_table() {
        assert_eq!(clashes(&[("a", &["positions"])], &["a"]), ["a the topic of a: it would be the checkpoint topic"]);
        assert_eq!(
            clashes(&[("a", &["shop.transaction"])], &["a"]),
            ["a the topic of a: it would be the topic of transactions"]
        );
    }

    #[test]
    fn one_leaf_keeps_its_root_out() {
        let topics: &[(&str, &[&str])] = &[("a/1", &["x"]), ("a/2", &["y"]), ("b", &["y"])];
        assert_eq!(clashes(topics, &["a"]), ["a the topic of a/2: it is the topic of table b too"]);
    }
}
