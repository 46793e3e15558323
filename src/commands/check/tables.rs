//! The tables, and the publication that holds them.

use std::collections::BTreeSet;

use pgoutput::Oid;
use postgres_protocol::escape::escape_identifier;

use super::{
    id::{CheckId, Id},
    postgres::Session,
    report::{Findings, Problem, Severity, grouped, some_of},
};
use crate::{
    catalog::{MatchedTable, PublicationPlan, PublicationShape, PublishedTable, TablePrivileges},
    config::{TablePattern, TableSelection},
    failure::{Code, Failure},
    pipeline::{self, Described, SentColumns},
};

/// So many tables are named one by one; of the others there is a count.
const NAMED_MAX: usize = 20;

/// The tables that are asked for.
pub(super) struct Tables {
    matched: Vec<MatchedTable>,
}

impl Tables {
    /// Finds them, and notes each pattern that matches nothing.
    pub(super) async fn find(session: &mut Session<'_>, findings: &mut Findings) -> Result<Self, Failure> {
        let selection = &session.config.postgres.tables;
        let only = |pattern: &TablePattern, exclude: &[TablePattern]| TableSelection {
            include: vec![pattern.clone()],
            exclude: exclude.to_vec(),
        };
        let mut matches_nothing = Vec::new();
        for pattern in &selection.include {
            if match_tables(session, &only(pattern, &selection.exclude)).await?.is_empty() {
                matches_nothing.push((pattern, "postgres.tables"));
            }
        }
        for pattern in &selection.exclude {
            if match_tables(session, &only(pattern, &[])).await?.is_empty() {
                matches_nothing.push((pattern, "postgres.exclude_tables"));
            }
        }
        let matched = match_tables(session, selection).await?;
        for (pattern, key) in matches_nothing {
            let problem = unmatched(session, pattern, key).await?;
            // A pattern with a star may be there for tables to come, as long as there is anything to stream meanwhile.
            let severity = match pattern.literal() {
                None if !matched.is_empty() => Severity::Warning,
                _ => Severity::Error,
            };
            findings.about(severity, pattern, problem);
        }
        if !matched.is_empty() {
            let tables: Vec<_> = matched.iter().map(|matched| &matched.table).collect();
            findings.ok(CheckId::Tables, format!("{}: {}", tables.len(), some_of(&tables, 5)));
        }
        Ok(Self { matched })
    }

    /// What the role lacks on them.
    pub(super) async fn privileges(&self, session: &mut Session<'_>, findings: &mut Findings) -> Result<(), Failure> {
        let tables = self.with_leaves();
        let privileges = session.catalog.table_privileges(&session.role.name, &tables).await?;
        let role = escape_identifier(&session.role.name);
        let schemas: BTreeSet<_> =
            privileges.iter().filter(|table| !table.may_use_schema).map(|table| table.table.schema.clone()).collect();
        let unread: Vec<_> = privileges.iter().filter(|table| !table.may_select).map(|table| &table.table).collect();
        if schemas.is_empty() && unread.is_empty() {
            if !tables.is_empty() {
                findings.ok(CheckId::TablePrivileges, "USAGE on the schemas and SELECT on the tables");
            }
            return Ok(());
        }
        let mut lacking = Vec::new();
        let mut statements = Vec::new();
        if !schemas.is_empty() {
            let schemas: Vec<_> = schemas.iter().map(|schema| escape_identifier(schema)).collect();
            lacking.push(format!("USAGE on schema {}", some_of(&schemas, 5)));
            statements.push(format!("GRANT USAGE ON SCHEMA {} TO {role};", schemas.join(", ")));
        }
        if !unread.is_empty() {
            lacking.push(format!("SELECT on {}", some_of(&unread, 5)));
            let tables: Vec<_> = unread.iter().take(NAMED_MAX).map(|table| table.quoted()).collect();
            let more = if unread.len() > NAMED_MAX { " and so on for each" } else { "" };
            statements.push(format!("GRANT SELECT ON TABLE {} TO {role};{more}", tables.join(", ")));
        }
        findings.warning(Problem {
            id: CheckId::TablePrivileges.into(),
            found: format!("role {} lacks {}", session.role.name, lacking.join(", and ")),
            why: "the stream does not need it, and a copy of the rows that are there already will".into(),
            fix: statements.join(" "),
        });
        Ok(())
    }

