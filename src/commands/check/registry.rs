//! The schema registry, the built-in one included: whether it lets us in, and whether it would take the schemas.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::registry::{
    Action, Compatibility, CompatibilityLevel, ErrorKind, RegistryClient, RegistryError,
    store::{AvroSchema, Plan, Refused},
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    CONNECT_TIMEOUT, REQUEST_TIMEOUT, STEP_TIMEOUT,
    id::{CheckId, Id},
    kafka::Kafka,
    report::{Findings, Problem, Severity, System, seconds_text},
    schemas::Schemas,
};
use crate::{
    config::{Config, SchemaRegistry},
    failure::Code,
    schemas::built_in::BuiltIn,
};

/// How many questions are asked at once.
const REQUESTS_MAX: usize = 8;
/// An answer that takes longer holds up the first change of each table noticeably.
const LATENCY_MAX: Duration = Duration::from_secs(1);

/// What is known of the registry.
pub(super) struct Registry {
    pub(super) findings: Findings,
    config: Arc<Config>,
    client: Option<RegistryClient>,
    /// The built-in registry, once its topic was read.
    built_in: Option<Arc<BuiltIn>>,
    global_level: Option<CompatibilityLevel>,
}

/// What the registry says of one subject.
struct Answer {
    table: String,
    subject: String,
    outcome: Result<Verdict, RegistryError>,
}

enum Verdict {
    Registered,
    New(Compatibility, Option<CompatibilityLevel>),
}

