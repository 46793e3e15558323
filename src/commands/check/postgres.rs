//! PostgreSQL: both connections, and then what each of the other files looks at.

use std::{collections::BTreeSet, io, sync::Arc};

use pgoutput::Oid;
use walreceiver::{ConnectOptions, Error, Host, ReplicationClient, SslMode};

use super::{
    CONNECT_TIMEOUT, STEP_TIMEOUT,
    id::{CheckId, Id},
    kafka::HeldCheckpoint,
    report::{Findings, Problem, System, seconds_text},
    slot::SlotView,
    tables::Tables,
};
use crate::{
    catalog::{Catalog, Hosting, Role, ServerSettings, Wish},
    checkpoint::start::Wanted,
    config::{Config, SnapshotMode},
    failure::{Code, Failure},
    pipeline::Described,
};

/// What is known of PostgreSQL. Each step adds to the findings at once, so that they stay when it is given up.
pub(super) struct Postgres {
    pub(super) findings: Findings,
    /// The tables whose changes would be streamed, as their Relation messages would describe them.
    pub(super) described: Vec<Described>,
    /// Relations among them that are not published, and will not be by run.
    pub(super) unpublished: BTreeSet<Oid>,
    config: Arc<Config>,
    options: Arc<ConnectOptions>,
    /// The name that a running instance has in `pg_stat_replication`.
    stream_application: String,
    replication: Option<ReplicationClient>,
    slot: Option<SlotView>,
}

/// What the files that look at one thing need.
pub(super) struct Session<'a> {
    pub(super) config: &'a Config,
    pub(super) options: &'a ConnectOptions,
    pub(super) catalog: Catalog,
    pub(super) settings: ServerSettings,
    pub(super) role: Role,
    pub(super) hosting: Hosting,
}

impl Session<'_> {
    /// The major version.
    pub(super) fn major(&self) -> i32 {
        self.settings.version_num / 10_000
    }
}

impl Postgres {
    pub(super) fn new(config: Arc<Config>, options: &ConnectOptions) -> Self {
        let limit = options.connect_timeout().map_or(CONNECT_TIMEOUT, |limit| limit.min(CONNECT_TIMEOUT));
        let stream_application = options.application_name().to_owned();
        let options = options.clone().with_connect_timeout(limit).with_application_name("pgsluice check");
        Self {
            findings: Findings::new(System::Postgres),
            described: Vec::new(),
            unpublished: BTreeSet::new(),
            config,
            options: Arc::new(options),
            stream_application,
            replication: None,
            slot: None,
        }
    }

    /// Everything that PostgreSQL alone can tell.
    pub(super) async fn examine(&mut self) {
        let finished = tokio::time::timeout(STEP_TIMEOUT, self.examine_in_order()).await;
        self.settle(finished.map_err(|_elapsed| None).and_then(|outcome| outcome.map_err(Some)));
    }

    /// The slot beside the checkpoint, and both beside the server's own log.
    pub(super) async fn compare(&mut self, checkpoint: &HeldCheckpoint) {
        let (Some(slot), Some(client)) = (&self.slot, &mut self.replication) else { return };
        let wanted = Wanted {
            database: self.options.database().to_owned(),
            slot: self.config.postgres.slot.clone(),
            publication: self.config.postgres.publication.clone(),
            manage: self.config.postgres.manage,
            word: crate::checkpoint::start::OperatorWord::default(),
        };
        let is_anew = self.config.snapshot.mode == SnapshotMode::WhenNeeded;
        let comparing = slot.compare(&wanted, client, checkpoint, is_anew, &mut self.findings);
        let finished = tokio::time::timeout(STEP_TIMEOUT, comparing).await;
        self.settle(finished.map_err(|_elapsed| None).and_then(|outcome| outcome.map_err(Some)));
    }

    async fn examine_in_order(&mut self) -> Result<(), Failure> {
        let mut catalog = Catalog::new(Arc::clone(&self.options));
        // The catalog's own limit holds for each address and not for a server that accepts and says nothing.
        let limit = self.options.connect_timeout().unwrap_or(CONNECT_TIMEOUT);
        let (ordinary, replication) = tokio::join!(
            tokio::time::timeout(limit, catalog.connect_read_only()),
            ReplicationClient::connect(&self.options)
        );
        let ordinary = ordinary
            .map_err(|_elapsed| format!("{} did not answer within {}", self.options.server(), seconds_text(limit)))
            .and_then(|outcome| outcome.map_err(|failure| failure.found().to_owned()));
        let by_name = match self.options.host() {
            Host::Tcp(host) => Hosting::of_host(host),
            Host::Unix(_) => Hosting::Own,
        };
        // Behind a name of one's own, or an address, the server knows better.
        let hosting = match &ordinary {
            Ok(()) if by_name == Hosting::Own => catalog.hosting().await?,
            _ => by_name,
        };
        self.connections(&ordinary, replication, hosting);
        if ordinary.is_err() {
            return Ok(());
        }
        let (settings, role) = (catalog.server_settings().await?, catalog.role().await?);
        let mut session = Session { config: &self.config, options: &self.options, catalog, settings, role, hosting };
        super::server::examine(&mut session, &mut self.findings).await?;
        super::standby::examine(&mut session, self.replication.as_mut(), &mut self.findings).await?;
        let slot = SlotView::read(&mut session, &self.stream_application, &mut self.findings).await?;
        self.slot = Some(slot);
        let tables = Tables::find(&mut session, &mut self.findings).await?;
        tables.privileges(&mut session, &mut self.findings).await?;
        let publication = tables.publication(&mut session, &mut self.findings).await?;
        self.unpublished = tables.unpublished(&mut session, &publication).await?;
        tables.describe(&mut session, &publication, &mut self.described).await
    }