    /// Whether the publication holds them, or could be made to, and what that would break.
    pub(super) async fn publication(
        &self,
        session: &mut Session<'_>,
        findings: &mut Findings,
    ) -> Result<PublicationPlan, Failure> {
        let postgres = &session.config.postgres;
        let name = &postgres.publication;
        let plan = session.catalog.publication_plan(name, &self.matched, PublicationShape::of(postgres)).await?;
        self.identities(session, &plan, findings).await?;
        if let Err(failure) = pipeline::excluded_partitions(postgres, &self.matched, &plan) {
            findings.error(Problem {
                id: failure.code().into(),
                found: failure.found().to_owned(),
                why: "rows that are to be left out cannot be told from the others, and run refuses to start".into(),
                fix: "take it out of postgres.exclude_tables; or set postgres.publish_via_partition_root = false, so that each partition has a topic".into(),
            });
        }
        if !postgres.manage {
            self.unmanaged(session, &plan, findings);
        } else if self.matched.is_empty() {
            // That no table matches has been said, and nothing can be made of none.
        } else if plan.statements().is_empty() {
            findings.ok(CheckId::Publication, format!("{name} holds the tables"));
        } else if self.may_change(session, &plan, findings).await? {
            let first = if findings.has(Code::ReplicaIdentityMissing) {
                "once every table has a replica identity, run executes"
            } else {
                "run executes"
            };
            findings.ok(CheckId::Publication, format!("{first}: {}", shortened(&plan.statements().join("; "))));
        }
        Ok(plan)
    }

    /// Which of them would break the application's own UPDATE and DELETE, or do so already.
    async fn identities(
        &self,
        session: &mut Session<'_>,
        plan: &PublicationPlan,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        let publishes_changes = plan.existing.as_ref().is_none_or(|publication| {
            session.config.postgres.manage
                || !["update", "delete"].iter().all(|operation| publication.unpublished_operations.contains(operation))
        });
        if !publishes_changes {
            return Ok(());
        }
        let tables = self.roots();
        let without = session.catalog.tables_without_identity(&tables).await?;
        if without.is_empty() {
            if !tables.is_empty() {
                findings.ok(CheckId::ReplicaIdentity, "every table has one");
            }
            return Ok(());
        }
        for found in without.iter().take(NAMED_MAX) {
            let is_new = plan
                .existing
                .as_ref()
                .is_none_or(|publication| !publication.all_tables && !publication.tables.contains(&found.table));
            let why = if is_new {
                "as soon as it is published, the application's own UPDATE and DELETE on it fail"
            } else {
                "it is published, so the application's own UPDATE and DELETE on it fail already"
            };
            let table = found.table.quoted();
            findings.about(
                Severity::Error,
                &found.table,
                Problem {
                    id: Code::ReplicaIdentityMissing.into(),
                    found: found.reason.clone(),
                    why: why.into(),
                    fix: format!(
                        "ALTER TABLE {table} ADD PRIMARY KEY (...); or ALTER TABLE {table} REPLICA IDENTITY FULL; or leave it out of \
                         postgres.tables"
                    ),
                },
            );
        }
        if without.len() > NAMED_MAX {
            findings.error(Problem {
                id: Code::ReplicaIdentityMissing.into(),
                found: format!("{} more tables have no replica identity", without.len() - NAMED_MAX),
                why: "the application's own UPDATE and DELETE on them fail once they are published".into(),
                fix: "mend those above, and run the check again".into(),
            });
        }
        Ok(())
    }

