//! The read side of the Confluent schema registry API, for the consumers of what this program writes.
//!
//! The paths, bodies and codes are those of the [API reference]. What is written to the registry is written by the streams alone, so that
//! requests to change something are refused with the API's code for a registry that may not be written to.
//!
//! An id that is known is answered from memory: it never changes its schema. For all else the topic is read on to its end first, so that
//! what another instance has registered a moment ago is found, and what has been deleted is not.
//!
//! [API reference]: https://docs.confluent.io/platform/current/schema-registry/develop/api.html

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, RawQuery, State, rejection::BytesRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use registry::store::{AvroSchema, Definition, Store, Version, why_incompatible};
use serde::Deserialize;
use serde_json::{Value, json};

use super::built_in::BuiltIn;

const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// A schema's text in a JSON string, and what stands around it.
const BODY_BYTES_MAX: usize = 2 << 20;

/// How long the topic may take to be read on before a request is given up. It is read on all the same.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// What the registry has at `/`, where a browser is shown the instance.
pub(crate) fn root() -> Response {
    Answer::ok(&json!({})).into_response()
}

/// The routes of the API, but for `/`.
pub fn router(registry: Arc<BuiltIn>) -> Router {
    Router::new()
        .route("/schemas/types", read_only(get(async || Answer::ok(&json!(["AVRO"])))))
        .route("/schemas/ids/{id}", read_only(get(schema_by_id)))
        .route("/schemas/ids/{id}/schema", read_only(get(text_by_id)))
        .route("/schemas/ids/{id}/subjects", read_only(get(subjects_by_id)))
        .route("/schemas/ids/{id}/versions", read_only(get(versions_by_id)))
        .route("/subjects", read_only(get(subjects)))
        .route("/subjects/{subject}", read_only(post(lookup)))
        .route("/subjects/{subject}/versions", read_only(get(versions)))
        .route("/subjects/{subject}/versions/{version}", read_only(get(version)))
        .route("/subjects/{subject}/versions/{version}/schema", read_only(get(text_of_version)))
        .route("/compatibility/subjects/{subject}/versions", read_only(post(compatibility_with_all)))
        .route("/compatibility/subjects/{subject}/versions/{version}", read_only(post(compatibility_with_one)))
        .route("/config", read_only(get(global_level)))
        .route("/config/{subject}", read_only(get(subject_level)))
        .route("/mode", read_only(get(global_mode)))
        .route("/mode/{subject}", read_only(get(subject_mode)))
        .fallback(async || Refused::new(404, 404, "HTTP 404 Not Found"))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(registry)
}

/// Whatever else is asked of a path is a change.
fn read_only(route: MethodRouter<Arc<BuiltIn>>) -> MethodRouter<Arc<BuiltIn>> {
    route.fallback(async || {
        Refused::new(
            422,
            42_205,
            "this registry is read-only over HTTP: its schemas are registered by pgsluice, from the tables that it streams, and its levels \
             are set by records in its topic",
        )
    })
}

type Registry = State<Arc<BuiltIn>>;
type Outcome = Result<Answer, Refused>;

/// An answer in the API's media type.
struct Answer(String);

impl Answer {
    fn ok(body: &Value) -> Self {
        Self(body.to_string())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, MEDIA_TYPE)], self.0).into_response()
    }
}

/// An error as the API writes it.
struct Refused {
    status: u16,
    code: i64,
    message: String,
}

