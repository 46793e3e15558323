//! The client against a server of the test's own: what it sends, and what it makes of each answer.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use registry::{
    Action, Auth, Compatibility, CompatibilityLevel, ErrorKind, RegistryClient, RegistryError, RegistryOptions,
    SchemaId, Url,
};
use serde_json::json;
use wiremock::matchers::{any, body_json, header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const SCHEMA: &str = r#"{"type":"record","name":"Key","fields":[{"name":"id","type":"int"}]}"#;
const SECRET: &str = "kept-from-print";

fn options(server: &MockServer) -> RegistryOptions {
    RegistryOptions::new(server.uri().parse().expect("the server's URL is a URL"))
}

fn client(server: &MockServer) -> RegistryClient {
    RegistryClient::new(options(server)).expect("the options are sound")
}

/// A server that gives the same answer to everything.
async fn server(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(answer).mount(&server).await;
    server
}

fn id_answer(id: u32) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({ "id": id }))
}

fn refusal(status: u16, code: i64, message: &str) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({ "error_code": code, "message": message }))
}

async fn failure(answer: ResponseTemplate) -> RegistryError {
    let server = server(answer).await;
    client(&server).register("shop.public.orders-key", SCHEMA).await.expect_err("the answer is no success")
}

/// Whoever counts what fails is told what was asked for and what was answered; that something is not known is an answer.
#[tokio::test]
async fn whoever_counts_failures_is_told_of_each() {
    let told: Arc<Mutex<Vec<_>>> = Arc::default();
    for (status, code) in [(422, 42_201), (409, 409), (503, 50_001), (404, 40_403)] {
        let server = server(refusal(status, code, "no")).await;
        let client = client(&server);
        let seen = Arc::clone(&told);
        client.observe(move |error| {
            seen.lock().expect("whole").push((error.operation(), error.status(), error.code(), error.kind().name()));
        });
        client.schema_by_id(SchemaId::new(1)).await.expect_err("the answer is no success");
    }
    let nowhere =
        RegistryClient::new(RegistryOptions::new("http://127.0.0.1:9".parse().expect("a URL"))).expect("sound");
    let seen = Arc::clone(&told);
    nowhere.observe(move |error| {
        seen.lock().expect("whole").push((error.operation(), error.status(), error.code(), error.kind().name()));
    });
    nowhere.ping().await.expect_err("nobody is there");
    let operation = "reading a schema by its id";
    let expected = [
        (operation, Some(422), Some(42_201), "rejected"),
        (operation, Some(409), Some(409), "incompatible"),
        (operation, Some(503), Some(50_001), "unavailable"),
        ("listing subjects", None, None, "unreachable"),
    ];
    assert_eq!(*told.lock().expect("whole"), expected);
}

#[tokio::test]
async fn a_registration_is_the_request_of_the_api() {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path("/subjects/shop.public.orders-key/versions"))
        .and(header("content-type", "application/vnd.schemaregistry.v1+json"))
        .and(body_json(json!({ "schema": SCHEMA })))
        .respond_with(id_answer(4_294_967_295))
        .expect(1)
        .mount(&server)
        .await;
    let id = client(&server)
        .register("shop.public.orders-key", SCHEMA)
        .await
        .expect("the server answers this request alone");
    assert_eq!(id, SchemaId::new(u32::MAX));
}

#[tokio::test]
async fn the_path_of_the_url_is_kept_and_a_subject_stays_in_one_part() {
    for base in ["/apis/ccompat/v7", "/apis/ccompat/v7/"] {
        let server = server(id_answer(1)).await;
        let url: Url = format!("{}{base}", server.uri()).parse().expect("a URL");
        let client = RegistryClient::new(RegistryOptions::new(url)).expect("the options are sound");
        client.register("a/../b?c#d%2F é-key", SCHEMA).await.expect("the server takes everything");
        let requests = server.received_requests().await.expect("requests are recorded");
        assert_eq!(requests[0].url.path(), "/apis/ccompat/v7/subjects/a%2F..%2Fb%3Fc%23d%252F%20%C3%A9-key/versions");
        assert_eq!(requests[0].url.query(), None);
    }
}