    /// Those that a publication which run may not change does not hold.
    pub(super) async fn unpublished(
        &self,
        session: &mut Session<'_>,
        plan: &PublicationPlan,
    ) -> Result<BTreeSet<Oid>, Failure> {
        if session.config.postgres.manage || plan.existing.is_none() {
            return Ok(BTreeSet::new());
        }
        let tables = pipeline::publishable(&self.matched);
        let held = session.catalog.held_tables(&plan.name, &tables).await?;
        Ok(tables.into_iter().filter(|table| !held.contains(table)).collect())
    }

    /// The tables as their Relation messages would describe them, each with what the catalog knows besides.
    pub(super) async fn describe(
        &self,
        session: &mut Session<'_>,
        plan: &PublicationPlan,
        described: &mut Vec<Described>,
    ) -> Result<(), Failure> {
        let postgres = &session.config.postgres;
        // As the publication will be: as it is, unless it would be made to fit.
        let existing = plan.existing.as_ref().filter(|_| !postgres.manage || plan.statements().is_empty());
        let via_root = existing.map_or(postgres.publish_via_partition_root, |publication| publication.via_root);
        let columns = match existing {
            Some(_) => session.catalog.published_columns(&postgres.publication).await?,
            None => std::collections::BTreeMap::new(),
        };
        // What has no partitions yet will have some like itself.
        let of_table = |matched: &MatchedTable| match matched.relations(!via_root) {
            none if none.is_empty() => matched.relations(false),
            relations => relations,
        };
        let relations: Vec<_> = self.matched.iter().flat_map(of_table).collect();
        let sent = SentColumns { of_tables: &columns, generated: postgres.publish_generated_columns };
        described.extend(pipeline::describe(&mut session.catalog, &relations, sent).await?);
        Ok(())
    }

    fn unmanaged(&self, session: &Session<'_>, plan: &PublicationPlan, findings: &mut Findings) {
        let name = &session.config.postgres.publication;
        match (&plan.unfit, &plan.existing) {
            (Some(failure), _) => {
                let statement = match &plan.existing {
                    None if self.matched.is_empty() => {
                        format!("CREATE PUBLICATION {} FOR TABLE ...", escape_identifier(name))
                    }
                    None => plan.statements().join("; "),
                    Some(_) => format!(
                        "ALTER PUBLICATION {} ADD TABLE {}",
                        escape_identifier(name),
                        plan.new_tables.iter().map(PublishedTable::quoted).collect::<Vec<_>>().join(", ")
                    ),
                };
                let found = match &plan.existing {
                    None => format!("publication {name} does not exist"),
                    Some(_) => format!("publication {name} lacks {}", some_of(&plan.new_tables, 5)),
                };
                findings.error(Problem {
                    id: failure.code().into(),
                    found,
                    why: failure.code().meaning().into(),
                    fix: format!("as the owner of the tables: {statement}; or set postgres.manage = true"),
                });
            }
            (None, Some(publication)) if !publication.unpublished_operations.is_empty() => findings.warning(Problem {
                id: CheckId::PublicationOperations.into(),
                found: format!("publication {name} leaves out {}", publication.unpublished_operations.join(", ")),
                why: "what it leaves out never comes to Kafka, and topics no longer say what the tables do".into(),
                fix: format!(
                    "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate')",
                    escape_identifier(name)
                ),
            }),
            (None, _) => findings.ok(CheckId::Publication, format!("{name} holds the tables")),
        }
    }

