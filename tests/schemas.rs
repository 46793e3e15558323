//! The built-in registry on a real Kafka: several instances at once, deaths at bad moments, topics that others wrote, and its HTTP side.

#[expect(dead_code, reason = "shared with the end-to-end tests, which end servers as well")]
#[path = "end_to_end/harness/stack.rs"]
mod stack;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use pgsluice::{
    config,
    failure::Code,
    http::{self, Served},
    metrics::Metrics,
    schemas::{Refusal, built_in::BuiltIn},
};
use publisher::{ExclusiveWriter, Isolation, KafkaSettings, LogReader, TopicAdmin, TopicSettings};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use registry::{
    Compatibility, RegistryClient, RegistryOptions, SchemaId,
    store::{AvroSchema, Ledger, Plan},
};
use serde_json::{Value, json};
use stack::{Lease, Stack};

/// A topic of its own.
struct Case {
    lease: Lease,
    topic: String,
}

impl Case {
    fn new(label: &str) -> Self {
        Self { lease: Stack::shared(), topic: format!("_schemas_{label}_{}", std::process::id()) }
    }

    fn settings(&self) -> KafkaSettings {
        KafkaSettings {
            bootstrap_servers: self.lease.bootstrap_servers().to_owned(),
            name: "schemas-test".into(),
            properties: BTreeMap::new(),
            memory_limit_bytes: 64 << 20,
            token_file: None,
            observer: publisher::ErrorObserver::default(),
        }
    }

    /// An instance, with clients and a state of its own.
    fn instance(&self) -> Arc<BuiltIn> {
        Arc::new(BuiltIn::new(&self.settings(), &self.topic, 1))
    }

    /// The lock as every instance takes it.
    fn lock(&self) -> ExclusiveWriter {
        ExclusiveWriter::take(&self.settings().named(format!("pgsluice:schemas:{}", self.topic))).expect("the lock")
    }

    fn create_topic(&self, partitions: i32, cleanup_policy: &str) {
        let admin = TopicAdmin::new(&self.settings(), tokio::runtime::Handle::current()).expect("a client");
        let config = BTreeMap::from([("cleanup.policy".to_owned(), cleanup_policy.to_owned())]);
        let settings = TopicSettings { partitions, replication_factor: 1, config };
        tokio::task::block_in_place(|| admin.create(&self.topic, &settings)).expect("a topic");
    }

    /// Writes as any program could, without a transaction.
    fn write(&self, records: &[(&str, &str)]) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", self.lease.bootstrap_servers()).create().expect("a producer");
        for (key, value) in records {
            let mut record = BaseRecord::<str, str>::to(&self.topic).key(key).partition(0);
            record.payload = (!value.is_empty()).then_some(value);
            producer.send(record).map_err(|(error, _)| error).expect("it is queued");
        }
        producer.flush(Duration::from_secs(20)).expect("they are delivered");
    }

    /// The log as either view has it, read by a reader that knows nothing.
    fn log(&self, isolation: Isolation) -> Vec<(Value, Option<Value>)> {
        let written = LogReader::new(&self.settings(), &self.topic, Isolation::Uncommitted).end().expect("an end");
        let mut reader = LogReader::new(&self.settings(), &self.topic, isolation);
        // A commit returns before its mark is in every partition.
        let began = std::time::Instant::now();
        let end = loop {
            let end = reader.end().expect("an end");
            if end >= written {
                break end;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{end} of {written} offsets are readable");
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut records = Vec::new();
        let json = |bytes: &[u8]| serde_json::from_slice(bytes).expect("JSON");
        let visit = |_, key: Option<&[u8]>, value: Option<&[u8]>| {
            records.push((json(key.expect("a key")), value.map(json)));
        };
        reader.read_on(end, Duration::from_secs(20), visit).expect("the end is reached");
        records
    }

    async fn serve(&self, instance: &Arc<BuiltIn>) -> Api {
        let (ask, stop) = tokio::sync::watch::channel(false);
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let address: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
        let metrics = Arc::new(Metrics::new(64 << 20));
        let name = "shop".to_owned();
        let served = Served { name, metrics, registry: Some(Arc::clone(instance)), snapshot: Arc::default() };
        let config = config::Http { listen: address, token: None, allow_plaintext_credentials: false };
        http::serve(&config, served, stop).await.expect("it listens");
        // Nobody asks it to stop: it ends with the test.
        std::mem::forget(ask);
        Api { address: address.to_string() }
    }
}

/// The HTTP endpoint, asked with bytes of our own.
struct Api {
    address: String,
}

struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Api {
    fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        tokio::task::block_in_place(|| {
            let mut connection = TcpStream::connect(&self.address).expect("it listens");
            connection.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
            let length = body.len();
            write!(
                connection,
                "{method} {path} HTTP/1.0\r\nHost: x\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            )
            .expect("it is sent");
            let mut text = String::new();
            connection.read_to_string(&mut text).expect("an answer");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            Answer {
                status: head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"),
                head: head.to_ascii_lowercase(),
                body: serde_json::from_str(body).unwrap_or(Value::Null),
            }
        })
    }

    #[track_caller]
    fn get(&self, path: &str, expect: &Value) {
        let answer = self.ask("GET", path, "");
        assert_eq!((answer.status, &answer.body), (200, expect), "{path}");
        assert!(answer.head.contains("content-type: application/vnd.schemaregistry.v1+json"), "{}", answer.head);
    }

    #[track_caller]
    fn refuses(&self, method: &str, path: &str, body: &str, status: u16, code: i64) {
        let answer = self.ask(method, path, body);
        assert_eq!(
            (answer.status, &answer.body["error_code"]),
            (status, &json!(code)),
            "{method} {path}: {}",
            answer.body
        );
        assert!(answer.body["message"].as_str().is_some_and(|message| !message.is_empty()), "{path}");
        assert!(answer.head.contains("content-type: application/vnd.schemaregistry.v1+json"), "{}", answer.head);
    }
}

fn schema(number: usize) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f{number}","type":["null","int"],"default":null}}]}}"#)
}