    /// Both connections may fail for one reason, and then it is one finding.
    fn connections(
        &mut self,
        ordinary: &Result<(), String>,
        replication: Result<ReplicationClient, Error>,
        hosting: Hosting,
    ) {
        let options = Arc::clone(&self.options);
        match replication {
            Ok(client) => {
                let encrypted = client.is_encrypted();
                self.encryption(encrypted);
                if ordinary.is_ok() {
                    let found = format!(
                        "PostgreSQL {} at {}, database {}, role {}, {}",
                        client.server_version(),
                        options.server(),
                        options.database(),
                        options.user(),
                        if encrypted { "TLS" } else { "no TLS" }
                    );
                    self.findings.ok(CheckId::PostgresReachable, found);
                }
                self.replication = Some(client);
            }
            Err(error) => self.findings.error(refusal(&error, &options, hosting)),
        }
        let Err(found) = ordinary else { return };
        // Both fail for one reason, unless that is one that only a replication connection can have.
        let is_told = self.replication.is_none()
            && !self.findings.has(CheckId::ReplicationAttribute)
            && !self.findings.has(CheckId::WalSenders);
        if !is_told {
            self.findings.error(Problem {
                id: CheckId::PostgresOrdinaryConnection.into(),
                found: format!("the ordinary connection, for catalog queries, fails: {found}"),
                why: "tables, publication and slot are looked up over it".into(),
                fix: format!(
                    "let {} connect to database {} without replication too: a line in pg_hba.conf, and GRANT CONNECT ON DATABASE",
                    options.user(),
                    options.database()
                ),
            });
        }
    }

    fn encryption(&mut self, encrypted: bool) {
        let Host::Tcp(host) = self.options.host() else { return };
        if self.options.host().is_loopback() {
            return;
        }
        let mode = self.options.ssl_mode();
        if !encrypted {
            let password = if self.options.password().is_some() { "the password's proof and " } else { "" };
            self.findings.warning(Problem {
                id: CheckId::PostgresTls.into(),
                found: format!("the connection to {host} is not encrypted (sslmode={mode})"),
                why: format!("{password}every row crosses the network readable, and can be changed on the way"),
                fix: "set ssl = on in postgresql.conf, and sslmode=verify-full in postgres.url".into(),
            });
        } else if !matches!(mode, SslMode::VerifyFull | SslMode::VerifyCa) {
            self.findings.warning(Problem {
                id: CheckId::PostgresTls.into(),
                found: format!("TLS with {host} proves nothing about the server (sslmode={mode})"),
                why: "whoever sits between can pose as the server, and read and change every row".into(),
                fix: "set sslmode=verify-full in postgres.url, with sslrootcert=FILE unless a public authority signed"
                    .into(),
            });
        } else {
            self.findings.ok(
                CheckId::PostgresTls,
                format!("encrypted, and the server's certificate is verified (sslmode={mode})"),
            );
        }
    }

    /// Notes that a step did not come to its end: `Err(None)` if it was given up.
    fn settle(&mut self, outcome: Result<(), Option<Failure>>) {
        let Err(failure) = outcome else { return };
        let found = match failure {
            Some(failure) => failure.found().to_owned(),
            None => format!("the catalog did not answer within {}", seconds_text(STEP_TIMEOUT)),
        };
        self.findings.error(Problem {
            id: CheckId::PostgresIncomplete.into(),
            found: format!("not everything could be looked at: {found}"),
            why: "what was not looked at may be wrong as well".into(),
            fix: "see pg_stat_activity and pg_locks for what holds catalog queries up, and run the check again".into(),
        });
    }
}

