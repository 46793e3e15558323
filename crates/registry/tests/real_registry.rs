//! The client against a real registry, whose address is in `PGSLUICE_TEST_REGISTRY_URL`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use registry::{Action, Compatibility, ErrorKind, RegistryClient, RegistryOptions, SchemaId};

const FIRST: &str = r#"{"type":"record","name":"Value","namespace":"shop","fields":[{"name":"id","type":"int"}]}"#;
/// Adds a field with a default: readers of either schema read the other.
const WIDER: &str = r#"{"type":"record","name":"Value","namespace":"shop","fields":[{"name":"id","type":"int"},{"name":"note","type":["null","string"],"default":null}]}"#;
/// Another type for a field: no reader of one reads the other.
const OTHER: &str = r#"{"type":"record","name":"Value","namespace":"shop","fields":[{"name":"id","type":"string"}]}"#;

fn url() -> String {
    std::env::var("PGSLUICE_TEST_REGISTRY_URL").expect(
        "PGSLUICE_TEST_REGISTRY_URL is not set: this test needs a real registry; run `dev/stack run --no-kafka --no-postgres -- cargo test -p registry`",
    )
}

fn client() -> RegistryClient {
    let url = url().parse().expect("PGSLUICE_TEST_REGISTRY_URL is a URL");
    RegistryClient::new(RegistryOptions::new(url)).expect("the options are sound")
}

/// A subject that no earlier run has used.
fn fresh_subject() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_nanos();
    format!("test.{now}.{}/with slash-value", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Sets a subject's level with plain HTTP, independently of the client.
async fn set_level(subject: &str, level: &str) {
    let encoded = subject.replace('/', "%2F").replace(' ', "%20");
    let request =
        reqwest_client().put(format!("{}/config/{encoded}", url())).header("content-type", "application/json");
    let response =
        request.body(format!(r#"{{"compatibility":"{level}"}}"#)).send().await.expect("the registry answers");
    assert!(response.status().is_success(), "{}", response.status());
}

fn reqwest_client() -> reqwest::Client {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().expect("the builder is sound")
}

#[tokio::test]
async fn a_schema_is_registered_once_and_read_back() {
    let subject = fresh_subject();
    client().ping().await.expect("the registry is there");
    assert_eq!(client().lookup(&subject, FIRST).await.expect("the registry answers"), None);
    assert_eq!(
        client().check_compatibility(&subject, FIRST).await.expect("the registry answers"),
        Compatibility::NoVersions
    );

    let id = client().register(&subject, FIRST).await.expect("the subject is new");
    assert_eq!(
        client().register(&subject, FIRST).await.expect("it is registered"),
        id,
        "another client gets the same id"
    );
    assert_eq!(client().lookup(&subject, FIRST).await.expect("the registry answers"), Some(id));
    assert_eq!(client().lookup(&subject, WIDER).await.expect("the registry answers"), None);
    let text = client().schema_by_id(id).await.expect("the id is known");
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("a schema is JSON");
    assert_eq!(parse(&text), parse(FIRST));
}

#[tokio::test]
async fn an_incompatible_schema_is_refused_with_the_level() {
    let subject = fresh_subject();
    let client = client();
    client.register(&subject, FIRST).await.expect("the subject is new");
    set_level(&subject, "BACKWARD").await;
    assert_eq!(
        client.check_compatibility(&subject, WIDER).await.expect("the registry answers"),
        Compatibility::Compatible
    );
    let check = client.check_compatibility(&subject, OTHER).await.expect("the registry answers");
    assert!(matches!(check, Compatibility::Incompatible(_)), "{check:?}");

    let error = client.register(&subject, OTHER).await.expect_err("the schema is incompatible");
    assert_eq!(error.action(), Action::Incompatible, "{error}");
    assert!(error.to_string().contains("(compatibility level BACKWARD)"), "{error}");
    assert_eq!(client.effective_level(&subject).await.expect("the registry answers").as_str(), "BACKWARD");

    // What somebody repairs at the registry is seen by the same client.
    set_level(&subject, "NONE").await;
    client.register(&subject, OTHER).await.expect("anything goes");
}

#[tokio::test]
async fn a_text_that_is_no_schema_stops() {
    let error = client().register(&fresh_subject(), r#"{"type":"nonsense"}"#).await.expect_err("no schema");
    assert_eq!(error.action(), Action::Stop, "{error}");
}

#[tokio::test]
async fn an_unknown_id_is_unknown() {
    let error = client().schema_by_id(SchemaId::new(2_000_000_000)).await.expect_err("no such schema");
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
}

#[tokio::test]
async fn a_wrong_path_is_not_found() {
    let url = format!("{}/nothing-here", url()).parse().expect("a URL");
    let client = RegistryClient::new(RegistryOptions::new(url)).expect("the options are sound");
    let error = client.ping().await.expect_err("nothing is there");
    // What answers so may be a proxy that has lost the registry, and is asked again.
    assert_eq!((error.kind(), error.action()), (ErrorKind::NotFound, Action::Retry { after: None }), "{error}");
}
