//! `pgsluice setup`: the SQL that gives the stream's role what it needs in PostgreSQL, and nothing more.
//!
//! Whoever administers the database runs it, so that the stream's own role neither owns a table nor may create anything: the publication is the
//! administrator's, and holds the tables already when the stream looks at it. What is there is not asked for again, so that a
//! second run prints nothing to do. Tables whose UPDATE and DELETE would fail once they are published are left out, and named.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
};

use clap::Args;
use postgres_protocol::escape::escape_identifier;
use walreceiver::ConnectOptions;

use super::{ConfigFile, runtime};
use crate::{
    catalog::{
        Catalog, Hosting, LOGICAL, MatchedTable, PublicationShape, PublishedTable, ReplicationRole, TablePrivileges,
    },
    config::Config,
    failure::{Code, Failure},
    failures,
};

/// So many tables are granted by one statement.
const TABLES_PER_STATEMENT: usize = 50;

/// Print the SQL that gives the stream's role what it needs in PostgreSQL, or run it.
///
/// It asks the server what is lacking, as the role of --as, and changes nothing without --apply.
#[derive(Debug, Args)]
pub(super) struct Setup {
    #[command(flatten)]
    config: ConfigFile,
    /// The connection URL of somebody who may grant: a superuser, or the owner of the database and the tables. The stream's own if it is not given.
    #[arg(long = "as", value_name = "URL", env = "PGSLUICE_SETUP_URL", hide_env_values = true)]
    as_url: Option<String>,
    /// Run it, all or nothing.
    #[arg(long)]
    apply: bool,
}

/// What is to be done: statements, and what no statement here can do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    statements: Vec<String>,
    notes: Vec<String>,
}

/// What the server says of what is wanted.
struct Found {
    database: String,
    role: String,
    is: Option<ReplicationRole>,
    hosting: Hosting,
    wal_level: String,
    /// What the role lacks of each table.
    tables: Vec<TablePrivileges>,
    /// The statements that make the publication fit.
    publication: Vec<String>,
    /// Tables that are not published, with the reason.
    without_identity: Vec<(PublishedTable, String)>,
    /// The slot, if somebody has to create it.
    slot: Option<String>,
}

impl Setup {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let config = self.config.load()?;
        let runtime = runtime()?;
        let text = runtime.block_on(self.set_up(&config))?;
        match io::stdout().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::caused(Code::Internal, error)),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    async fn set_up(&self, config: &Config) -> Result<String, Failure> {
        let options = match &self.as_url {
            Some(url) => {
                let options: ConnectOptions = url.parse().map_err(|error| failures::of_walreceiver(&error))?;
                // It is the same server, over the same network.
                options.with_plaintext_credentials(config.postgres.connect.allows_plaintext_credentials())
            }
            None => config.postgres.connect.clone(),
        };
        let database = config.postgres.connect.database();
        if options.database() != database {
            let found = format!(
                "--as, or PGSLUICE_SETUP_URL, names database {}, and the stream's is {database}",
                options.database()
            );
            return Err(Failure::new(Code::ArgumentInvalid, found));
        }
        let options = Arc::new(options);
        let mut catalog = Catalog::new(Arc::clone(&options));
        catalog.connect_read_only().await?;
        let plan = Plan::of(&look(&mut catalog, config).await?);
        if self.apply && !plan.statements.is_empty() {
            // The first one may change nothing.
            Catalog::new(options).set_up(&plan.statements).await?;
        }
        Ok(plan.text(config, self.apply))
    }
}

async fn look(catalog: &mut Catalog, config: &Config) -> Result<Found, Failure> {
    let postgres = &config.postgres;
    let role = postgres.connect.user().to_owned();
    let is = catalog.replication_role(&role).await?;
    let matched = catalog.matching_tables(&postgres.tables).await?;
    let readable: Vec<PublishedTable> = matched.iter().flat_map(MatchedTable::with_leaves).cloned().collect();
    let asked = if is.is_some() {
        catalog.table_privileges(&role, &readable).await?
    } else {
        let lacking = |table: &PublishedTable| TablePrivileges {
            table: table.clone(),
            may_use_schema: false,
            may_select: false,
            is_owner: false,
            owner: String::new(),
        };
        readable.iter().map(lacking).collect()
    };
    let roots: Vec<PublishedTable> = matched.iter().map(|table| table.table.clone()).collect();
    let without = catalog.tables_without_identity(&roots).await?;
    let unfit: BTreeSet<&PublishedTable> = without.iter().map(|found| &found.root).collect();
    let fit: Vec<_> = matched.into_iter().filter(|table| !unfit.contains(&table.table)).collect();
    let shape = PublicationShape::of(postgres);
    // Where it holds all tables, it cannot be narrowed.
    let plan = catalog.publication_plan(&postgres.publication, &fit, shape).await?;
    let settings = catalog.server_settings().await?;
    let slot = catalog.slot_state(&postgres.slot).await?;
    Ok(Found {
        database: postgres.connect.database().to_owned(),
        role,
        is,
        hosting: catalog.hosting().await?,
        wal_level: settings.wal_level,
        tables: asked,
        publication: plan.statements(),
        without_identity: without.into_iter().map(|found| (found.table, found.reason)).collect(),
        slot: (!postgres.manage && slot.is_none()).then(|| postgres.slot.clone()),
    })
}