/// What it means that the replication connection cannot be made.
fn refusal(error: &Error, options: &ConnectOptions, hosting: Hosting) -> Problem {
    let (user, database) = (options.user(), options.database());
    let no_stream = "without it nothing can be streamed".to_owned();
    let problem = |id: Id, fix: String| Problem { id, found: error.to_string(), why: no_stream.clone(), fix };
    match error {
        Error::Connect { source, .. } => problem(CheckId::PostgresUnreachable.into(), unreachable_fix(source, options)),
        Error::Timeout { .. } | Error::Io { .. } | Error::Closed { .. } => problem(
            CheckId::PostgresUnreachable.into(),
            format!("see whether PostgreSQL listens at {} and a firewall lets this machine through", options.server()),
        ),
        Error::PlaintextCredentials { .. } => {
            problem(Code::PlaintextCredentials.into(), Code::PlaintextCredentials.fix().to_owned())
        }
        Error::Unbound { .. } => problem(Code::PostgresUntrusted.into(), Code::PostgresUntrusted.fix().to_owned()),
        Error::TlsNotOffered { .. } | Error::Tls { .. } | Error::CertificateFile { .. } | Error::Options { .. } => {
            problem(
                CheckId::PostgresTls.into(),
                "correct sslmode, sslrootcert, sslcert and sslkey in postgres.url, or the server's certificate".into(),
            )
        }
        Error::Authentication { .. } => problem(
            CheckId::PostgresAuthentication.into(),
            format!("set the password of role {user} in postgres.url or postgres.password_file"),
        ),
        Error::Server { error: said, .. } => match said.code() {
            _ if said.message().contains("pg_hba.conf") => {
                problem(CheckId::PostgresHba.into(), hba(hosting, user, database))
            }
            "28P01" => problem(
                CheckId::PostgresAuthentication.into(),
                format!("correct the password of role {user} in postgres.url or postgres.password_file"),
            ),
            "28000" => problem(
                CheckId::PostgresAuthentication.into(),
                match hosting {
                    Hosting::AmazonRds => format!(
                        "CREATE ROLE {user} LOGIN PASSWORD '...' and GRANT rds_replication TO {user}, or correct the user in postgres.url"
                    ),
                    _ => format!(
                        "CREATE ROLE {user} LOGIN REPLICATION PASSWORD '...', or correct the user in postgres.url"
                    ),
                },
            ),
            "3D000" => problem(
                CheckId::PostgresDatabase.into(),
                "correct the database in postgres.url: it comes after the last /".into(),
            ),
            // Before the database is entered, only the attribute is looked at.
            "42501" if !said.message().contains("database") => replication_attribute(user, &error.to_string(), hosting),
            "42501" => {
                problem(CheckId::PostgresPrivilege.into(), format!("GRANT CONNECT ON DATABASE {database} TO {user}"))
            }
            "53300" => problem(
                CheckId::WalSenders.into(),
                format!(
                    "raise max_wal_senders, and max_connections if it is not higher: {}",
                    hosting.set(&Wish { name: "max_wal_senders", value: "20", raw: "20", takes_restart: true })
                ),
            ),
            "57P03" => problem(
                CheckId::PostgresUnreachable.into(),
                "wait until the server has started, and run the check again".into(),
            ),
            _ => problem(Code::PostgresRefused.into(), "see the server's log".into()),
        },
        _ => problem(
            Code::PostgresRefused.into(),
            "see whether postgres.url names a PostgreSQL server, and no pooler before it".into(),
        ),
    }
}

/// What lets a connection in that nothing lets in.
fn hba(hosting: Hosting, user: &str, database: &str) -> String {
    match hosting {
        Hosting::Own => format!(
            "add to pg_hba.conf, and SELECT pg_reload_conf(): host {database} {user} ADDRESS-OF-THIS-MACHINE/32 scram-sha-256"
        ),
        // There is no such file to be edited. Whoever has come so far was let through by the network.
        Hosting::AmazonRds => "set sslmode=verify-full in postgres.url: rds.force_ssl takes no connection without TLS".into(),
        Hosting::CloudSql => {
            "set sslmode=verify-ca in postgres.url, with sslrootcert, sslcert and sslkey if the instance asks for a client's certificate".into()
        }
        Hosting::Azure => {
            "set sslmode=verify-full in postgres.url, and let this machine's address in: az postgres flexible-server firewall-rule create".into()
        }
    }
}

/// That the role may not replicate, however it came out.
pub(super) fn replication_attribute(user: &str, found: &str, hosting: Hosting) -> Problem {
    Problem {
        id: CheckId::ReplicationAttribute.into(),
        found: found.to_owned(),
        why: "only a role with REPLICATION may open a replication connection".into(),
        fix: format!("{}; -- as {}", hosting.let_replicate(user), hosting.administrator()),
    }
}

fn unreachable_fix(source: &io::Error, options: &ConnectOptions) -> String {
    match (source.kind(), options.host()) {
        (io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound, Host::Unix(folder)) => format!(
            "start PostgreSQL, or correct the folder {} and the port {} in postgres.url: see unix_socket_directories",
            folder.display(),
            options.port()
        ),
        (io::ErrorKind::ConnectionRefused, Host::Tcp(_)) => {
            "start PostgreSQL, or correct host and port in postgres.url: see listen_addresses and port".into()
        }
        (_, Host::Tcp(host)) => format!("correct the host {host} in postgres.url, or its name service and the network"),
        (_, Host::Unix(_)) => "see whether this user may use the socket".into(),
    }
}
