//! The plans that the stream would compile, so that what cannot be written is known before the first row.

use std::collections::{BTreeMap, BTreeSet};

use encoder::{EncodeOptions, Naming, PlanError, TableFacts, TablePlan, TypeKind};
use pgoutput::{Oid, Relation};
use postgres_protocol::escape::escape_identifier;
use serde_json::Value;

use super::{
    id::CheckId,
    report::{Findings, Problem, Severity, grouped, some_of},
};
use crate::{
    config::{ColumnPattern, Config, OnIncompatible, Shaping, TablePattern},
    failure::Code,
    pipeline::{Described, SideTopics},
};

/// The plans of all tables for which there can be one.
pub(super) struct Schemas {
    plans: Vec<TablePlan>,
    /// How many partitions a topic is to have, where that is otherwise for its table.
    partitions: BTreeMap<String, i32>,
    /// Tables of which the others do not wait for the registry.
    held_back: BTreeSet<String>,
}

impl Schemas {
    /// Compiles them, and notes what stands in the way.
    pub(super) fn compile(
        config: &Config,
        database: &str,
        tables: &[Described],
        unpublished: &BTreeSet<Oid>,
        findings: &mut Findings,
    ) -> Self {
        let naming = Naming::new(config.name.as_str(), database);
        let (mut plans, mut partitions, mut held_back) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        let mut keyless = Vec::new();
        let shaping = Shaping::new(config);
        unmatched_tables(config, tables, findings);
        unmatched_columns(config, tables, findings);
        for described in tables {
            let Described { relation, identity, facts } = described;
            let table = format!("{}.{}", relation.schema, relation.name);
            let plan = match described.plan(&shaping, &naming) {
                Ok(plan) => plan,
                Err(error) => {
                    findings.about(Severity::Error, &table, uncompiled(relation, &error));
                    continue;
                }
            };
            if let Some(error) = plan.unfit() {
                let problem = uncompiled(relation, error);
                let why = format!(
                    "every change of it becomes a dead letter, as events.unrepresentable says: {}",
                    problem.why
                );
                findings.about(Severity::Warning, &table, Problem { why, ..problem });
            } else if !plan.has_key() {
                keyless.push(table.clone());
            }
            let options = shaping.options(identity, relation.columns.iter().map(|column| column.name.as_str()));
            let text = columns_as_text(relation, facts, &naming, &options);
            if !text.is_empty() {
                findings
                    .ok(CheckId::ColumnsAsText, format!("{table}: {} come as PostgreSQL's text", some_of(&text, 8)));
            }
            partitions.extend(shaping.partitions(identity).map(|count| (plan.topic().to_string(), count)));
            if shaping.on_incompatible(identity) == OnIncompatible::Quarantine {
                held_back.insert(plan.table().to_owned());
            }
            plans.push(plan);
        }
        if !keyless.is_empty() {
            findings.warning(Problem {
                id: CheckId::TableWithoutKey.into(),
                found: format!("without a primary key, and so records without a key: {}", some_of(&keyless, 5)),
                why: "a consumer cannot tell which row a record is about, all of them go to one partition, and the topic cannot be \
                      compacted"
                    .into(),
                fix: "ALTER TABLE ... ADD PRIMARY KEY (...)".into(),
            });
        }
        let unpublished = tables.iter().filter(|table| unpublished.contains(&table.relation.id));
        let unpublished =
            unpublished.map(|Described { relation, .. }| format!("{}.{}", relation.schema, relation.name));
        collisions(config, &plans, &unpublished.collect(), findings);
        if !plans.is_empty() {
            findings.ok(CheckId::Schemas, format!("{} of {} tables can be written", plans.len(), tables.len()));
        }
        Self { plans, partitions, held_back }
    }

    /// How many partitions a topic is to have, where the configuration says so for its table.
    pub(super) fn partitions(&self, topic: &str) -> Option<i32> {
        self.partitions.get(topic).copied()
    }

    /// Whether a table goes into quarantine when its schemas are refused.
    pub(super) fn is_held_back(&self, table: &str) -> bool {
        self.held_back.contains(table)
    }

    /// Whether any table does.
    pub(super) fn may_hold_back(&self) -> bool {
        !self.held_back.is_empty()
    }

    /// The topics, each once, in order.
    pub(super) fn topics(&self) -> Vec<&str> {
        let mut topics: Vec<&str> = self.plans.iter().map(|plan| &**plan.topic()).collect();
        topics.sort_unstable();
        topics.dedup();
        topics
    }

    /// The subjects with their schemas, and the table of each.
    pub(super) fn subjects(&self) -> impl Iterator<Item = (String, String, &str)> {
        self.plans.iter().flat_map(|plan| {
            let key = plan
                .key_schema()
                .map(|schema| (format!("{}-key", plan.topic()), schema.json().to_owned(), plan.table()));
            let value = plan
                .value_schema()
                .map(|schema| (format!("{}-value", plan.topic()), schema.json().to_owned(), plan.table()));
            key.into_iter().chain(value)
        })
    }
}

