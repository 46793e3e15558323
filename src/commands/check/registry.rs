//! The schema registry: whether it lets us in, and whether it would take the schemas.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::registry::{Compatibility, CompatibilityLevel, ErrorKind, RegistryClient, RegistryError};
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    CONNECT_TIMEOUT, REQUEST_TIMEOUT, STEP_TIMEOUT,
    report::{Findings, Problem, Severity, System, seconds_text},
    schemas::Schemas,
};
use crate::{config::Config, failure::Code};

/// How many questions are asked at once.
const REQUESTS_MAX: usize = 8;
/// An answer that takes longer holds up the first change of each table noticeably.
const LATENCY_MAX: Duration = Duration::from_secs(1);

/// What is known of the registry.
pub(super) struct Registry {
    pub(super) findings: Findings,
    config: Arc<Config>,
    client: Option<RegistryClient>,
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
        Self { findings: Findings::new(System::SchemaRegistry), config, client: None, global_level: None }
    }

    /// Whether it can be asked at all.
    pub(super) async fn examine(&mut self) {
        let mut options = self.config.schema_registry.options();
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
                id: "registry-compatibility",
                found: format!("the global compatibility level is {level}, which pgsluice does not know"),
                why: "whether changed tables can be registered cannot be said".into(),
                fix: "see the registry's documentation".into(),
            }),
            Ok(level) => {
                self.findings.ok("registry-compatibility", format!("global level {level}: {}", meaning(&level)));
                self.global_level = Some(level);
            }
            // A subject's own level can still be asked for, and the schemas are checked one by one.
            Err(error) => self.findings.warning(Problem { id: "registry-compatibility", ..refusal(&error) }),
        }
        self.client = Some(client);
    }

    /// Whether it would take the schemas.
    pub(super) async fn examine_subjects(&mut self, schemas: &Schemas) {
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
        self.report(&answers);
        if !in_time {
            self.findings.warning(Problem {
                id: "registry-slow",
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

    fn report(&mut self, answers: &[Answer]) {
        let (mut registered, mut compatible, mut new) = (0_usize, 0_usize, 0_usize);
        let mut failed: Option<&RegistryError> = None;
        for Answer { table, subject, outcome } in answers {
            match outcome {
                Ok(Verdict::Registered) => registered += 1,
                Ok(Verdict::New(Compatibility::NoVersions, _)) => new += 1,
                Ok(Verdict::New(Compatibility::Compatible, _)) => compatible += 1,
                Ok(Verdict::New(Compatibility::Incompatible(reasons), level)) => {
                    let level = level.as_ref().or(self.global_level.as_ref());
                    self.findings.about(Severity::Error, subject, incompatible(table, subject, reasons, level));
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
                "registry-subjects",
                format!("{registered} registered already, {compatible} compatible with earlier versions, {new} new"),
            );
        }
    }

    fn latency(&mut self, latency: Duration, url: &str) {
        self.findings.ok("registry-reachable", format!("{url} answered in {} ms", latency.as_millis()));
        if latency > LATENCY_MAX {
            self.findings.warning(Problem {
                id: "registry-slow",
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
        id: Code::RegistryIncompatible.as_str(),
        found: format!("the schema of {table} does not fit the earlier versions{level}: {reasons}"),
        why: "the stream waits at the first change of this table until the schema is accepted".into(),
        fix: format!(
            "lower the subject's level until the new schema is registered: PUT /config/{subject} {{\"compatibility\": \"NONE\"}}; or \
             undo the change of the table"
        ),
    }
}

/// What it means that the registry cannot be asked. Its own words end with what to do.
fn refusal(error: &RegistryError) -> Problem {
    let id = match error.kind() {
        ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::Unavailable | ErrorKind::Throttled => {
            "registry-unreachable"
        }
        ErrorKind::Unauthenticated | ErrorKind::Forbidden => "registry-authentication",
        ErrorKind::Tls => "registry-tls",
        _ => "registry-refused",
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