#[tokio::test]
async fn a_subject_that_would_walk_up_the_path_is_refused_unsent() {
    let server = server(id_answer(1)).await;
    for subject in ["", ".", ".."] {
        let error = client(&server).register(subject, SCHEMA).await.expect_err("no such subject");
        assert_eq!((error.kind(), error.action()), (ErrorKind::Invalid, Action::Stop));
    }
    assert!(server.received_requests().await.expect("requests are recorded").is_empty());
}

async fn authorization(options: RegistryOptions, server: &MockServer) -> Option<String> {
    let client = RegistryClient::new(options).expect("the options are sound");
    assert!(!format!("{client:?} {}", client.url()).contains(SECRET));
    client.register("s", SCHEMA).await.expect("the server takes everything");
    let requests = server.received_requests().await.expect("requests are recorded");
    let header = requests[0].headers.get("authorization")?;
    Some(header.to_str().expect("the header is ASCII").to_owned())
}

#[tokio::test]
async fn each_way_of_authentication_sends_its_header() {
    let plain = server(id_answer(1)).await;
    assert_eq!(authorization(options(&plain), &plain).await, None);

    let basic = server(id_answer(1)).await;
    let auth = Auth::Basic { user: "ann".to_owned(), password: SECRET.into() };
    let header = authorization(RegistryOptions { auth, ..options(&basic) }, &basic).await;
    assert_eq!(header.as_deref(), Some("Basic YW5uOmtlcHQtZnJvbS1wcmludA=="));

    let bearer = server(id_answer(1)).await;
    let header =
        authorization(RegistryOptions { auth: Auth::Bearer(SECRET.into()), ..options(&bearer) }, &bearer).await;
    assert_eq!(header.as_deref(), Some("Bearer kept-from-print"));

    let in_url = server(id_answer(1)).await;
    let url = in_url.uri().replace("http://", "http://an%40n:kept-from%2Dprint@");
    let header = authorization(RegistryOptions::new(url.parse().expect("a URL")), &in_url).await;
    // "an@n:kept-from-print"
    assert_eq!(header.as_deref(), Some("Basic YW5AbjprZXB0LWZyb20tcHJpbnQ="));
}

#[tokio::test]
async fn no_secret_is_in_any_error() {
    for answer in [
        ResponseTemplate::new(401),
        ResponseTemplate::new(302).insert_header("location", "http://u:kept-from-print@elsewhere/?t=kept-from-print"),
    ] {
        let server = server(answer).await;
        let url = server.uri().replace("http://", "http://ann:kept-from-print@");
        let client =
            RegistryClient::new(RegistryOptions::new(url.parse().expect("a URL"))).expect("the options are sound");
        let error = client.register("s", SCHEMA).await.expect_err("the answer is no success");
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    }
    let url: Url = "http://ann:kept-from-print@localhost:8081".parse().expect("a URL");
    let options = RegistryOptions { auth: Auth::Bearer(SECRET.into()), ..RegistryOptions::new(url.clone()) };
    let error = RegistryClient::new(options.clone()).expect_err("two ways of authentication");
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    assert!(!format!("{options:?}").contains(SECRET));
}

#[tokio::test]
async fn an_id_is_asked_for_once_for_each_subject_and_schema() {
    let server = server(id_answer(5)).await;
    let client = client(&server);
    for _ in 0..3 {
        client.register("a", SCHEMA).await.expect("the server takes everything");
    }
    client.register("b", SCHEMA).await.expect("the server takes everything");
    client.register("a", r#""string""#).await.expect("the server takes everything");
    assert_eq!(server.received_requests().await.expect("requests are recorded").len(), 3);
}

#[tokio::test]
async fn callers_at_once_share_one_request_and_its_failure() {
    for (answer, id) in [(id_answer(9), Some(SchemaId::new(9))), (refusal(500, 50_001, "no store"), None)] {
        let server = server(answer.set_delay(Duration::from_millis(300))).await;
        let client = client(&server);
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let client = client.clone();
            callers.spawn(async move { client.register("s", SCHEMA).await.ok() });
        }
        assert_eq!(callers.join_all().await, vec![id; 20]);
        assert_eq!(server.received_requests().await.expect("requests are recorded").len(), 1);
    }
}