impl Plan {
    fn of(found: &Found) -> Self {
        let mut plan = Self::default();
        plan.role(found);
        plan.tables(found);
        plan.statements.extend(found.publication.iter().cloned());
        plan.server(found);
        plan
    }

    fn role(&mut self, Found { database, role, is, hosting, .. }: &Found) {
        let name = escape_identifier(role);
        let may = is.unwrap_or(ReplicationRole { may_log_in: true, may_replicate: false, may_connect: false });
        let is_rds = *hosting == Hosting::AmazonRds;
        if is.is_none() {
            let attributes = if is_rds { "LOGIN" } else { "LOGIN REPLICATION" };
            self.statements.push(format!("CREATE ROLE {name} {attributes}"));
            self.notes.push(format!(
                "give the role a password, with \\password {role} in psql, and put it into postgres.password_file"
            ));
        } else {
            if !may.may_log_in {
                self.statements.push(format!("ALTER ROLE {name} LOGIN"));
            }
            if !may.may_replicate && !is_rds {
                self.statements.push(hosting.let_replicate(role));
            }
        }
        if !may.may_replicate && is_rds {
            self.statements.push(hosting.let_replicate(role));
        }
        if !may.may_connect {
            self.statements.push(format!("GRANT CONNECT ON DATABASE {} TO {name}", escape_identifier(database)));
        }
    }

    fn tables(&mut self, Found { role, tables, without_identity, .. }: &Found) {
        let name = escape_identifier(role);
        let lacking = tables.iter().filter(|table| !table.may_use_schema);
        let schemas: BTreeSet<&str> = lacking.map(|table| table.table.schema.as_str()).collect();
        if !schemas.is_empty() {
            let schemas: Vec<String> = schemas.into_iter().map(escape_identifier).collect();
            self.statements.push(format!("GRANT USAGE ON SCHEMA {} TO {name}", schemas.join(", ")));
        }
        let unread: Vec<String> =
            tables.iter().filter(|table| !table.may_select).map(|table| table.table.quoted()).collect();
        for tables in unread.chunks(TABLES_PER_STATEMENT) {
            self.statements.push(format!("GRANT SELECT ON TABLE {} TO {name}", tables.join(", ")));
        }
        for (table, reason) in without_identity {
            let quoted = table.quoted();
            self.notes.push(format!(
                "{table} is not published: {reason}, and its own UPDATE and DELETE would fail. ALTER TABLE {quoted} ADD PRIMARY KEY (...), \
                 or ALTER TABLE {quoted} REPLICA IDENTITY FULL; then run this again"
            ));
        }
    }

    fn server(&mut self, Found { hosting, wal_level, slot, .. }: &Found) {
        if wal_level != "logical" {
            self.notes.push(format!("wal_level is {wal_level}: {}", hosting.set(&LOGICAL)));
        }
        if let Some(slot) = slot {
            self.notes.push(format!(
                "postgres.manage is false, so that somebody has to create the slot, once the publication is there: \
                 SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput'); start once with --adopt-slot then"
            ));
        }
    }

    fn text(&self, config: &Config, is_applied: bool) -> String {
        self.text_for(config.postgres.connect.user(), config.postgres.connect.database(), is_applied)
    }

    fn text_for(&self, role: &str, database: &str, is_applied: bool) -> String {
        let mut text = match (self.statements.is_empty(), is_applied) {
            (true, _) => comment(&format!("Role {role} has all that it needs in database {database}.")),
            (false, true) => comment(&format!("Done, in database {database}:")),
            (false, false) => comment(&format!(
                "What role {role} lacks in database {database}. Run it there as a superuser, or as the owner of what it names; or let\n\
                 `pgsluice setup --apply` do it, with that role's connection URL in PGSLUICE_SETUP_URL."
            )),
        };
        for statement in &self.statements {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{statement};");
        }
        for note in &self.notes {
            text.push_str(&comment(&format!("{note}.")));
        }
        text
    }
}