/// What is otherwise for no table is most likely misspelt.
fn unmatched_tables(config: &Config, tables: &[Described], findings: &mut Findings) {
    if tables.is_empty() {
        return;
    }
    let means_any = |pattern: &TablePattern| {
        tables.iter().any(|table| table.identity.names.iter().any(|(schema, name)| pattern.matches(schema, name)))
    };
    for pattern in config.tables.iter().flat_map(|own| &own.tables).filter(|pattern| !means_any(pattern)) {
        let severity = if pattern.literal().is_some() { Severity::Error } else { Severity::Warning };
        let problem = Problem {
            id: CheckId::PatternUnmatched.into(),
            found: "no table that is streamed matches".into(),
            why: "what is to be otherwise for it is for no table".into(),
            fix: "correct the pattern in [[tables]]: it is schema.table, and names are as the catalog has them".into(),
        };
        findings.about(severity, pattern, problem);
    }
}

/// A pattern that means no column is most likely misspelt, and what it was to hide is written.
fn unmatched_columns(config: &Config, tables: &[Described], findings: &mut Findings) {
    let means_any = |pattern: &ColumnPattern| {
        tables
            .iter()
            .any(|table| table.relation.columns.iter().any(|column| pattern.matches(&table.identity, &column.name)))
    };
    if tables.is_empty() {
        return;
    }
    for (key, pattern) in config.columns.patterns().filter(|(_, pattern)| !means_any(pattern)) {
        let severity = if pattern.is_literal() { Severity::Error } else { Severity::Warning };
        let problem = Problem {
            id: CheckId::PatternUnmatched.into(),
            found: "no column of the tables that are streamed matches".into(),
            why: "what it was to say is not said of any column, and a value that was to be hidden is written".into(),
            fix: format!(
                "correct the pattern in {key}: it is schema.table.column, names are as the catalog has them, and * stands for any characters"
            ),
        };
        findings.about(severity, pattern, problem);
    }
}

fn uncompiled(relation: &Relation, error: &PlanError) -> Problem {
    let (found, fix) = match error {
        PlanError::CollidingColumns { first, second, field, .. } => (
            format!("columns {first:?} and {second:?} both become the Avro field {field:?}"),
            format!(
                "events.names = \"avro_unicode\", which keeps names apart; or ALTER TABLE {}.{} RENAME COLUMN {} TO ...; or leave one out of the publication, or the table out of postgres.tables",
                escape_identifier(&relation.schema),
                escape_identifier(&relation.name),
                escape_identifier(second)
            ),
        ),
        PlanError::IllegalName { .. } => (
            error.to_string(),
            "events.names = \"avro\" or \"avro_unicode\"; or rename it, or leave the table out of postgres.tables"
                .to_owned(),
        ),
        PlanError::NoKey { .. } => (
            error.to_string(),
            "ALTER TABLE ... ADD PRIMARY KEY (...); or events.envelope = \"debezium\"; or leave the table out of postgres.tables".to_owned(),
        ),
        _ if error.is_about_column_rules() => (
            error.to_string(),
            "change the rules of [columns] for it, or leave the table out of postgres.tables".to_owned(),
        ),
        PlanError::KeyFormMerges { .. } => (
            error.to_string(),
            "leave out what [events] says of its type, so that it has upsert's own form".to_owned(),
        ),
        PlanError::KeyColumnMissing { .. } | PlanError::KeyColumnUnsent { .. } => (
            error.to_string(),
            "correct the key of the table in [[tables]]; or ALTER TABLE ... REPLICA IDENTITY FULL".to_owned(),
        ),
        PlanError::IllegalTopic { .. } => (error.to_string(), "correct kafka.topics.template or routes".to_owned()),
        PlanError::TopicTooLong { .. } => (
            error.to_string(),
            "set a shorter name, route it to a shorter topic, rename the table, or leave it out of postgres.tables"
                .to_owned(),
        ),
        _ => (error.to_string(), "leave the table out of postgres.tables, and report it: this is a defect".to_owned()),
    };
    Problem {
        id: if error.is_about_column_rules() { Code::ColumnRuleUnfit } else { Code::SchemaUnrepresentable }.into(),
        found,
        why: "the stream stops at the first change of this table".into(),
        fix,
    }
}