#[tokio::test]
async fn a_failure_is_not_cached() {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(ResponseTemplate::new(503)).up_to_n_times(1).mount(&server).await;
    Mock::given(any()).respond_with(id_answer(3)).mount(&server).await;
    let client = client(&server);
    assert_eq!(client.register("s", SCHEMA).await.expect_err("the first answer is 503").kind(), ErrorKind::Unavailable);
    assert_eq!(client.register("s", SCHEMA).await.expect("the second is an id"), SchemaId::new(3));
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_the_request_to_the_next() {
    let server = MockServer::start().await;
    Mock::given(any())
        .respond_with(id_answer(1).set_delay(Duration::from_hours(1)))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    Mock::given(any()).respond_with(id_answer(2)).mount(&server).await;
    let client = client(&server);
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.register("s", SCHEMA).await }
    });
    while server.received_requests().await.expect("requests are recorded").is_empty() {
        tokio::task::yield_now().await;
    }
    let second = tokio::spawn(async move { client.register("s", SCHEMA).await });
    first.abort();
    assert_eq!(second.await.expect("the task ends").expect("the second answer is an id"), SchemaId::new(2));
}

#[tokio::test]
async fn statuses_are_sorted_by_what_the_caller_must_do() {
    let retry = Action::Retry { after: None };
    let table = [
        (400, ErrorKind::Rejected, Action::Stop),
        (401, ErrorKind::Unauthenticated, Action::Stop),
        (403, ErrorKind::Forbidden, Action::Stop),
        (404, ErrorKind::NotFound, retry),
        (405, ErrorKind::Rejected, Action::Stop),
        (408, ErrorKind::Unavailable, retry),
        (409, ErrorKind::Incompatible, Action::Incompatible),
        (422, ErrorKind::Rejected, Action::Stop),
        (429, ErrorKind::Throttled, retry),
        (500, ErrorKind::Unavailable, retry),
        (501, ErrorKind::Rejected, Action::Stop),
        (502, ErrorKind::Unavailable, retry),
        (503, ErrorKind::Unavailable, retry),
        (504, ErrorKind::Unavailable, retry),
    ];
    for (status, kind, action) in table {
        let error = failure(ResponseTemplate::new(status).set_body_string("<html>gate\nway</html>")).await;
        assert_eq!((error.kind(), error.action(), error.status()), (kind, action, Some(status)));
        let text = error.to_string();
        assert!(text.contains("registering subject shop.public.orders-key"), "{text}");
        assert!(text.contains(&format!("HTTP {status}")) && text.contains("<html>gate way</html>"), "{text}");
    }
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_told_and_bounded() {
    for (header, seconds) in
        [("7", Some(7)), ("999999", Some(300)), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)]
    {
        for status in [429, 503] {
            let error = failure(ResponseTemplate::new(status).insert_header("retry-after", header)).await;
            assert_eq!(error.action(), Action::Retry { after: seconds.map(Duration::from_secs) }, "{status} {header}");
        }
    }
}

async fn incompatible(level: ResponseTemplate, global: ResponseTemplate) -> String {
    let server = MockServer::start().await;
    let answer =
        refusal(409, 409, "Schema being registered is incompatible: READER_FIELD_MISSING_DEFAULT_VALUE /fields/2");
    Mock::given(method("POST")).respond_with(answer).mount(&server).await;
    Mock::given(path("/config/orders-value")).respond_with(level).mount(&server).await;
    Mock::given(path("/config")).respond_with(global).mount(&server).await;
    let error = client(&server).register("orders-value", SCHEMA).await.expect_err("the server refuses");
    assert_eq!(error.action(), Action::Incompatible);
    error.to_string().replace(&server.uri(), "URL")
}

#[tokio::test]
async fn an_incompatible_schema_is_told_with_the_level_if_it_can_be_asked() {
    const WORDS: &str = "schema registry URL: registering subject orders-value: HTTP 409 Conflict: Schema being registered is \
                         incompatible: READER_FIELD_MISSING_DEFAULT_VALUE /fields/2";
    let fix = "; undo the change of the table, or relax the subject's compatibility level (PUT /config/{subject}) until the new schema is registered";
    let full = ResponseTemplate::new(200).set_body_json(json!({ "compatibilityLevel": "FULL" }));
    let backward = ResponseTemplate::new(200).set_body_json(json!({ "compatibilityLevel": "BACKWARD" }));
    let missing = refusal(404, 40_408, "Subject 'orders-value' does not have subject-level compatibility configured");

    assert_eq!(incompatible(full.clone(), backward.clone()).await, format!("{WORDS} (compatibility level FULL){fix}"));
    assert_eq!(incompatible(missing.clone(), backward).await, format!("{WORDS} (compatibility level BACKWARD){fix}"));
    assert_eq!(incompatible(missing, ResponseTemplate::new(500)).await, format!("{WORDS}{fix}"));
}