/// A comment in SQL. Whoever may create a table may put the end of a line into its name, and what is behind it would be run by somebody who
/// may do more: so every line is one of the comment.
fn comment(said: &str) -> String {
    let mut text = String::new();
    for line in said.split(['\n', '\r']) {
        let _ = writeln!(text, "-- {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(hosting: Hosting) -> Found {
        let table = |name: &str, may_use_schema, may_select| TablePrivileges {
            table: PublishedTable { schema: "public".into(), name: name.into() },
            may_use_schema,
            may_select,
            is_owner: false,
            owner: "owner".into(),
        };
        Found {
            database: "shop".into(),
            role: "cdc".into(),
            is: None,
            hosting,
            wal_level: "logical".into(),
            tables: vec![table("a", false, false), table("it's \"b\"", false, false), table("c", true, true)],
            publication: vec!["CREATE PUBLICATION".into()],
            without_identity: Vec::new(),
            slot: None,
        }
    }

    #[test]
    fn nothing_more_is_granted_than_is_lacking() {
        let mut found = found(Hosting::Own);
        assert_eq!(
            Plan::of(&found).statements,
            [
                "CREATE ROLE \"cdc\" LOGIN REPLICATION",
                "GRANT CONNECT ON DATABASE \"shop\" TO \"cdc\"",
                "GRANT USAGE ON SCHEMA \"public\" TO \"cdc\"",
                "GRANT SELECT ON TABLE \"public\".\"a\", \"public\".\"it's \"\"b\"\"\" TO \"cdc\"",
                "CREATE PUBLICATION",
            ]
        );
        found.is = Some(ReplicationRole { may_log_in: false, may_replicate: false, may_connect: true });
        found.tables.truncate(0);
        found.publication.clear();
        assert_eq!(Plan::of(&found).statements, ["ALTER ROLE \"cdc\" LOGIN", "ALTER ROLE \"cdc\" REPLICATION"]);
        found.is = Some(ReplicationRole { may_log_in: true, may_replicate: true, may_connect: true });
        assert_eq!(Plan::of(&found), Plan::default());
    }

    #[test]
    fn those_who_run_servers_for_others_have_their_own_ways() {
        let mut found = found(Hosting::AmazonRds);
        let plan = Plan::of(&found);
        assert_eq!(plan.statements[..2], ["CREATE ROLE \"cdc\" LOGIN", "GRANT rds_replication TO \"cdc\""]);
        found.wal_level = "replica".into();
        for (hosting, how) in [
            (Hosting::Own, "ALTER SYSTEM"),
            (Hosting::AmazonRds, "rds.logical_replication"),
            (Hosting::CloudSql, "cloudsql.logical_decoding"),
            (Hosting::Azure, "--name wal_level --value logical"),
        ] {
            found.hosting = hosting;
            assert!(Plan::of(&found).notes.iter().any(|note| note.contains(how)), "{hosting:?}");
        }
    }

    #[test]
    fn many_tables_are_many_statements() {
        let mut found = found(Hosting::Own);
        let table = found.tables.swap_remove(0);
        found.tables = vec![table; 120];
        let grants = Plan::of(&found).statements.into_iter().filter(|statement| statement.contains("GRANT SELECT"));
        assert_eq!(grants.count(), 3);
    }

    #[test]
    fn no_name_ends_a_comment() {
        let name = "x\nALTER ROLE mallory SUPERUSER; --\rDROP TABLE a; --\r\nDROP TABLE b; --";
        let mut found = found(Hosting::Own);
        found.role = name.into();
        found.tables.clear();
        found.publication.clear();
        let table = PublishedTable { schema: name.into(), name: name.into() };
        found.without_identity = vec![(table, "it has no key".into())];
        let Plan { notes, .. } = Plan::of(&found);
        assert_eq!(notes.len(), 2, "{notes:?}");
        for statements in [Vec::new(), vec!["SELECT 1".to_owned()]] {
            let plan = Plan { statements, notes: notes.clone() };
            for is_applied in [false, true] {
                let text = plan.text_for(name, name, is_applied);
                let bare: Vec<&str> = text.split(['\n', '\r']).filter(|line| !line.starts_with("--")).collect();
                let expected: &[&str] = if plan.statements.is_empty() { &[""] } else { &["SELECT 1;", ""] };
                assert_eq!(bare, expected, "{text}");
            }
        }
    }
}
