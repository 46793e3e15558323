//! Commands about copies: `GET /snapshot` tells how far they are, and `POST` to a verb below it asks for something; the body is JSON.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{ConnectInfo, State},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::access::Access;
use crate::{
    failure::{Code, Failure},
    snapshot::control::{Command, SnapshotControl},
};

/// The path of the status, and what verbs stand below.
pub(crate) const PATH: &str = "/snapshot";

/// The body of `start`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    /// `schema.table`
    pub(crate) tables: Vec<String>,
    /// Which rows, as SQL.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub(crate) condition: Option<String>,
    /// Over how many connections tables are copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parallel: Option<u8>,
}

/// The body of `stop`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stop {
    /// `schema.table`; all if there is none.
    #[serde(default)]
    pub(crate) tables: Vec<String>,
}

/// The body of an answer that something was not done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) code: String,
    pub(crate) error: String,
}

struct Shared {
    control: Arc<SnapshotControl>,
    access: Access,
}

pub(super) fn router(control: Arc<SnapshotControl>, access: Access) -> Router {
    let shared = Arc::new(Shared { control, access });
    let verb = |verb: &str| format!("{PATH}/{verb}");
    Router::new()
        .route(PATH, get(status))
        .route(&verb("start"), post(start))
        .route(&verb("stop"), post(stop))
        .route(&verb("pause"), post(pause))
        .route(&verb("resume"), post(resume))
        .with_state(shared)
}

type Of = State<Arc<Shared>>;
type Peer = ConnectInfo<SocketAddr>;

async fn status(State(shared): Of) -> Response {
    shared.ask(Ok(Command::Status)).await
}

async fn start(State(shared): Of, peer: Peer, headers: HeaderMap, body: Bytes) -> Response {
    let command = |Start { tables, condition, parallel }| Command::Start { tables, condition, parallel };
    shared.command(peer, &headers, || body_of(&body).map(command)).await
}

async fn stop(State(shared): Of, peer: Peer, headers: HeaderMap, body: Bytes) -> Response {
    let command = |Stop { tables }| Command::Stop { tables };
    shared.command(peer, &headers, || body_of(&body).map(command)).await
}

async fn pause(State(shared): Of, peer: Peer, headers: HeaderMap) -> Response {
    shared.command(peer, &headers, || Ok(Command::Pause)).await
}

async fn resume(State(shared): Of, peer: Peer, headers: HeaderMap) -> Response {
    shared.command(peer, &headers, || Ok(Command::Resume)).await
}

fn body_of<T: DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::new(Code::SnapshotRefused, format!("the body of the request is not understood: {error}"))
    })
}

impl Shared {
    async fn command(
        &self,
        ConnectInfo(peer): Peer,
        headers: &HeaderMap,
        command: impl FnOnce() -> Result<Command, Failure>,
    ) -> Response {
        let checked = self.access.check(peer, headers);
        self.ask(checked.and_then(|()| command())).await
    }

    async fn ask(&self, command: Result<Command, Failure>) -> Response {
        let answer = match command {
            Ok(command) => self.control.ask(command).await,
            Err(failure) => Err(failure),
        };
        let (status, body) = match answer {
            Ok(status) => (StatusCode::OK, serde_json::to_vec(&status)),
            Err(failure) => {
                let status = match failure.code() {
                    Code::ControlDenied => StatusCode::FORBIDDEN,
                    Code::SnapshotRefused => StatusCode::BAD_REQUEST,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                let refused = Refused { code: failure.code().as_str().to_owned(), error: failure.found().to_owned() };
                (status, serde_json::to_vec(&refused))
            }
        };
        match body {
            Ok(body) => (status, [(CONTENT_TYPE, "application/json")], body).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        }
    }
}
