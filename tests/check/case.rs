//! A set-up of its own for each test, and what the program says of it.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Output},
};

use publisher::{KafkaSettings, TopicAdmin, TopicSettings};
use serde_json::Value;

use crate::stack::{Lease, Stack};

pub(crate) const SECRETS: [&str; 4] =
    ["check-password-of-the-role", "check-wrong-password", "check-sasl-password", "check-registry-password"];

/// A database of its own, and a configuration that is good until a test spoils it.
pub(crate) struct Case {
    pub(crate) lease: Lease,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) tables: String,
    pub(crate) postgres: String,
    pub(crate) kafka: String,
    pub(crate) bootstrap_servers: String,
    pub(crate) registry_url: String,
    /// The topic of the built-in registry, in the place of the URL.
    pub(crate) schema_topic: Option<String>,
    /// Of the program.
    pub(crate) environment: Vec<(String, String)>,
    folder: tempfile::TempDir,
}

/// What the program printed.
pub(crate) struct Checked {
    pub(crate) exit_code: i32,
    findings: Vec<Value>,
    pub(crate) text: String,
}

impl Case {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(Stack::shared(), name)
    }

    pub(crate) fn with(lease: Lease, name: &str) -> Self {
        let name = format!("check_{name}_{}", std::process::id());
        let case = Self {
            runtime: tokio::runtime::Runtime::new().expect("a runtime"),
            url: lease.postgres_url(&name),
            tables: r#"["public.*"]"#.into(),
            postgres: String::new(),
            kafka: String::new(),
            bootstrap_servers: lease.bootstrap_servers().to_owned(),
            registry_url: lease.registry_url().to_owned(),
            schema_topic: None,
            environment: Vec::new(),
            folder: tempfile::tempdir().expect("a folder"),
            lease,
            name,
        };
        case.sql_in("postgres", &format!("CREATE DATABASE {}", case.name));
        case.sql("CREATE TABLE orders (id int PRIMARY KEY, total numeric(10,2), area box)");
        case
    }

    pub(crate) fn sql(&self, sql: &str) {
        self.sql_in(&self.name, sql);
    }

    fn sql_in(&self, database: &str, sql: &str) {
        self.query_in(database, sql);
    }

    fn query_in(&self, database: &str, sql: &str) -> Vec<String> {
        let url = self.lease.postgres_url(database);
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connects");
            let driver = tokio::spawn(connection);
            let rows = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            drop(client);
            driver.await.expect("no panic").expect("closes");
            let value = |message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            };
            rows.into_iter().filter_map(value).collect()
        })
    }

    pub(crate) fn value(&self, sql: &str) -> String {
        self.query_in(&self.name, sql).pop().unwrap_or_default()
    }

    /// The server's major version.
    pub(crate) fn major(&self) -> i32 {
        self.value("SELECT current_setting('server_version_num')::int / 10000").parse().expect("a number")
    }

    /// Connects as a role of the test's own, with these attributes.
    pub(crate) fn as_role(&mut self, attributes: &str) -> String {
        let role = format!("{}_role", self.name);
        self.sql(&format!("CREATE ROLE {role} {attributes} PASSWORD '{}'", SECRETS[0]));
        let mut url: url::Url = self.url.parse().expect("a URL");
        url.set_username(&role).expect("it has a host");
        url.set_password(Some(SECRETS[0])).expect("it has a host");
        self.url = url.into();
        role
    }

    pub(crate) fn edit_url(&mut self, edit: impl FnOnce(&mut url::Url)) {
        let mut url: url::Url = self.url.parse().expect("a URL");
        edit(&mut url);
        self.url = url.into();
    }

    /// The servers.
    pub(crate) fn stack(&self) -> &Stack {
        &self.lease
    }

    /// A file beside the configuration; its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    }

    pub(crate) fn config(&self) -> std::path::PathBuf {
        let registry = match &self.schema_topic {
            Some(topic) => format!("topic = {topic:?}"),
            None => format!("url = {:?}", self.registry_url),
        };
        let text = format!(
            "name = {:?}\n[postgres]\nurl = {:?}\ntables = {}\n{}\n[kafka]\nbootstrap_servers = {:?}\n{}\n\
             [schema_registry]\n{registry}\n[http]\nlisten = \"127.0.0.1:0\"\n",
            self.name, self.url, self.tables, self.postgres, self.bootstrap_servers, self.kafka
        );
        let path = self.folder.path().join("pgsluice.toml");
        std::fs::write(&path, text).expect("written");
        path
    }

    pub(crate) fn pgsluice(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
        command.args(arguments).arg("--config").arg(self.config()).envs(self.environment.iter().cloned());
        command
    }

    pub(crate) fn check(&self) -> Checked {
        let json = self.pgsluice(&["check", "--json"]).output().expect("it runs");
        let text = self.pgsluice(&["check"]).output().expect("it runs");
        for output in [&json, &text] {
            self.assert_no_secret(output);
        }
        assert_eq!(json.status.code(), text.status.code(), "both forms say the same");
        let text = String::from_utf8(text.stdout).expect("UTF-8");
        let findings: Vec<Value> = serde_json::from_slice(&json.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}{}", String::from_utf8_lossy(&json.stdout), String::from_utf8_lossy(&json.stderr))
        });
        for fix in findings.iter().filter_map(|finding| finding["fix"].as_str()) {
            // Without the brokers none of Kafka's tools does anything.
            let words: Vec<&str> = fix.split_whitespace().collect();
            let is_called = |pair: &&[&str]| pair[0].starts_with("kafka-") && pair[1].starts_with("--");
            assert!(words.windows(2).filter(is_called).all(|pair| pair[1] == "--bootstrap-server"), "{fix}");
        }
        Checked { exit_code: json.status.code().expect("it ended by itself"), findings, text }
    }

    /// The findings alone, for what is tried in many ways: in half of the time.
    pub(crate) fn findings(&self) -> Checked {
        let json = self.pgsluice(&["check", "--json"]).output().expect("it runs");
        self.assert_no_secret(&json);
        let findings: Vec<Value> = serde_json::from_slice(&json.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&json.stderr)));
        let text = findings.iter().map(|finding| {
            let text = |field: &str| finding[field].as_str().unwrap_or_default().to_owned();
            format!("{} {}: {}; {}\n", text("severity"), text("id"), text("found"), text("fix"))
        });
        Checked { exit_code: json.status.code().expect("it ended by itself"), text: text.collect(), findings }
    }

    pub(crate) fn assert_no_secret(&self, output: &Output) {
        let url: url::Url = self.lease.postgres_url("app").parse().expect("a URL");
        let printed = [output.stdout.as_slice(), &output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        for secret in SECRETS.into_iter().chain(url.password()) {
            assert!(!printed.contains(secret), "a secret is printed: {printed}");
        }
    }

    pub(crate) fn kafka_settings(&self) -> KafkaSettings {
        KafkaSettings {
            bootstrap_servers: self.lease.bootstrap_servers().to_owned(),
            name: self.name.clone(),
            properties: std::collections::BTreeMap::new(),
            memory_limit_bytes: 64 << 20,
            token_file: None,
            observer: publisher::ErrorObserver::default(),
        }
    }

    pub(crate) fn create_topic(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let admin = TopicAdmin::new(&self.kafka_settings(), self.runtime.handle().clone()).expect("a client");
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        admin.create(topic, &TopicSettings { partitions, replication_factor: 1, config }).expect("created");
    }

    pub(crate) fn topics(&self) -> BTreeSet<String> {
        let admin = TopicAdmin::new(&self.kafka_settings(), self.runtime.handle().clone()).expect("a client");
        admin.partitions_by_topic().expect("they are listed").into_keys().collect()
    }

    /// A request to the registry that its client in the product has no use for.
    pub(crate) fn registry_request(&self, method: &str, path: &str, body: &str) -> String {
        let url: url::Url = self.lease.registry_url().parse().expect("a URL");
        let address = format!("{}:{}", url.host_str().expect("a host"), url.port().expect("a port"));
        let mut connection = TcpStream::connect(&address).expect("connects");
        write!(
            connection,
            "{method} {}{path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            url.path(),
            body.len()
        )
        .expect("sent");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("answered");
        assert!(answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')), "{answer}");
        answer
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.sql_in(
            "postgres",
            &format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{}'",
                self.name
            ),
        );
        self.sql_in("postgres", &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

impl Checked {
    pub(crate) fn of(&self, id: &str, severity: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["id"] == id && finding["severity"] == severity).collect()
    }

    /// The only finding of this kind.
    #[track_caller]
    pub(crate) fn one(&self, severity: &str, id: &str) -> &Value {
        match self.of(id, severity).as_slice() {
            [finding] => finding,
            found => panic!("{} findings of {severity} {id} in\n{}", found.len(), self.text),
        }
    }

    /// One error with this id: what was found and how to mend it hold these words, and they are printed for people too.
    #[track_caller]
    pub(crate) fn refuses(&self, id: &str, found: &str, fix: &str) {
        assert_eq!(self.exit_code, 5, "{}", self.text);
        let errors = self.of(id, "error");
        assert!(!errors.is_empty(), "no error {id} in\n{}", self.text);
        let fits = |error: &&&Value| {
            let text = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", text("about"), text("found")).contains(found)
                && text("fix").contains(fix)
                && !text("why").is_empty()
        };
        let error =
            errors.iter().find(fits).unwrap_or_else(|| panic!("no {id} with {found:?} and {fix:?} in\n{}", self.text));
        assert!(self.text.contains(error["fix"].as_str().expect("a text")), "{}", self.text);
    }

    /// No error but these.
    #[track_caller]
    pub(crate) fn has_only_errors(&self, ids: &[&str]) {
        let errors: BTreeSet<&str> = self
            .findings
            .iter()
            .filter(|finding| finding["severity"] == "error")
            .filter_map(|error| error["id"].as_str())
            .collect();
        assert_eq!(errors, ids.iter().copied().collect(), "{}", self.text);
    }
}

/// A port of this machine at which nothing listens.
pub(crate) fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}