#[tokio::test]
async fn answers_that_are_not_the_apis_pass() {
    let huge = format!("{{\"id\": 1, \"padding\": \"{}\"}}", "x".repeat(5 << 20));
    for body in [
        "",
        "[]",
        "{}",
        "null",
        r#"{"id": -1}"#,
        r#"{"id": 4294967296}"#,
        r#"{"id": "1"}"#,
        "<html>",
        r#"{"id": 1"#,
        huge.as_str(),
    ] {
        let error = failure(ResponseTemplate::new(200).set_body_string(body)).await;
        assert_eq!(
            (error.kind(), error.action()),
            (ErrorKind::Malformed, Action::Retry { after: None }),
            "{}",
            body.len()
        );
        assert!(error.to_string().len() < 2_000, "the quotation is bounded");
    }
    let error = failure(ResponseTemplate::new(500).set_body_string("y".repeat(5 << 20))).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().len() < 2_000, "the quotation is bounded");
}

/// A proxy that has lost its backend answers for it: with 404 and a page, or with 200 and one.
#[tokio::test]
async fn a_registry_behind_a_proxy_that_has_lost_it_may_come_back() {
    let server = MockServer::start().await;
    let page = |status: u16| ResponseTemplate::new(status).set_body_string("<html>default backend</html>");
    for answer in [page(404), refusal(404, 404, "HTTP 404 Not Found"), page(200)] {
        Mock::given(any()).respond_with(answer).up_to_n_times(1).mount(&server).await;
    }
    Mock::given(any()).respond_with(id_answer(5)).mount(&server).await;
    let client = client(&server);
    for kind in [ErrorKind::NotFound, ErrorKind::NotFound, ErrorKind::Malformed] {
        let error = client.register("s", SCHEMA).await.expect_err("it is not the registry that answers");
        assert_eq!((error.kind(), error.action()), (kind, Action::Retry { after: None }), "{error}");
        assert!(error.to_string().contains("there behind what answers"), "{error}");
    }
    assert_eq!(client.register("s", SCHEMA).await.expect("the registry is back"), SchemaId::new(5));
}

#[tokio::test]
async fn a_slow_registry_is_given_up_at_the_deadline() {
    let server = server(id_answer(1).set_delay(Duration::from_hours(1))).await;
    let client =
        RegistryClient::new(RegistryOptions { request_timeout: Duration::from_millis(200), ..options(&server) });
    let error = client.expect("the options are sound").register("s", SCHEMA).await.expect_err("no answer comes");
    assert_eq!((error.kind(), error.action()), (ErrorKind::TimedOut, Action::Retry { after: None }));
    assert!(error.to_string().contains("no whole answer in time"), "{error}");
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up_at_the_deadline() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("the listener is bound"));
    let stall = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("the client connects");
        let mut buffer = [0; 4_096];
        let _ = socket.read(&mut buffer).await.expect("the client sends");
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\"").await.expect("the client listens");
        // Held open until the client goes away.
        let _ = socket.read(&mut buffer).await;
    });
    let options = RegistryOptions {
        request_timeout: Duration::from_millis(200),
        ..RegistryOptions::new(url.parse().expect("a URL"))
    };
    let error = RegistryClient::new(options)
        .expect("the options are sound")
        .register("s", SCHEMA)
        .await
        .expect_err("the body stalls");
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    stall.await.expect("the client closed the connection");
}