impl Refused {
    fn new(status: u16, code: i64, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    fn subject(subject: &str) -> Self {
        Self::new(404, 40_401, format!("Subject '{subject}' not found."))
    }

    fn version(version: u32) -> Self {
        Self::new(404, 40_402, format!("Version {version} not found."))
    }

    fn id(id: u32) -> Self {
        Self::new(404, 40_403, format!("Schema {id} not found"))
    }

    fn invalid(why: impl std::fmt::Display) -> Self {
        Self::new(422, 42_201, format!("Invalid schema: {why}"))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({ "error_code": self.code, "message": self.message }).to_string();
        (status, [(CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
    }
}

/// The parameters behind the question mark.
struct Query(Option<String>);

impl Query {
    fn get(&self, name: &str) -> Option<String> {
        let pairs = url::form_urlencoded::parse(self.0.as_deref().unwrap_or_default().as_bytes());
        pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).as_deref() == Some("true")
    }

    fn with_deleted(&self) -> bool {
        self.has("deleted")
    }
}

/// Reads the topic on.
async fn refresh(registry: &Arc<BuiltIn>) -> Result<(), Refused> {
    match tokio::time::timeout(READ_TIMEOUT, registry.read_on()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(refusal)) => {
            Err(Refused::new(500, 50_001, format!("Error in the backend data store: {}", refusal.found)))
        }
        Err(_) => Err(Refused::new(500, 50_002, "Operation timed out: the topic of schemas could not be read on")),
    }
}

/// Finds a schema by its id; what is not known is looked for at the topic's end.
async fn definition(registry: &Arc<BuiltIn>, id: &str, query: &Query) -> Result<Arc<Definition>, Refused> {
    let Ok(id) = id.parse::<u32>() else { return Err(Refused::new(404, 404, "HTTP 404 Not Found")) };
    let subject = query.get("subject");
    let find = || {
        let ledger = registry.ledger();
        let found = ledger.committed().schema(subject.as_deref(), id);
        // What is not committed yet is about to be, or its id is nobody's for ever: in both cases there is no other answer.
        found.or_else(|| ledger.written().schema(subject.as_deref(), id)).cloned()
    };
    if let Some(found) = find() {
        return Ok(found);
    }
    refresh(registry).await?;
    find().ok_or_else(|| Refused::id(id))
}

fn schema_body(definition: &Definition) -> Value {
    let mut body = json!({ "schema": &*definition.text });
    if let Some(kind) = &definition.schema_type {
        body["schemaType"] = json!(kind);
    }
    if !definition.references.is_empty() {
        body["references"] = json!(definition.references);
    }
    body
}

fn version_body(subject: &str, version: &Version) -> Value {
    let mut body = json!({ "subject": subject, "version": version.number, "id": version.id });
    if let (Value::Object(body), Value::Object(schema)) = (&mut body, schema_body(&version.definition)) {
        body.extend(schema);
    }
    body
}

async fn schema_by_id(State(registry): Registry, Path(id): Path<String>, RawQuery(query): RawQuery) -> Outcome {
    let definition = definition(&registry, &id, &Query(query)).await?;
    Ok(Answer::ok(&schema_body(&definition)))
}

async fn text_by_id(State(registry): Registry, Path(id): Path<String>, RawQuery(query): RawQuery) -> Outcome {
    Ok(Answer(definition(&registry, &id, &Query(query)).await?.text.to_string()))
}

async fn subjects_by_id(State(registry): Registry, Path(id): Path<String>, RawQuery(query): RawQuery) -> Outcome {
    let uses = uses(&registry, &id, Query(query)).await?;
    let mut subjects: Vec<String> = uses.into_iter().map(|(subject, _)| subject).collect();
    subjects.dedup();
    Ok(Answer::ok(&json!(subjects)))
}

async fn versions_by_id(State(registry): Registry, Path(id): Path<String>, RawQuery(query): RawQuery) -> Outcome {
    let uses = uses(&registry, &id, Query(query)).await?;
    let body: Vec<Value> =
        uses.iter().map(|(subject, version)| json!({ "subject": subject, "version": version })).collect();
    Ok(Answer::ok(&json!(body)))
}

async fn uses(registry: &Arc<BuiltIn>, id: &str, query: Query) -> Result<Vec<(String, u32)>, Refused> {
    refresh(registry).await?;
    definition(registry, id, &query).await?;
    let ledger = registry.ledger();
    let subject = query.get("subject");
    let id = id.parse().unwrap_or_default();
    let uses = ledger.committed().uses(subject.as_deref(), id, query.with_deleted());
    Ok(uses.into_iter().map(|(subject, version)| (subject.to_owned(), version)).collect())
}

async fn subjects(State(registry): Registry, RawQuery(query): RawQuery) -> Outcome {
    let query = Query(query);
    refresh(&registry).await?;
    let prefix = query.get("subjectPrefix").filter(|prefix| prefix != ":*:").unwrap_or_default();
    let ledger = registry.ledger();
    let subjects = ledger.committed().subjects(query.with_deleted());
    Ok(Answer::ok(&json!(subjects.filter(|subject| subject.starts_with(&prefix)).collect::<Vec<_>>())))
}

async fn versions(State(registry): Registry, Path(subject): Path<String>, RawQuery(query): RawQuery) -> Outcome {
    let query = Query(query);
    refresh(&registry).await?;
    let ledger = registry.ledger();
    let versions = ledger.committed().versions(&subject, query.with_deleted());
    let numbers: Vec<u32> = versions.map(|version| version.number).collect();
    if numbers.is_empty() { Err(Refused::subject(&subject)) } else { Ok(Answer::ok(&json!(numbers))) }
}

async fn version(
    State(registry): Registry,
    Path((subject, version)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Outcome {
    let found = find_version(&registry, &subject, &version, &Query(query)).await?;
    Ok(Answer::ok(&version_body(&subject, &found)))
}

async fn text_of_version(
    State(registry): Registry,
    Path((subject, version)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Outcome {
    let found = find_version(&registry, &subject, &version, &Query(query)).await?;
    Ok(Answer(found.definition.text.to_string()))
}

/// Which version is asked for.
#[derive(Clone, Copy)]
enum Selector {
    Latest,
    Number(u32),
}

impl Selector {
    fn parse(text: &str) -> Result<Self, Refused> {
        match text {
            "latest" | "-1" => Ok(Self::Latest),
            _ => text.parse().ok().filter(|number| (1..=i32::MAX.unsigned_abs()).contains(number)).map(Self::Number).ok_or_else(
                || {
                    Refused::new(
                        422,
                        42_202,
                        format!(
                            "The specified version '{text}' is not a valid version id. Allowed values are between [1, 2^31-1] and the \
                             string \"latest\""
                        ),
                    )
                },
            ),
        }
    }

    fn find(self, store: &Store, subject: &str, with_deleted: bool) -> Result<Version, Refused> {
        let mut versions = store.versions(subject, with_deleted);
        let (found, missing) = match self {
            Self::Latest => (versions.next_back(), Refused::subject(subject)),
            Self::Number(number) => {
                let is_known = store.versions(subject, true).next().is_some();
                let missing = if is_known { Refused::version(number) } else { Refused::subject(subject) };
                (versions.find(|version| version.number == number), missing)
            }
        };
        found.cloned().ok_or(missing)
    }
}

async fn find_version(
    registry: &Arc<BuiltIn>,
    subject: &str,
    version: &str,
    query: &Query,
) -> Result<Version, Refused> {
    let selector = Selector::parse(version)?;
    refresh(registry).await?;
    selector.find(registry.ledger().committed(), subject, query.with_deleted())
}

/// Reads a body that holds a schema.
fn schema_of(body: Result<Bytes, BytesRejection>) -> Result<AvroSchema, Refused> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Body {
        schema: Option<String>,
        #[serde(default)]
        schema_type: Option<String>,
        #[serde(default)]
        references: Option<Vec<Value>>,
    }
    let body = body.map_err(|rejection| {
        let status = rejection.status().as_u16();
        Refused::new(status, status.into(), rejection.body_text())
    })?;
    let body: Body = serde_json::from_slice(&body)
        .map_err(|error| Refused::new(400, 400, format!("the body is no schema request: {error}")))?;
    if body.schema_type.as_deref().is_some_and(|kind| kind != "AVRO") {
        return Err(Refused::invalid("only Avro is registered here"));
    }
    if body.references.is_some_and(|references| !references.is_empty()) {
        return Err(Refused::invalid("no schema that is registered here refers to others"));
    }
    AvroSchema::parse(&body.schema.unwrap_or_default()).map_err(Refused::invalid)
}

async fn lookup(
    State(registry): Registry,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Outcome {
    let query = Query(query);
    let schema = schema_of(body)?;
    refresh(&registry).await?;
    let ledger = registry.ledger();
    let store = ledger.committed();
    if store.versions(&subject, query.with_deleted()).next().is_none() {
        return Err(Refused::subject(&subject));
    }
    match store.lookup(&subject, &schema, query.with_deleted()) {
        Some(found) => Ok(Answer::ok(&version_body(&subject, found))),
        None => Err(Refused::new(404, 40_403, "Schema not found")),
    }
}

async fn compatibility_with_all(
    State(registry): Registry,
    Path(subject): Path<String>,
    RawQuery(query): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Outcome {
    let schema = schema_of(body)?;
    refresh(&registry).await?;
    let ledger = registry.ledger();
    let store = ledger.committed();
    let reasons = why_incompatible(store.effective_level(&subject), &schema, store.versions(&subject, false));
    Ok(verdict(&reasons, &Query(query)))
}

async fn compatibility_with_one(
    State(registry): Registry,
    Path((subject, version)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    body: Result<Bytes, BytesRejection>,
) -> Outcome {
    let selector = Selector::parse(&version)?;
    let schema = schema_of(body)?;
    refresh(&registry).await?;
    let ledger = registry.ledger();
    let store = ledger.committed();
    let found = match (selector, selector.find(store, &subject, false)) {
        (_, Ok(found)) => Some(found),
        // Whatever comes first is compatible with nothing.
        (Selector::Latest, Err(_)) => None,
        (Selector::Number(_), Err(refused)) => return Err(refused),
    };
    let reasons = why_incompatible(store.effective_level(&subject), &schema, found.iter());
    Ok(verdict(&reasons, &Query(query)))
}

fn verdict(reasons: &[String], query: &Query) -> Answer {
    let mut body = json!({ "is_compatible": reasons.is_empty() });
    if query.has("verbose") {
        body["messages"] = json!(reasons);
    }
    Answer::ok(&body)
}

async fn global_level(State(registry): Registry) -> Outcome {
    refresh(&registry).await?;
    let level = registry.ledger().committed().level(None).unwrap_or_default();
    Ok(Answer::ok(&json!({ "compatibilityLevel": level.name() })))
}

async fn subject_level(State(registry): Registry, Path(subject): Path<String>, RawQuery(query): RawQuery) -> Outcome {
    refresh(&registry).await?;
    let ledger = registry.ledger();
    let store = ledger.committed();
    let level = match store.level(Some(&subject)) {
        Some(level) => level,
        None if Query(query).has("defaultToGlobal") => store.effective_level(&subject),
        None => {
            let message = format!("Subject '{subject}' does not have subject-level compatibility configured");
            return Err(Refused::new(404, 40_408, message));
        }
    };
    Ok(Answer::ok(&json!({ "compatibilityLevel": level.name() })))
}

/// What the topic says nothing of is what holds here: nothing is written over HTTP.
const MODE: &str = "READONLY";

async fn global_mode(State(registry): Registry) -> Outcome {
    refresh(&registry).await?;
    let ledger = registry.ledger();
    Ok(Answer::ok(&json!({ "mode": ledger.committed().mode(None).unwrap_or(MODE) })))
}

async fn subject_mode(State(registry): Registry, Path(subject): Path<String>, RawQuery(query): RawQuery) -> Outcome {
    refresh(&registry).await?;
    let ledger = registry.ledger();
    let store = ledger.committed();
    let mode = match store.mode(Some(&subject)) {
        Some(mode) => mode,
        None if Query(query).has("defaultToGlobal") => store.mode(None).unwrap_or(MODE),
        None => {
            let message = format!("Subject '{subject}' does not have subject-level mode configured");
            return Err(Refused::new(404, 40_409, message));
        }
    };
    Ok(Answer::ok(&json!({ "mode": mode })))
}