impl Registry {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self {
            findings: Findings::new(System::SchemaRegistry),
            config,
            client: None,
            built_in: None,
            global_level: None,
        }
    }

    /// Whether it can be asked at all.
    pub(super) async fn examine(&mut self) {
        if !self.config.needs_registry() {
            return self.findings.ok(CheckId::SchemaRegistry, "not needed: nothing has a schema".to_owned());
        }
        let SchemaRegistry::Remote(remote) = &self.config.schema_registry else { return };
        let mut options = remote.options();
        options.request_timeout = options.request_timeout.min(REQUEST_TIMEOUT);
        options.connect_timeout = options.connect_timeout.min(CONNECT_TIMEOUT);
        let client = match RegistryClient::new(options) {
            Ok(client) => client,
            Err(error) => return self.findings.error(refusal(&error)),
        };
        let began = Instant::now();
        if let Err(error) = client.ping().await {
            return self.findings.error(refusal(&error));
        }
        self.latency(began.elapsed(), client.url());
        match client.global_level().await {
            Ok(CompatibilityLevel::Other(level)) => self.findings.warning(Problem {
                id: CheckId::RegistryCompatibility.into(),
                found: format!("the global compatibility level is {level}, which pgsluice does not know"),
                why: "whether changed tables can be registered cannot be said".into(),
                fix: "see the registry's documentation".into(),
            }),
            Ok(level) => {
                self.findings.ok(CheckId::RegistryCompatibility, format!("global level {level}: {}", meaning(&level)));
                self.global_level = Some(level);
            }
            // A subject's own level can still be asked for, and the schemas are checked one by one.
            Err(error) => {
                self.findings.warning(Problem { id: CheckId::RegistryCompatibility.into(), ..refusal(&error) });
            }
        }
        self.client = Some(client);
    }

    /// Reads the topic of the built-in registry, if that is the one and the topic is there and fit to be read.
    pub(super) async fn read_built_in(&mut self, kafka: &Kafka) {
        if !self.config.needs_registry() {
            return;
        }
        let SchemaRegistry::BuiltIn { topic } = &self.config.schema_registry else { return };
        let Some(reached) = &kafka.reached else { return };
        let built_in = Arc::new(BuiltIn::new(&kafka.settings, topic.as_str(), -1));
        if reached.cluster.topics.get(topic.as_str()).is_some_and(|shape| shape.partitions != 1) {
            return;
        }
        let unreadable = match tokio::time::timeout(STEP_TIMEOUT, built_in.read_on()).await {
            Ok(Ok(())) => None,
            Ok(Err(refusal)) => Some(refusal.found),
            Err(_) => Some(format!("the topic {topic} could not be read within {}", seconds_text(STEP_TIMEOUT))),
        };
        if let Some(found) = unreadable {
            return self.findings.error(Problem {
                id: CheckId::RegistryUnreachable.into(),
                found,
                why: "no change can be written before its schema has an id".into(),
                fix: "see the brokers' logs, and grant READ and DESCRIBE on the topic".into(),
            });
        }
        let ledger = built_in.ledger();
        let store = ledger.committed();
        let level = store.level(None).unwrap_or_default();
        self.findings
            .ok(CheckId::RegistryBuiltIn, format!("topic {topic}: {} subjects", store.subjects(false).count()));
        let level = CompatibilityLevel::from(level);
        self.findings.ok(CheckId::RegistryCompatibility, format!("global level {level}: {}", meaning(&level)));
        if let Some(record) = ledger.written().malformed() {
            self.findings.error(Problem {
                id: Code::RegistryRefused.into(),
                found: format!("topic {topic}, {record}"),
                why: "nothing new is registered beside a record that cannot be understood, and a new table stops the stream".into(),
                fix: "see who wrote it; then write a record with the same key, whose value is right or which has none".into(),
            });
        }
        drop(ledger);
        self.built_in = Some(built_in);
    }

    /// What the built-in registry would do with the schemas.
    fn plan_subjects(&mut self, built_in: &BuiltIn, schemas: &Schemas) {
        let ledger = built_in.ledger();
        let ask = |subject: &str, schema: &str| {
            let schema = AvroSchema::parse(schema).map_err(Refused::Invalid)?;
            match ledger.plan(subject, &schema) {
                Ok(Plan::Registered(_)) => Ok(Verdict::Registered),
                Ok(Plan::Write { .. }) if ledger.committed().versions(subject, false).next().is_none() => {
                    Ok(Verdict::New(Compatibility::NoVersions, None))
                }
                Ok(Plan::Write { .. }) => Ok(Verdict::New(Compatibility::Compatible, None)),
                Err(Refused::Incompatible { level, reasons }) => {
                    Ok(Verdict::New(Compatibility::Incompatible(reasons), Some(level.into())))
                }
                Err(refused) => Err(refused),
            }
        };
        let answers: Vec<Answer> = schemas
            .subjects()
            .map(|(subject, schema, table)| {
                let outcome = ask(&subject, &schema).map_err(|refused| built_in.error(refused, &subject));
                Answer { table: table.to_owned(), subject, outcome }
            })
            .collect();
        self.report(&answers, schemas);
    }

    /// Whether it would take the schemas.
    pub(super) async fn examine_subjects(&mut self, schemas: &Schemas) {
        if let Some(built_in) = self.built_in.take() {
            return self.plan_subjects(&built_in, schemas);
        }
        let Some(client) = self.client.clone() else { return };
        let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
        let mut questions = JoinSet::new();
        for (subject, schema, table) in schemas.subjects() {
            let (client, permits, table) = (client.clone(), Arc::clone(&permits), table.to_owned());
            questions.spawn(async move {
                // It is closed by nobody.
                let _permit = permits.acquire_owned().await;
                let outcome = ask(&client, &subject, &schema).await;
                Answer { table, subject, outcome }
            });
        }
        let asked = questions.len();
        let mut answers = Vec::new();
        let gathered = tokio::time::timeout(STEP_TIMEOUT, async {
            while let Some(answer) = questions.join_next().await {
                answers.extend(answer.ok());
            }
        });
        let in_time = gathered.await.is_ok();
        answers.sort_by(|one, other| one.subject.cmp(&other.subject));
        self.report(&answers, schemas);
        if !in_time {
            self.findings.warning(Problem {
                id: CheckId::RegistrySlow.into(),
                found: format!(
                    "only {} of {asked} subjects could be asked about within {}",
                    answers.len(),
                    seconds_text(STEP_TIMEOUT)
                ),
                why: "the others were not checked, and the stream waits as long for the registry when the tables first change"
                    .into(),
                fix: "see why the registry is slow; or check with fewer postgres.tables at a time".into(),
            });
        }
    }

    fn report(&mut self, answers: &[Answer], schemas: &Schemas) {
        let (mut registered, mut compatible, mut new) = (0_usize, 0_usize, 0_usize);
        let mut failed: Option<&RegistryError> = None;
        for Answer { table, subject, outcome } in answers {
            match outcome {
                Ok(Verdict::Registered) => registered += 1,
                Ok(Verdict::New(Compatibility::NoVersions, _)) => new += 1,
                Ok(Verdict::New(Compatibility::Compatible, _)) => compatible += 1,
                Ok(Verdict::New(Compatibility::Incompatible(reasons), level)) => {
                    let level = level.as_ref().or(self.global_level.as_ref());
                    let problem = incompatible(table, subject, reasons, level);
                    let problem = match &self.config.schema_registry {
                        SchemaRegistry::Remote(_) => problem,
                        SchemaRegistry::BuiltIn { topic } => Problem {
                            fix: set_level(&self.config.kafka.bootstrap_servers, topic.as_str(), subject),
                            ..problem
                        },
                    };
                    if schemas.is_held_back(table) {
                        let why =
                            "the table is in quarantine, or comes to it at its first change, and the others go on"
                                .to_owned();
                        self.findings.about(Severity::Warning, subject, Problem { why, ..problem });
                    } else {
                        self.findings.about(Severity::Error, subject, problem);
                    }
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            // What one subject is refused for is most often what all are.
            self.findings.error(refusal(error));
        }
        if registered + compatible + new > 0 {
            self.findings.ok(
                CheckId::RegistrySubjects,
                format!("{registered} registered already, {compatible} compatible with earlier versions, {new} new"),
            );
        }
    }

    fn latency(&mut self, latency: Duration, url: &str) {
        self.findings.ok(CheckId::RegistryReachable, format!("{url} answered in {} ms", latency.as_millis()));
        if latency > LATENCY_MAX {
            self.findings.warning(Problem {
                id: CheckId::RegistrySlow.into(),
                found: format!("{url} took {} ms to answer", latency.as_millis()),
                why: "the stream waits for the registry before the first change of each table".into(),
                fix: "see why the registry is slow".into(),
            });
        }
    }
}

async fn ask(client: &RegistryClient, subject: &str, schema: &str) -> Result<Verdict, RegistryError> {
    if client.lookup(subject, schema).await?.is_some() {
        return Ok(Verdict::Registered);
    }
    let compatibility = client.check_compatibility(subject, schema).await?;
    let level = match compatibility {
        Compatibility::Incompatible(_) => client.subject_level(subject).await?,
        _ => None,
    };
    Ok(Verdict::New(compatibility, level))
}

fn incompatible(table: &str, subject: &str, reasons: &[String], level: Option<&CompatibilityLevel>) -> Problem {
    let level = level.map(|level| format!(" under level {level}")).unwrap_or_default();
    let reasons = if reasons.is_empty() { "the registry gives no reason".to_owned() } else { reasons.join("; ") };
    Problem {
        id: Code::RegistryIncompatible.into(),
        found: format!("the schema of {table} does not fit the earlier versions{level}: {reasons}"),
        why: "the stream waits at the first change of this table until the schema is accepted".into(),
        fix: format!(
            "lower the subject's level until the new schema is registered: PUT /config/{subject} {{\"compatibility\": \"NONE\"}}; or \
             undo the change of the table"
        ),
    }
}

/// How a level is set in the topic of the built-in registry.
fn set_level(servers: &str, topic: &str, subject: &str) -> String {
    format!(
        "lower the subject's level until the new schema is registered: give kafka-console-producer.sh --bootstrap-server {servers} --topic {topic} --property \
         parse.key=true --property key.separator='|' the line {{\"keytype\":\"CONFIG\",\"subject\":\"{subject}\",\"magic\":0}}|\
         {{\"compatibilityLevel\":\"NONE\"}}; or undo the change of the table"
    )
}

/// What it means that the registry cannot be asked. Its own words end with what to do.
fn refusal(error: &RegistryError) -> Problem {
    let id = match (error.action(), error.kind()) {
        // As the stream has it, which waits: what is no registry may stand in the place of one.
        (Action::Retry { .. }, _) => Id::from(CheckId::RegistryUnreachable),
        (_, ErrorKind::Unauthenticated | ErrorKind::Forbidden) => CheckId::RegistryAuthentication.into(),
        (_, ErrorKind::Tls) => CheckId::RegistryTls.into(),
        _ => Code::RegistryRefused.into(),
    };
    let setting = match error.kind() {
        ErrorKind::Unauthenticated | ErrorKind::Forbidden => {
            ": schema_registry.user and schema_registry.password_file, or schema_registry.token_file"
        }
        ErrorKind::Tls => ": schema_registry.ca_certificate",
        ErrorKind::TimedOut => ": schema_registry.timeout",
        _ => ": schema_registry.url",
    };
    let text = error.to_string();
    let (found, fix) = text.rsplit_once("; ").unwrap_or((&text, "see the registry's log"));
    Problem {
        id,
        found: found.to_owned(),
        why: "no change can be written before its schema has an id".into(),
        fix: format!("{fix}{setting}"),
    }
}

fn meaning(level: &CompatibilityLevel) -> &'static str {
    match level {
        CompatibilityLevel::None => "any change of a table is taken, and may break consumers",
        CompatibilityLevel::Backward | CompatibilityLevel::BackwardTransitive => {
            "a new column must be nullable or have a default, or the stream waits"
        }
        CompatibilityLevel::Forward | CompatibilityLevel::ForwardTransitive => {
            "a dropped column must have been nullable or have had a default, or the stream waits"
        }
        CompatibilityLevel::Full | CompatibilityLevel::FullTransitive => {
            "new and dropped columns must be nullable or have a default, or the stream waits"
        }
        CompatibilityLevel::Other(_) => "unknown",
    }
}
