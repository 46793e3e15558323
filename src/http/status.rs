//! `GET /status`, for programs, and the page at `/` that shows it to people.
//!
//! Both are for whoever may read, as `/metrics` is: they command nothing, and hold no secret and no data of a row.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap, HeaderName, StatusCode,
        header::{
            ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};

use super::Served;
use crate::{
    metrics::{Metrics, status::Copies, unix_ms},
    schemas::api,
    snapshot::control::{Command, SnapshotControl},
};

/// The path of the document.
pub(crate) const PATH: &str = "/status";
/// How old what is known of copies may become before the copier is asked again.
const COPIES_AGE_MS_MAX: i64 = 1500;

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = concat!(include_str!("page/charts.js"), include_str!("page/page.js"));
const BODY: &str = include_str!("page/page.html");

struct Shared {
    name: String,
    metrics: Arc<Metrics>,
    control: Arc<SnapshotControl>,
    copies: Mutex<Known>,
    page: Page,
    /// Whether `/` is a registry's too.
    is_registry: bool,
}

/// What is known of copies.
#[derive(Default)]
struct Known {
    copies: Option<Copies>,
    /// Whether a question is on its way: it may take as long as there is no session, and must not take the places of others.
    is_asked: bool,
}

pub(super) fn router(served: &Served) -> Router {
    let shared = Arc::new(Shared {
        name: served.name.clone(),
        metrics: Arc::clone(&served.metrics),
        control: Arc::clone(&served.snapshot),
        copies: Mutex::default(),
        page: Page::new(),
        is_registry: served.registry.is_some(),
    });
    Router::new().route("/", get(page)).route(PATH, get(status)).with_state(shared)
}

async fn page(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let accepted = headers.get(ACCEPT).and_then(|accepted| accepted.to_str().ok());
    if shared.is_registry && !accepted.is_some_and(|accepted| accepted.contains("text/html")) {
        return api::root();
    }
    let Page { html, policy } = &shared.page;
    let about = [(CONTENT_TYPE, "text/html; charset=utf-8"), (VARY, "Accept"), (CONTENT_SECURITY_POLICY, policy)];
    (no_store(), about, html.clone()).into_response()
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    let copies = Shared::copies(&shared);
    match serde_json::to_vec(&shared.metrics.status(&shared.name, copies)) {
        Ok(body) => (no_store(), [(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn no_store() -> [(HeaderName, &'static str); 3] {
    [(CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (REFERRER_POLICY, "no-referrer")]
}

impl Shared {
    /// What is known of copies now. The copier may be in the midst of something, or there may be none: its answer is for whoever asks next.
    fn copies(shared: &Arc<Self>) -> Option<Copies> {
        let mut known = shared.known();
        let is_old = known.copies.as_ref().is_none_or(|copies| unix_ms() - copies.at_ms > COPIES_AGE_MS_MAX);
        if is_old && !known.is_asked {
            known.is_asked = true;
            let shared = Arc::clone(shared);
            tokio::spawn(async move {
                let answer = shared.control.ask(Command::Status).await;
                let mut known = shared.known();
                known.is_asked = false;
                // Without an answer the last one stays, and its time with it.
                if let Ok(status) = answer {
                    known.copies = Some(Copies::new(unix_ms(), status));
                }
            });
        }
        known.copies.clone()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // It is whole after every statement.
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The page, which is the same for everybody: it holds nothing of the instance, and asks for that.
struct Page {
    html: String,
    policy: String,
}

impl Page {
    fn new() -> Self {
        let html = BODY.replacen("/*STYLE*/", STYLE, 1).replacen("/*SCRIPT*/", SCRIPT, 1);
        let (style, script) = (hash(STYLE), hash(SCRIPT));
        // Its own style and script, and no other; its icon; and this instance to ask.
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; img-src data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
        );
        Self { html, policy }
    }
}

/// As a policy has it: SHA-256 in base64.
fn hash(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::new();
    for chunk in Sha256::digest(text).chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for (position, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let sextet = (bits >> shift & 0x3f) as usize;
            encoded.push(if position <= chunk.len() { ALPHABET[sextet].into() } else { '=' });
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_as_browsers_have_it() {
        // printf '' | openssl dgst -sha256 -binary | base64
        assert_eq!(hash(""), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
    }

    #[test]
    fn the_policy_is_for_what_is_in_the_page() {
        let Page { html, policy } = Page::new();
        for (tag, directive) in [("style", "style-src"), ("script", "script-src")] {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            assert_eq!(
                (html.matches(&open).count(), html.matches(&close).count()),
                (1, 1),
                "one {tag}, and it is not ended in its midst"
            );
            let inside = html.split(&open).nth(1).and_then(|rest| rest.split(&close).next()).expect("it is there");
            assert!(policy.contains(&format!("{directive} 'sha256-{}'", hash(inside))), "{policy}");
        }
        assert!(!policy.contains("unsafe"));
        // Neither would be let through, and nobody would see why.
        for refused in [" style=\"", " onclick=", " onload=", "src=\"http", "href=\"http", "@import", "url("] {
            assert!(!html.contains(refused), "{refused}");
        }
    }

    #[test]
    fn what_is_told_is_set_as_text() {
        for unsafe_way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "createContextualFragment",
            "eval(",
        ] {
            assert!(!SCRIPT.contains(unsafe_way), "{unsafe_way}");
        }
    }
}