#[tokio::test]
async fn a_registry_that_is_down_may_come_back() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("the listener is bound"));
    drop(listener);
    let client = RegistryClient::new(RegistryOptions::new(url.parse().expect("a URL"))).expect("the options are sound");
    let error = client.register("s", SCHEMA).await.expect_err("nobody listens");
    assert_eq!((error.kind(), error.action()), (ErrorKind::Unreachable, Action::Retry { after: None }));
    let expected = format!(
        "schema registry {url}: registering subject s: no answer (Connection refused (os error 111)); start the registry, or correct its URL"
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn redirects_stay_within_the_origin_and_keep_the_method() {
    let elsewhere = server(id_answer(1)).await;
    let server = MockServer::start().await;
    Mock::given(path("/subjects/within/versions"))
        .respond_with(ResponseTemplate::new(308).insert_header("location", "/target"))
        .mount(&server)
        .await;
    Mock::given(path("/target"))
        .and(method("POST"))
        .and(body_json(json!({ "schema": SCHEMA })))
        .respond_with(id_answer(6))
        .mount(&server)
        .await;
    let redirect = |status: u16, to: &str| ResponseTemplate::new(status).insert_header("location", to);
    Mock::given(path("/subjects/outside/versions")).respond_with(redirect(307, &elsewhere.uri())).mount(&server).await;
    Mock::given(path("/subjects/found/versions")).respond_with(redirect(302, "/target")).mount(&server).await;
    Mock::given(path("/subjects/loop/versions"))
        .respond_with(redirect(307, "/subjects/loop/versions"))
        .mount(&server)
        .await;
    let options = RegistryOptions { auth: Auth::Bearer(SECRET.into()), ..options(&server) };
    let client = RegistryClient::new(options).expect("the options are sound");

    assert_eq!(client.register("within", SCHEMA).await.expect("the redirect is followed"), SchemaId::new(6));
    for (subject, target) in [("outside", elsewhere.uri()), ("found", server.uri()), ("loop", server.uri())] {
        let error = client.register(subject, SCHEMA).await.expect_err("the redirect is not followed");
        assert_eq!((error.kind(), error.action()), (ErrorKind::Redirected, Action::Stop), "{subject}: {error}");
        assert!(error.to_string().contains(&format!("to {target}")), "{error}");
    }
    assert!(
        elsewhere.received_requests().await.expect("requests are recorded").is_empty(),
        "no request left the origin"
    );
    let loops = server.received_requests().await.expect("requests are recorded");
    assert!(loops.iter().filter(|request| request.url.path() == "/subjects/loop/versions").count() <= 5);
}

#[tokio::test]
async fn what_is_not_there_is_told_from_a_wrong_path() {
    for code in [40_401, 40_403] {
        let server = server(refusal(404, code, "not found")).await;
        assert_eq!(client(&server).lookup("s", SCHEMA).await.expect("not being there is an answer"), None);
    }
    // What a registry says of itself will not pass.
    let stranger = server(refusal(404, 40_403, "Schema 1 not found")).await;
    let error = client(&stranger).schema_by_id(SchemaId::new(1)).await.expect_err("it is not there");
    assert_eq!((error.kind(), error.action()), (ErrorKind::Unknown, Action::Stop));

    let server = server(ResponseTemplate::new(404).set_body_string("nginx")).await;
    let client = client(&server);
    assert_eq!(client.lookup("s", SCHEMA).await.expect_err("no registry").kind(), ErrorKind::NotFound);
    assert_eq!(client.subject_level("s").await.expect_err("no registry").kind(), ErrorKind::NotFound);
    assert_eq!(client.check_compatibility("s", SCHEMA).await.expect_err("no registry").kind(), ErrorKind::NotFound);
    assert_eq!(client.schema_by_id(SchemaId::new(1)).await.expect_err("no registry").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn compatibility_is_asked_of_all_versions_or_of_the_latest() {
    let answer = |is_compatible: bool| {
        ResponseTemplate::new(200)
            .set_body_json(json!({ "is_compatible": is_compatible, "messages": ["a field is gone"] }))
    };
    let all = server(answer(false)).await;
    let outcome = client(&all).check_compatibility("s", SCHEMA).await.expect("the server answers");
    assert_eq!(outcome, Compatibility::Incompatible(vec!["a field is gone".to_owned()]));
    assert_eq!(
        all.received_requests().await.expect("requests are recorded")[0].url.path(),
        "/compatibility/subjects/s/versions"
    );

    let latest = MockServer::start().await;
    Mock::given(path("/compatibility/subjects/s/versions/latest")).respond_with(answer(true)).mount(&latest).await;
    let outcome =
        client(&latest).check_compatibility("s", SCHEMA).await.expect("the server answers the second request");
    assert_eq!(outcome, Compatibility::Compatible);

    let new = server(refusal(404, 40_401, "Subject 's' not found.")).await;
    assert_eq!(
        client(&new).check_compatibility("s", SCHEMA).await.expect("the server answers"),
        Compatibility::NoVersions
    );
}

#[tokio::test]
async fn a_ping_takes_a_list_of_any_length_and_nothing_else() {
    let subjects = serde_json::to_string(&vec!["a-subject-with-a-long-name"; 400_000]).expect("strings are JSON");
    let long = server(ResponseTemplate::new(200).set_body_string(format!("\n {subjects}"))).await;
    client(&long).ping().await.expect("a list is the answer of a registry");
    for body in ["", " ", "<html>[]", "{}"] {
        let other = server(ResponseTemplate::new(200).set_body_string(body)).await;
        assert_eq!(client(&other).ping().await.expect_err("no registry").kind(), ErrorKind::Malformed);
    }
}

#[tokio::test]
async fn a_registry_that_answers_is_told_from_what_stands_in_its_place() {
    let text = |status, body: &str| ResponseTemplate::new(status).set_body_raw(body, "text/html");
    let level = ResponseTemplate::new(200).set_body_json(json!({ "compatibilityLevel": "BACKWARD" }));
    // Confluent's, and Karapace's, of a right that a stream does not need; and one that has no level for all.
    let without_code = ResponseTemplate::new(403).set_body_json(json!({ "message": "Forbidden" }));
    for answer in [level, refusal(403, 40301, "denied"), without_code, refusal(404, 40_408, "no level")] {
        let server = server(answer).await;
        client(&server).answers().await.expect("a registry has answered");
    }
    for (answer, kind) in [
        (text(200, "<html>Welcome</html>"), ErrorKind::Malformed),
        (ResponseTemplate::new(200).set_body_json(json!({ "status": "fine" })), ErrorKind::Malformed),
        (text(404, "<html>404</html>"), ErrorKind::NotFound),
        (ResponseTemplate::new(404).set_body_json(json!({ "message": "no route matched" })), ErrorKind::NotFound),
        (text(403, "<html>blocked</html>"), ErrorKind::Forbidden),
        (text(405, ""), ErrorKind::Rejected),
        (text(429, "slow down"), ErrorKind::Throttled),
        (refusal(429, 429, "too many requests"), ErrorKind::Throttled),
        (text(302, ""), ErrorKind::Redirected),
        (text(502, "bad gateway"), ErrorKind::Unavailable),
        (refusal(500, 50_002, "timed out"), ErrorKind::Unavailable),
        (refusal(401, 40101, "who are you?"), ErrorKind::Unauthenticated),
    ] {
        let server = server(answer.clone()).await;
        let error = client(&server).answers().await.expect_err("nobody can register a schema there");
        assert_eq!(error.kind(), kind, "{answer:?}: {error}");
    }
}

#[tokio::test]
async fn levels_are_read() {
    let server = MockServer::start().await;
    let level = |text: &str| ResponseTemplate::new(200).set_body_json(json!({ "compatibilityLevel": text }));
    Mock::given(path("/config/s")).respond_with(level("FORWARD_TRANSITIVE")).mount(&server).await;
    Mock::given(path("/config/unset")).respond_with(refusal(404, 40_408, "not configured")).mount(&server).await;
    Mock::given(path("/config")).respond_with(level("SIDEWAYS")).mount(&server).await;
    let client = client(&server);
    assert_eq!(
        client.subject_level("s").await.expect("the server answers"),
        Some(CompatibilityLevel::ForwardTransitive)
    );
    assert_eq!(client.subject_level("unset").await.expect("the server answers"), None);
    let other = CompatibilityLevel::Other("SIDEWAYS".to_owned());
    assert_eq!(client.global_level().await.expect("the server answers"), other);
    assert_eq!(client.effective_level("unset").await.expect("the server answers"), other);
}

#[test]
fn options_that_cannot_be_used_are_refused() {
    for url in ["ftp://host", "http://host/?query", "http://host/#fragment", "data:text"] {
        let error =
            RegistryClient::new(RegistryOptions::new(url.parse().expect("a URL"))).expect_err("the URL is of no use");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
    }
    let url: Url = "https://host".parse().expect("a URL");
    for file in ["/nonexistent/ca.pem", "/dev/null"] {
        let options = RegistryOptions { ca_certificate: Some(file.into()), ..RegistryOptions::new(url.clone()) };
        let error = RegistryClient::new(options).expect_err("the file holds no certificate");
        assert!(error.to_string().contains(file), "{error}");
    }
}