/// A table that is not published has no records, and so its topic is not in the way of others before it is.
fn collisions(config: &Config, plans: &[TablePlan], unpublished: &BTreeSet<String>, findings: &mut Findings) {
    let side_topics = SideTopics::new(config);
    for (topic, tables) in grouped(plans.iter().flat_map(|plan| plan.topics().map(|topic| (topic, plan.table())))) {
        let (silent, writing): (Vec<&str>, Vec<&str>) = tables.iter().partition(|table| unpublished.contains(**table));
        if writing.len() < 2 && tables.len() > 1 {
            let problem = Problem {
                id: CheckId::TopicCollision.into(),
                found: format!("{} would share this topic", some_of(&tables, 5)),
                why: format!(
                    "{} not published: as soon as two of them are, the stream stops, for records of different kinds in one topic cannot be told apart",
                    are(&silent)
                ),
                fix: "route one to another topic (kafka.topics.routes) before it is published, or leave it out (postgres.exclude_tables)".into(),
            };
            findings.about(Severity::Warning, topic, problem);
        }
        let Some(first) = writing.first() else { continue };
        let mut problem = |found: String| {
            let problem = Problem {
                id: CheckId::TopicCollision.into(),
                found,
                why: "records of different kinds in one topic cannot be told apart".into(),
                fix: "set another name, rename a table, route one to another topic (kafka.topics.routes), or leave one out of postgres.tables"
                    .into(),
            };
            findings.about(Severity::Error, topic, problem);
        };
        if writing.len() > 1 {
            problem(format!("{} would share this topic", some_of(&tables, 5)));
        }
        if let Some(purpose) = side_topics.purpose(topic) {
            problem(format!("it is {purpose} too, and the topic of {first}"));
        }
        if topic.starts_with("__") {
            problem(format!("names that start with __ are Kafka's own, and it is the topic of {first}"));
        }
    }
}

fn are(tables: &[&str]) -> String {
    format!("{} {}", some_of(tables, 5), if tables.len() == 1 { "is" } else { "are" })
}

/// Columns that are a plain string although PostgreSQL's type is no text, with their types.
fn columns_as_text(relation: &Relation, facts: &TableFacts, naming: &Naming, options: &EncodeOptions) -> Vec<String> {
    const TEXTS: &[&str] = &["text", "varchar", "bpchar", "name", "char", "citext", "unknown"];
    // What the configuration asks to have as text is no news.
    let unasked = EncodeOptions { names: options.names, ..EncodeOptions::default() };
    let plan = TablePlan::compile(relation, facts, naming, &unasked).ok();
    let schema = plan.and_then(|plan| serde_json::from_str(plan.value_schema()?.json()).ok());
    let Some(fields) = schema.and_then(|schema: Value| row_fields(&schema)) else { return Vec::new() };
    // The row's fields are the relation's columns in their order.
    // What has a rule is what the configuration makes of it.
    let is_unruled = |name: &str| !options.columns.contains_key(name);
    let columns = relation.columns.iter().zip(&fields).filter(|(_, field)| is_plain_string(&field["type"]));
    columns
        .filter(|(column, _)| is_unruled(&column.name))
        .filter_map(|(column, _)| facts.column(&column.name))
        .filter(|facts| !(TEXTS.contains(&facts.type_name.as_str()) && facts.type_kind != TypeKind::Composite))
        .map(|facts| match facts.type_name.strip_prefix('_') {
            Some(element) => format!("{} {element}[]", facts.name),
            None => format!("{} {}", facts.name, facts.type_name),
        })
        .collect()
}

/// The fields of the record in the envelope's `before`, which is where it is defined.
fn row_fields(schema: &Value) -> Option<Vec<Value>> {
    let before = schema["fields"].as_array()?.iter().find(|field| field["name"] == "before")?;
    let row = before["type"].as_array()?.iter().find(|branch| branch["type"] == "record")?;
    row["fields"].as_array().cloned()
}

fn is_plain_string(avro_type: &Value) -> bool {
    match avro_type {
        Value::String(name) => name == "string",
        Value::Array(branches) => branches.iter().any(is_plain_string),
        other => other["type"] == "string" && other.get("connect.name").is_none(),
    }
}

#[cfg(test)]
mod tests {
    use encoder::ColumnFacts;
    use pgoutput::{RelationColumn, ReplicaIdentity};

    use super::*;

    #[test]
    fn what_comes_as_text_is_told_from_what_is_text() {
        let types = [
            ("id", 23, "int4"),
            ("note", 25, "text"),
            ("tags", 1009, "_text"),
            ("area", 604, "polygon"),
            ("u", 2950, "uuid"),
        ];
        let relation = Relation {
            xid: None,
            id: Oid::from(1),
            schema: "public".into(),
            name: "t".into(),
            replica_identity: ReplicaIdentity::Default,
            columns: types
                .iter()
                .map(|(name, oid, _)| RelationColumn {
                    is_key: *name == "id",
                    name: (*name).into(),
                    type_oid: Oid::from(*oid),
                    type_modifier: -1,
                })
                .collect(),
        };
        let columns = types.iter().map(|(name, oid, type_name)| ColumnFacts::new(*name, Oid::from(*oid), *type_name));
        let facts = TableFacts { columns: columns.collect(), primary_key: None };
        let naming = Naming::new("shop", "app");
        for options in [EncodeOptions::default(), EncodeOptions::lossless()] {
            assert_eq!(columns_as_text(&relation, &facts, &naming, &options), ["area polygon"]);
        }
    }
}