/// What must hold of a log, whoever wrote it.
fn assert_sound(log: &[(Value, Option<Value>)]) -> BTreeMap<u64, String> {
    let (mut ids, mut texts, mut versions) = (BTreeMap::new(), HashMap::new(), HashMap::new());
    for (_, value) in log.iter().filter(|(key, _)| key["keytype"] == "SCHEMA") {
        let value = value.as_ref().expect("nothing was deleted");
        let (id, text) = (value["id"].as_u64().expect("an id"), value["schema"].as_str().expect("a text").to_owned());
        assert_eq!(*ids.entry(id).or_insert_with(|| text.clone()), text, "the id {id} has two schemas");
        assert_eq!(*texts.entry(text.clone()).or_insert(id), id, "{text} has two ids");
        let version = (value["subject"].to_string(), value["version"].to_string());
        assert_eq!(*versions.entry(version.clone()).or_insert(id), id, "{version:?} is two");
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_register_at_once_agree() {
    const INSTANCES: usize = 3;
    const SCHEMAS: usize = 30;
    let case = Case::new("race");
    case.create_topic(1, "compact");
    case.write(&[(r#"{"keytype":"CONFIG","subject":null,"magic":0}"#, r#"{"compatibilityLevel":"NONE"}"#)]);
    let mut tasks = Vec::new();
    for number in 0..INSTANCES {
        let instance = case.instance();
        tasks.push(tokio::spawn(async move {
            let mut told = Vec::new();
            // Each begins elsewhere, so that all of them write, and comes by all.
            for step in 0..SCHEMAS {
                let which = (step + number * SCHEMAS / INSTANCES) % SCHEMAS;
                let subject = format!("s{}", which % 4);
                loop {
                    match instance.register(&subject, &schema(which)).await {
                        Ok(id) => break told.push((subject, which, id)),
                        // As the stream does: it waits, and asks again.
                        Err(refusal) => assert_eq!(refusal.code, Code::RegistryUnavailable, "{}", refusal.found),
                    }
                }
            }
            told
        }));
    }
    let mut told = BTreeMap::new();
    for task in tasks {
        for (subject, which, id) in task.await.expect("it ends") {
            assert_eq!(*told.entry((subject, which)).or_insert(id), id, "two instances were told different ids");
        }
    }
    let ids: BTreeSet<SchemaId> = told.values().copied().collect();
    assert_eq!(ids.len(), SCHEMAS, "two schemas were told the same id");
    let (committed, written) = (case.log(Isolation::Committed), case.log(Isolation::Uncommitted));
    assert_eq!(assert_sound(&committed).len(), SCHEMAS);
    assert_sound(&written);
    println!(
        "{INSTANCES} instances, {SCHEMAS} schemas, {} records committed, {} given up",
        committed.len() - 1,
        written.len() - committed.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_writer_left_open_is_taken_up_again_and_its_id_is_nobody_elses() {
    let case = Case::new("dead");
    let instance = case.instance();
    let first = instance.register("a-value", &schema(1)).await.expect("it is registered");
    // As one that is killed between its write and its commit leaves it.
    let mut ledger = Ledger::default();
    for (key, value) in case.log(Isolation::Committed) {
        let (key, value) = (key.to_string(), value.map(|value| value.to_string()));
        ledger.read_committed(0, Some(key.as_bytes()), value.as_deref().map(str::as_bytes));
        ledger.read_uncommitted(0, Some(key.as_bytes()), value.as_deref().map(str::as_bytes));
    }
    let left = AvroSchema::parse(&schema(2)).expect("a schema");
    let Ok(Plan::Write { id: left_id, key, value, .. }) = ledger.plan("a-value", &left) else { panic!("it is new") };
    tokio::task::block_in_place(|| {
        let written = case.lock().write(&case.topic, &key, &value).expect("it is written");
        std::mem::forget(written);
    });

    // It had lost the lock without knowing it: it starts over. Another schema first.
    let other = instance.register("b-value", &schema(3)).await.expect("it is registered");
    assert!(![first, left_id].contains(&other), "{other} is an id that was seen with another schema");
    assert_eq!(case.instance().register("a-value", &schema(2)).await.expect("it is registered"), left_id);
    assert_eq!(instance.register("a-value", &schema(2)).await.expect("it is known"), left_id);
    let (committed, written) = (case.log(Isolation::Committed), case.log(Isolation::Uncommitted));
    assert_sound(&written);
    let twice: Vec<_> =
        written.iter().filter(|(_, value)| value.as_ref().is_some_and(|value| value["id"] == left_id.get())).collect();
    assert_eq!(twice.len(), 2, "it was written again");
    assert_eq!(twice[0], twice[1], "unchanged");
    assert_eq!(written.len(), committed.len() + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_was_fenced_commits_nothing() {
    let case = Case::new("fenced");
    case.create_topic(1, "compact");
    let instance = case.instance();
    tokio::task::block_in_place(|| {
        let old = case.lock();
        let new = case.lock();
        let refused = old.write(&case.topic, b"{}", b"old").and_then(publisher::Written::commit);
        let error = refused.map(drop).expect_err("it has lost the lock");
        assert_eq!(error.verdict(), publisher::Verdict::Fenced, "{error}");
        let record = br#"{"keytype":"NOOP","magic":0}"#;
        new.write(&case.topic, record, b"{}").and_then(publisher::Written::commit).map(drop).expect("it has the lock");
    });
    let log = case.log(Isolation::Committed);
    assert_eq!(log.len(), 1, "{log:?}");
    assert_eq!(instance.register("a", &schema(1)).await.expect("it takes the lock itself"), SchemaId::new(1));
}

/// Word for word as in the records of a registry by Confluent.
const FOREIGN: &[(&str, &str)] = &[
    (r#"{"keytype":"NOOP","magic":0}"#, ""),
    (
        r#"{"keytype":"SCHEMA","subject":"orders-key","version":1,"magic":1}"#,
        r#"{"subject":"orders-key","version":1,"id":1,"schema":"\"string\"","deleted":false}"#,
    ),
    (
        r#"{"keytype":"SCHEMA","subject":"orders-value","version":1,"magic":1}"#,
        r#"{"subject":"orders-value","version":1,"id":7,"schema":"{\"type\":\"record\",\"name\":\"V\",\"fields\":[{\"name\":\"id\",\"type\":\"int\"}]}","deleted":false}"#,
    ),
    (
        r#"{"keytype":"SCHEMA","subject":"p-value","version":3,"magic":1}"#,
        r#"{"subject":"p-value","version":3,"id":8,"schemaType":"PROTOBUF","references":[{"name":"x.proto","subject":"x","version":1}],"schema":"syntax = \"proto3\";","deleted":false}"#,
    ),
    (r#"{"keytype":"CONFIG","subject":"orders-key","magic":0}"#, r#"{"compatibilityLevel":"FULL_TRANSITIVE"}"#),
    (r#"{"keytype":"SOMETHING_NEW","subject":"x","magic":5}"#, r#"{"a":1}"#),
];

const V1: &str = r#"{"type":"record","name":"V","fields":[{"name":"id","type":"int"}]}"#;
const V2: &str = r#"{"type":"record","name":"V","fields":[{"name":"id","type":"int"},{"name":"note","type":["null","string"],"default":null}]}"#;
const OTHER: &str = r#"{"type":"record","name":"V","fields":[{"name":"id","type":"string"}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_another_registry_is_taken_over() {
    let case = Case::new("foreign");
    case.create_topic(1, "compact");
    case.write(FOREIGN);
    let instance = case.instance();
    let spaced = r#"{ "name": "V", "type": "record", "fields": [ { "type": "int", "name": "id" } ] }"#;
    assert_eq!(instance.register("orders-value", spaced).await.expect("it is known"), SchemaId::new(7));
    assert_eq!(
        instance.register("lines-key", "\"string\"").await.expect("as under the other subject"),
        SchemaId::new(1)
    );
    assert_eq!(instance.register("orders-value", V2).await.expect("it is compatible"), SchemaId::new(9));
    let refused: Refusal = instance.register("orders-value", OTHER).await.expect_err("it is not");
    assert_eq!(refused.code, Code::RegistryIncompatible);
    assert!(
        refused.found.contains("version 2: /id: int cannot be read as string (compatibility level BACKWARD)"),
        "{}",
        refused.found
    );
    // Somebody lowers the level, as the message says.
    let level = r#"{"keytype":"CONFIG","subject":"orders-value","magic":0}"#;
    case.write(&[(level, r#"{"compatibilityLevel":"NONE"}"#)]);
    assert_eq!(instance.register("orders-value", OTHER).await.expect("anything goes"), SchemaId::new(10));
    assert_sound(&case.log(Isolation::Committed));
    // A record that nobody can read: nothing new, and all that is known.
    case.write(&[("{", "{}")]);
    let refused = instance.register("orders-value", &schema(1)).await.expect_err("nothing is registered beside it");
    assert_eq!(refused.code, Code::RegistryRefused);
    assert!(refused.found.contains("its key is no key of a schema registry"), "{}", refused.found);
    assert_eq!(instance.register("orders-value", V2).await.expect("it is known"), SchemaId::new(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_could_lose_schemas_is_refused() {
    for (label, partitions, policy, expect) in [
        ("wide", 2, "compact", "2 partitions"),
        ("short", 1, "delete", "\"delete\""),
        ("both", 1, "compact,delete", "set it to \"compact\""),
    ] {
        let case = Case::new(label);
        case.create_topic(partitions, policy);
        let refused = case.instance().prepare().await.expect_err("it is unfit");
        assert_eq!(refused.code, Code::TopicUnfit, "{}", refused.found);
        assert!(refused.found.contains(expect), "{}", refused.found);
        let refused = case.instance().register("a", &schema(1)).await;
        if partitions == 1 {
            assert_eq!(refused.expect_err("it is unfit").code, Code::TopicUnfit);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_reads_what_was_registered() {
    let case = Case::new("api");
    let (writer, reader) = (case.instance(), case.instance());
    let api = case.serve(&reader).await;
    // Before the topic is there: nothing is known, and asking does not create it.
    api.get("/subjects", &json!([]));
    api.refuses("GET", "/schemas/ids/1", "", 404, 40_403);

    let id = writer.register("shop/a-value", V1).await.expect("it is registered").get();
    api.get(&format!("/schemas/ids/{id}"), &json!({ "schema": V1 }));
    api.get(&format!("/schemas/ids/{id}/schema"), &serde_json::from_str(V1).expect("JSON"));
    // Another instance has written since: what is not known is looked for.
    let next = writer.register("shop/a-value", V2).await.expect("it is registered").get();
    let key = writer.register("shop/a-key", "\"int\"").await.expect("it is registered").get();
    api.get(&format!("/schemas/ids/{next}?subject=shop%2Fa-value&fetchMaxId=false"), &json!({ "schema": V2 }));
    api.get(&format!("/schemas/ids/{key}"), &json!({ "schema": "\"int\"" }));
    api.get("/", &json!({}));
    api.get("/schemas/types", &json!(["AVRO"]));
    api.get("/subjects", &json!(["shop/a-key", "shop/a-value"]));
    api.get("/subjects?subjectPrefix=shop%2Fa-v", &json!(["shop/a-value"]));
    api.get("/subjects/shop%2Fa-value/versions", &json!([1, 2]));
    let latest = json!({ "subject": "shop/a-value", "version": 2, "id": next, "schema": V2 });
    for version in ["2", "latest", "-1"] {
        api.get(&format!("/subjects/shop%2Fa-value/versions/{version}"), &latest);
    }
    api.get("/subjects/shop%2Fa-value/versions/1/schema", &serde_json::from_str(V1).expect("JSON"));
    api.get(&format!("/schemas/ids/{id}/subjects"), &json!(["shop/a-value"]));
    api.get(&format!("/schemas/ids/{id}/versions"), &json!([{ "subject": "shop/a-value", "version": 1 }]));
    api.get("/config", &json!({ "compatibilityLevel": "BACKWARD" }));
    api.get("/config/shop%2Fa-value?defaultToGlobal=true", &json!({ "compatibilityLevel": "BACKWARD" }));
    api.get("/mode", &json!({ "mode": "READONLY" }));
    for (path, code) in [
        ("/subjects/none/versions", 40_401),
        ("/subjects/none/versions/1", 40_401),
        ("/subjects/none/versions/latest", 40_401),
        ("/subjects/shop%2Fa-value/versions/3", 40_402),
        ("/schemas/ids/4000000", 40_403),
        ("/schemas/ids/4000000/versions", 40_403),
        ("/config/shop%2Fa-value", 40_408),
        ("/mode/shop%2Fa-value", 40_409),
        ("/schemas/ids/x", 404),
        ("/nothing", 404),
    ] {
        api.refuses("GET", path, "", 404, code);
    }
    api.refuses("GET", "/subjects/shop%2Fa-value/versions/0", "", 422, 42_202);
    api.refuses("GET", "/subjects/shop%2Fa-value/versions/one", "", 422, 42_202);

    let body = |schema: &str| json!({ "schema": schema }).to_string();
    let found = api.ask("POST", "/subjects/shop%2Fa-value?normalize=false", &body(V2));
    assert_eq!((found.status, found.body), (200, latest));
    api.refuses("POST", "/subjects/shop%2Fa-value", &body(OTHER), 404, 40_403);
    api.refuses("POST", "/subjects/none", &body(V1), 404, 40_401);
    api.refuses("POST", "/subjects/shop%2Fa-value", &body("{"), 422, 42_201);
    api.refuses("POST", "/subjects/shop%2Fa-value", "{", 400, 400);
    api.refuses("POST", "/subjects/shop%2Fa-value", &body(&"x".repeat(3 << 20)), 413, 413);
    let protobuf = json!({ "schema": "x", "schemaType": "PROTOBUF" }).to_string();
    api.refuses("POST", "/subjects/shop%2Fa-value", &protobuf, 422, 42_201);
    let versions = "/compatibility/subjects/shop%2Fa-value/versions";
    for (path, of, expect) in [
        (format!("{versions}/latest"), V1, json!({ "is_compatible": true })),
        (format!("{versions}/1"), OTHER, json!({ "is_compatible": false })),
        (
            format!("{versions}?verbose=true"),
            OTHER,
            json!({ "is_compatible": false, "messages": ["version 2: /id: int cannot be read as string"] }),
        ),
        ("/compatibility/subjects/none/versions/latest".to_owned(), OTHER, json!({ "is_compatible": true })),
    ] {
        let answer = api.ask("POST", &path, &body(of));
        assert_eq!((answer.status, answer.body), (200, expect), "{path}");
    }
    api.refuses("POST", &format!("{versions}/9"), &body(V1), 404, 40_402);
    for (method, path) in [
        ("POST", "/subjects/shop%2Fa-value/versions"),
        ("DELETE", "/subjects/shop%2Fa-value"),
        ("DELETE", "/subjects/shop%2Fa-value/versions/1"),
        ("PUT", "/config"),
        ("PUT", "/config/shop%2Fa-value"),
        ("PUT", "/mode"),
    ] {
        api.refuses(method, path, &body(V1), 422, 42_205);
    }
    assert!(api.ask("GET", "/metrics", "").head.contains("text/plain"), "metrics are served beside it");
}

/// The client that talks to registries of others finds its way about this one.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_remote_registries_understands_it() {
    let case = Case::new("client");
    let instance = case.instance();
    let id = instance.register("a-value", V1).await.expect("it is registered");
    let api = case.serve(&instance).await;
    let url = format!("http://{}", api.address).parse().expect("a URL");
    let client = RegistryClient::new(RegistryOptions::new(url)).expect("a client");
    client.ping().await.expect("it answers");
    assert_eq!(client.lookup("a-value", V1).await.expect("it answers"), Some(id));
    assert_eq!(client.lookup("a-value", V2).await.expect("it answers"), None);
    assert_eq!(client.lookup("b-value", V2).await.expect("it answers"), None);
    assert_eq!(client.schema_by_id(id).await.expect("it answers"), V1);
    assert_eq!(client.check_compatibility("a-value", V2).await.expect("it answers"), Compatibility::Compatible);
    let verdict = client.check_compatibility("a-value", OTHER).await.expect("it answers");
    assert!(matches!(verdict, Compatibility::Incompatible(reasons) if reasons[0].contains("/id")));
    assert_eq!(client.subject_level("a-value").await.expect("it answers"), None);
    assert_eq!(client.effective_level("a-value").await.expect("it answers").as_str(), "BACKWARD");
    let error = client.register("a-value", V2).await.expect_err("nobody registers over HTTP");
    assert_eq!(error.code(), Some(42_205));
}