    /// Whether the role may execute the statements of the plan.
    async fn may_change(
        &self,
        session: &mut Session<'_>,
        plan: &PublicationPlan,
        findings: &mut Findings,
    ) -> Result<bool, Failure> {
        let id = Id::from(CheckId::PublicationPrivilege);
        let name = &session.config.postgres.publication;
        let role = escape_identifier(&session.role.name);
        let by_hand = format!(
            "or have their owner do it, and set postgres.manage = false: {}",
            shortened(&plan.statements().join("; "))
        );
        if plan.existing.is_none() && !session.role.may_create_in_database {
            findings.error(Problem {
                id,
                found: format!("role {} lacks CREATE on database {}", session.role.name, session.options.database()),
                why: format!("publication {name} does not exist, and run cannot create it"),
                fix: format!(
                    "GRANT CREATE ON DATABASE {} TO {role}; {by_hand}",
                    escape_identifier(session.options.database())
                ),
            });
        }
        if let Some(owner) = session.catalog.foreign_publication_owner(name).await? {
            findings.error(Problem {
                id,
                found: format!(
                    "publication {name} belongs to {owner}, and role {} may not alter it",
                    session.role.name
                ),
                why: "it does not hold what is asked for, and run cannot make it".into(),
                fix: format!("ALTER PUBLICATION {} OWNER TO {role}; {by_hand}", escape_identifier(name)),
            });
        }
        let privileges = session.catalog.table_privileges(&session.role.name, &plan.new_tables).await?;
        let foreign = privileges.iter().filter(|table| !table.is_owner).map(|table| (table.owner.clone(), table));
        for (owner, tables) in grouped(foreign) {
            let tables: Vec<_> = tables.iter().map(|TablePrivileges { table, .. }| table).collect();
            findings.error(Problem {
                id,
                found: format!("{} belong{} to {owner}", some_of(&tables, 5), if tables.len() == 1 { "s" } else { "" }),
                why: format!("only an owner may add a table to a publication, and role {} is none", session.role.name),
                fix: format!("GRANT {} TO {role}; {by_hand}", escape_identifier(&owner)),
            });
        }
        Ok(!findings.has(id))
    }

    fn roots(&self) -> Vec<PublishedTable> {
        self.matched.iter().map(|matched| matched.table.clone()).collect()
    }

    fn with_leaves(&self) -> Vec<PublishedTable> {
        self.matched.iter().flat_map(MatchedTable::with_leaves).cloned().collect()
    }
}

async fn match_tables(session: &mut Session<'_>, selection: &TableSelection) -> Result<Vec<MatchedTable>, Failure> {
    match session.catalog.matching_tables(selection).await {
        Err(failure) if failure.code() == Code::TablesMissing => Ok(Vec::new()),
        outcome => outcome,
    }
}

async fn unmatched(session: &mut Session<'_>, pattern: &TablePattern, key: &str) -> Result<Problem, Failure> {
    let is_exclusion = key != "postgres.tables";
    let mut found = format!("no table of database {} matches", session.options.database());
    if !is_exclusion && !session.config.postgres.tables.exclude.is_empty() {
        found += " that is not left out by postgres.exclude_tables";
    }
    let mut fix = format!(
        "correct the pattern in {key}: it is schema.table, names are as the catalog has them, and * stands for any characters"
    );
    if let Some((schema, name)) = pattern.literal() {
        let misses = session.catalog.near_misses(schema, name).await?;
        if let Some(unfit) = misses.iter().find_map(|miss| Some((&miss.table, miss.unfit?))) {
            found = format!("{} is {}, which cannot be published", unfit.0.name, unfit.1);
            fix = format!("take it out of {key}");
        } else if let Some(miss) = misses.first() {
            fix = format!("did you mean {}? correct the pattern in {key}", miss.table);
        }
    }
    let why = if is_exclusion {
        "what it was to leave out is streamed"
    } else {
        "nothing is streamed for it, without a word"
    };
    Ok(Problem { id: CheckId::PatternUnmatched.into(), found, why: why.into(), fix })
}

/// A statement about hundreds of tables is not read by anybody.
fn shortened(statement: &str) -> String {
    const CHARACTERS_MAX: usize = 400;
    match statement.char_indices().nth(CHARACTERS_MAX) {
        None => statement.to_owned(),
        Some((end, _)) => format!("{} ...", &statement[..end]),
    }
}
