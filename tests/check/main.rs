//! `pgsluice check` against real servers: a good set-up passes, and each misconfiguration is found, named by its id and told how to mend.
//! Whatever is wrong, no secret is printed, and nothing is changed anywhere.

#[expect(dead_code, reason = "shared with the end-to-end tests, which end servers as well")]
#[path = "end_to_end/harness/stack.rs"]
mod stack;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use publisher::{KafkaSettings, MemoryBudget, OutgoingRecord, Producer, TopicAdmin, TopicSettings, record_cost};
use serde_json::Value;
use stack::{Lease, Stack};

const SECRETS: [&str; 4] =
    ["check-password-of-the-role", "check-wrong-password", "check-sasl-password", "check-registry-password"];

/// A database of its own, and a configuration that is good until a test spoils it.
struct Case {
    lease: Lease,
    runtime: tokio::runtime::Runtime,
    name: String,
    url: String,
    tables: String,
    postgres: String,
    kafka: String,
    bootstrap_servers: String,
    registry_url: String,
    /// The topic of the built-in registry, in the place of the URL.
    schema_topic: Option<String>,
    folder: tempfile::TempDir,
}

/// What the program printed.
struct Checked {
    exit_code: i32,
    findings: Vec<Value>,
    text: String,
}

impl Case {
    fn new(name: &str) -> Self {
        let lease = Stack::shared();
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
            folder: tempfile::tempdir().expect("a folder"),
            lease,
            name,
        };
        case.sql_in("postgres", &format!("CREATE DATABASE {}", case.name));
        case.sql("CREATE TABLE orders (id int PRIMARY KEY, total numeric(10,2), area box)");
        case
    }

    fn sql(&self, sql: &str) {
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

    fn value(&self, sql: &str) -> String {
        self.query_in(&self.name, sql).pop().unwrap_or_default()
    }

    /// Connects as a role of the test's own, with these attributes.
    fn as_role(&mut self, attributes: &str) -> String {
        let role = format!("{}_role", self.name);
        self.sql(&format!("CREATE ROLE {role} {attributes} PASSWORD '{}'", SECRETS[0]));
        let mut url: url::Url = self.url.parse().expect("a URL");
        url.set_username(&role).expect("it has a host");
        url.set_password(Some(SECRETS[0])).expect("it has a host");
        self.url = url.into();
        role
    }

    fn edit_url(&mut self, edit: impl FnOnce(&mut url::Url)) {
        let mut url: url::Url = self.url.parse().expect("a URL");
        edit(&mut url);
        self.url = url.into();
    }

    fn config(&self) -> std::path::PathBuf {
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

    fn pgsluice(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
        command.args(arguments).arg("--config").arg(self.config());
        command
    }

    fn check(&self) -> Checked {
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
        Checked { exit_code: json.status.code().expect("it ended by itself"), findings, text }
    }

    fn assert_no_secret(&self, output: &Output) {
        let url: url::Url = self.lease.postgres_url("app").parse().expect("a URL");
        let printed = [output.stdout.as_slice(), &output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        for secret in SECRETS.into_iter().chain(url.password()) {
            assert!(!printed.contains(secret), "a secret is printed: {printed}");
        }
    }

    fn kafka_settings(&self) -> KafkaSettings {
        KafkaSettings {
            bootstrap_servers: self.lease.bootstrap_servers().to_owned(),
            name: self.name.clone(),
            properties: std::collections::BTreeMap::new(),
            memory_limit_bytes: 64 << 20,
        }
    }

    fn create_topic(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let admin = TopicAdmin::new(&self.kafka_settings(), self.runtime.handle().clone()).expect("a client");
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        admin.create(topic, &TopicSettings { partitions, replication_factor: 1, config }).expect("created");
    }

    fn topics(&self) -> BTreeSet<String> {
        let admin = TopicAdmin::new(&self.kafka_settings(), self.runtime.handle().clone()).expect("a client");
        admin.partitions_by_topic().expect("they are listed").into_keys().collect()
    }

    /// A request to the registry that its client in the product has no use for.
    fn registry_request(&self, method: &str, path: &str, body: &str) -> String {
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
    fn of(&self, id: &str, severity: &str) -> Vec<&Value> {
        self.findings.iter().filter(|finding| finding["id"] == id && finding["severity"] == severity).collect()
    }

    /// The only finding of this kind.
    #[track_caller]
    fn one(&self, severity: &str, id: &str) -> &Value {
        match self.of(id, severity).as_slice() {
            [finding] => finding,
            found => panic!("{} findings of {severity} {id} in\n{}", found.len(), self.text),
        }
    }

    /// One error with this id: what was found and how to mend it hold these words, and they are printed for people too.
    #[track_caller]
    fn refuses(&self, id: &str, found: &str, fix: &str) {
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
    fn has_only_errors(&self, ids: &[&str]) {
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
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

#[test]
fn a_good_setup_passes_and_nothing_is_changed() {
    let case = Case::new("good");
    let topics = case.topics();
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
    checked.has_only_errors(&[]);
    for id in
        ["postgres-reachable", "wal-level", "publication", "slot", "kafka-reachable", "registry-reachable", "schemas"]
    {
        checked.one("ok", id);
    }
    let columns = checked.one("ok", "columns-as-text")["found"].as_str().unwrap_or_default();
    assert!(columns.contains("area box") && !columns.contains("total"), "{columns}");
    assert!(checked.text.contains("0 errors"), "{}", checked.text);

    assert_eq!(case.value("SELECT count(*) FROM pg_publication"), "0");
    assert_eq!(case.value(&format!("SELECT count(*) FROM pg_replication_slots WHERE database = '{}'", case.name)), "0");
    // Other tests run beside this one.
    let new: Vec<_> = case.topics().difference(&topics).filter(|topic| topic.contains(&case.name)).cloned().collect();
    assert!(new.is_empty(), "{new:?}");
    let subjects = case.registry_request("GET", "/subjects", "");
    assert!(!subjects.contains(&case.name), "{subjects}");
}

#[test]
fn an_invalid_configuration_is_told_from_a_misconfigured_system() {
    let mut case = Case::new("invalid");
    case.postgres = "slotname = \"x\"".into();
    let output = case.pgsluice(&["check"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("postgres.slotname"));
    case.assert_no_secret(&output);
}

#[test]
fn what_keeps_postgresql_from_being_reached_is_named_and_the_others_are_still_checked() {
    let mut case = Case::new("unreached");
    let good = case.url.clone();
    let check = |case: &mut Case, edit: &dyn Fn(&mut url::Url), id: &str, found: &str, fix: &str| {
        case.url.clone_from(&good);
        case.edit_url(edit);
        let checked = case.check();
        checked.refuses(id, found, fix);
        checked.has_only_errors(&[id]);
        checked.one("ok", "kafka-reachable");
        checked.one("ok", "registry-reachable");
    };
    let set_password = |url: &mut url::Url| url.set_password(Some(SECRETS[1])).expect("it has a host");
    check(&mut case, &set_password, "postgres-authentication", "password", "postgres.password_file");
    check(
        &mut case,
        &|url| url.set_path("nowhere"),
        "postgres-database",
        "nowhere",
        "correct the database in postgres.url",
    );
    let set_host = |url: &mut url::Url| url.set_host(Some("database.invalid")).expect("a host");
    check(&mut case, &set_host, "postgres-unreachable", "database.invalid", "correct the host database.invalid");
    let port = closed_port();
    let set_port = |url: &mut url::Url| url.set_port(Some(port)).expect("a port");
    check(&mut case, &set_port, "postgres-unreachable", &port.to_string(), "listen_addresses");
    let require_tls = |url: &mut url::Url| url.set_query(Some("sslmode=require"));
    check(&mut case, &require_tls, "postgres-tls", "does not offer TLS", "sslmode");
}

#[test]
fn all_systems_may_be_down_at_once() {
    let mut case = Case::new("down");
    let port = closed_port();
    case.edit_url(|url| url.set_port(Some(port)).expect("a port"));
    case.bootstrap_servers = format!("127.0.0.1:{port}");
    case.registry_url = format!("http://user:{}@127.0.0.1:{port}", SECRETS[3]);
    let checked = case.check();
    checked.refuses("postgres-unreachable", &port.to_string(), "start PostgreSQL");
    checked.refuses("kafka-unreachable", "Connection refused", "kafka.bootstrap_servers");
    checked.refuses("registry-unreachable", &port.to_string(), "schema_registry.url");
    checked.has_only_errors(&["postgres-unreachable", "kafka-unreachable", "registry-unreachable"]);
}

#[test]
fn all_systems_may_be_silent_at_once() {
    let mut case = Case::new("silent");
    // It accepts, by its backlog, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    case.edit_url(|url| url.set_port(Some(port)).expect("a port"));
    case.bootstrap_servers = format!("127.0.0.1:{port}");
    case.registry_url = format!("http://127.0.0.1:{port}");
    let checked = case.check();
    checked.has_only_errors(&["postgres-unreachable", "kafka-unreachable", "registry-unreachable"]);
}

#[test]
fn a_role_without_rights_is_told_each_that_it_lacks() {
    let mut case = Case::new("rights");
    let role = case.as_role("LOGIN");
    let checked = case.check();
    checked.refuses("replication-attribute", "", &format!("ALTER ROLE \"{role}\" REPLICATION"));
    checked.refuses(
        "publication-privilege",
        "CREATE on database",
        &format!("GRANT CREATE ON DATABASE \"{}\" TO \"{role}\"", case.name),
    );
    checked.refuses(
        "publication-privilege",
        "public.orders belongs to postgres",
        &format!("GRANT \"postgres\" TO \"{role}\""),
    );
    checked.has_only_errors(&["replication-attribute", "publication-privilege"]);
    let lacking = checked.one("warning", "table-privileges");
    assert_eq!(lacking["fix"], format!("GRANT SELECT ON TABLE \"public\".\"orders\" TO \"{role}\";"));

    // Its advice is good.
    case.sql(&format!(
        "ALTER ROLE {role} REPLICATION; GRANT CREATE ON DATABASE {} TO {role}; GRANT postgres TO {role}",
        case.name
    ));
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
    checked.one("ok", "table-privileges");
    case.sql(&format!("DROP OWNED BY {role}"));
}

#[test]
fn tables_that_would_break_or_stop_something_are_named() {
    let mut case = Case::new("tables");
    case.sql("CREATE TABLE notes (body text); CREATE VIEW latest AS SELECT 1 AS one");
    case.sql(r#"CREATE TABLE words (id int PRIMARY KEY, "a b" text, a_b text)"#);
    case.tables = r#"["public.*", "public.latest", "Public.Orders", "public.nothing", "later_*.*"]"#.into();
    let checked = case.check();
    let fix = "ALTER TABLE \"public\".\"notes\" REPLICA IDENTITY FULL";
    checked.refuses("replica-identity-missing", "public.notes: it has no primary key", fix);
    checked.refuses("schema-unrepresentable", "\"a b\" and \"a_b\"", "RENAME COLUMN \"a_b\" TO");
    checked.refuses("pattern-unmatched", "public.latest: latest is a view", "take it out");
    checked.refuses("pattern-unmatched", "Public.Orders: ", "did you mean public.orders?");
    checked.refuses("pattern-unmatched", "public.nothing: ", "postgres.tables");
    assert_eq!(checked.one("warning", "pattern-unmatched")["about"], "later_*.*");
    checked.has_only_errors(&["replica-identity-missing", "schema-unrepresentable", "pattern-unmatched"]);

    case.tables = r#"["elsewhere.*"]"#.into();
    let checked = case.check();
    checked.refuses("pattern-unmatched", "elsewhere.*: ", "correct the pattern");
    checked.has_only_errors(&["pattern-unmatched"]);
}

#[test]
fn tables_are_left_out_whole() {
    let mut case = Case::new("left_out");
    case.sql("CREATE TABLE tmp_notes (body text)");
    case.sql(
        "CREATE TABLE events (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE events_old PARTITION OF events FOR VALUES FROM (0) TO (10)",
    );
    case.postgres = r#"exclude_tables = ["public.tmp_*", "public.events", "later_*.*"]"#.into();
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "a table without identity is left out: {}", checked.text);
    assert_eq!(checked.one("ok", "tables")["found"], "1: public.orders");
    let unmatched = checked.one("warning", "pattern-unmatched");
    assert_eq!(unmatched["about"], "later_*.*");
    assert_eq!(unmatched["why"], "what it was to leave out is streamed");

    // Rows of the partition come under the name of the table that is asked for.
    case.postgres = r#"exclude_tables = ["public.tmp_*", "public.events_old", "Public.Orders"]"#.into();
    let checked = case.check();
    checked.refuses("config-invalid", "public.events_old, a partition of public.events", "change either key");
    checked.refuses("pattern-unmatched", "Public.Orders: ", "did you mean public.orders?");
    case.postgres =
        "exclude_tables = [\"public.tmp_*\", \"public.events_old\"]\npublish_via_partition_root = false".into();
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
}

#[test]
fn rules_of_columns_that_cannot_be_applied_are_named() {
    let mut case = Case::new("columns");
    case.sql("CREATE TABLE users (id int PRIMARY KEY, email text, born date)");
    let rules = |rules: &str| format!("[columns]\n{rules}");
    case.kafka = rules(r#"exclude = ["public.users.id", "public.users.emial", "later.*.*"]"#);
    let checked = case.check();
    checked.refuses(
        "column-rule-unfit",
        "column \"id\" of public.users is part of the key, and cannot be left out",
        "[columns]",
    );
    checked.refuses("pattern-unmatched", "public.users.emial: ", "columns.exclude");
    assert_eq!(checked.one("warning", "pattern-unmatched")["about"], "later.*.*");
    for (mask, found) in [
        (
            r#"columns = "*.users.id", mask = "asterisks""#,
            "column \"id\" of public.users is part of the key, and masked like this",
        ),
        (
            r#"columns = "*.users.born", mask = "truncate", characters = 4"#,
            "column \"born\" of public.users is no string",
        ),
    ] {
        case.kafka = rules(&format!("masks = [{{ {mask} }}]"));
        let checked = case.check();
        checked.refuses("column-rule-unfit", found, "[columns]");
        checked.has_only_errors(&["column-rule-unfit"]);
    }
    case.kafka = rules(&format!(
        "exclude = [\"*.users.born\"]\nhash_salt = {:?}\nmasks = [{{ columns = [\"*.users.id\", \"*.*.email\"], mask = \"hash\" }}]",
        SECRETS[1]
    ));
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
}

#[test]
fn what_is_otherwise_for_a_table_is_checked_for_that_one() {
    let mut case = Case::new("otherwise");
    case.sql("CREATE TABLE items (id int PRIMARY KEY)");
    let topic = |table: &str| format!("{}.public.{table}", case.name);
    case.create_topic(&topic("items"), 2, &[]);
    let (items, orders) = (topic("items"), topic("orders"));
    case.kafka = "[[tables]]\nmatch = [\"public.items\", \"later.*\"]\npartitions = 3\n\
                  [[tables]]\nmatch = \"public.orders\"\npartitions = 7"
        .into();
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
    let partitions = checked.one("warning", "topic-partitions");
    assert_eq!(partitions["about"], items.as_str());
    assert_eq!(partitions["found"], "it has 2 partitions, and partitions in its [[tables]] is 3");
    assert_eq!(checked.one("warning", "pattern-unmatched")["about"], "later.*");
    assert!(checked.text.contains(&format!("run creates {orders} (partitions: 7")), "{}", checked.text);
    case.kafka = "[[tables]]\nmatch = \"public.order\"\npartitions = 3".into();
    case.check().refuses("pattern-unmatched", "public.order: ", "[[tables]]");
}

#[test]
fn a_topic_that_two_tables_would_share_or_that_is_none_is_named() {
    let mut case = Case::new("routes");
    case.sql("CREATE TABLE items (id int PRIMARY KEY)");
    case.kafka =
        "[kafka.topics]\ntemplate = \"{name}-{table}\"\nroutes = [{ match = '.*-(.).*', topic = \"check_routed_$1\" }]"
            .into();
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
    assert!(checked.text.contains("run creates check_routed_i, check_routed_o"), "{}", checked.text);
    case.kafka = "[kafka.topics]\nroutes = [{ match = '.*', topic = \"check_routed\" }]".into();
    let checked = case.check();
    checked.refuses("topic-collision", "public.items, public.orders would share this topic", "kafka.topics.routes");
    case.kafka = "[kafka.topics]\nroutes = [{ match = '.*items', topic = \"..\" }]".into();
    let checked = case.check();
    checked.refuses("schema-unrepresentable", "\"..\" is no name of a topic", "kafka.topics.template");
}

/// The plans are those of the stream, and so are the names that the configuration asks for.
#[test]
fn names_are_what_the_configuration_makes_of_them() {
    let mut case = Case::new("names");
    case.sql(r#"CREATE TABLE words (id int PRIMARY KEY, "a b" text, a_b text)"#);
    let checked = case.check();
    checked.refuses("schema-unrepresentable", "\"a b\" and \"a_b\"", "events.names = \"avro_unicode\"");
    case.kafka = "[events]\nnames = \"none\"".into();
    let checked = case.check();
    checked.refuses("schema-unrepresentable", "\"a b\", a name of public.words", "events.names = \"avro\"");
    checked.has_only_errors(&["schema-unrepresentable"]);
    case.kafka = "[events]\nnames = \"avro_unicode\"".into();
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
}

#[test]
fn a_publication_that_is_not_managed_is_checked_only() {
    let mut case = Case::new("unmanaged");
    case.postgres = "manage = false\npublication = \"sales\"\nslot = \"check_unmanaged\"".into();
    let checked = case.check();
    checked.refuses(
        "publication-missing",
        "publication sales",
        "CREATE PUBLICATION \"sales\" FOR TABLE \"public\".\"orders\"",
    );
    let slot = "pg_create_logical_replication_slot('check_unmanaged', 'pgoutput')";
    checked.refuses("slot-missing", "check_unmanaged does not exist", slot);

    case.sql(
        "CREATE TABLE lines (id int PRIMARY KEY); CREATE PUBLICATION sales FOR TABLE orders WITH (publish = 'insert')",
    );
    let checked = case.check();
    let fix = "ALTER PUBLICATION \"sales\" ADD TABLE \"public\".\"lines\"";
    checked.refuses("publication-mismatch", "lacks public.lines", fix);
    case.sql(fix);
    let checked = case.check();
    let warning = checked.one("warning", "publication-operations");
    assert_eq!(warning["found"], "publication sales leaves out update, delete, truncate");
    checked.has_only_errors(&["slot-missing"]);
}

#[test]
fn a_slot_that_does_not_fit_is_refused_as_run_refuses_it() {
    let mut case = Case::new("slots");
    let slot = format!("s{}", std::process::id());
    case.postgres = format!("slot = {slot:?}");
    case.sql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"));
    let checked = case.check();
    let fix = format!("pg_drop_replication_slot('{slot}')");
    checked.refuses("slot-unfit", "its output plugin is test_decoding", &fix);
    checked.has_only_errors(&["slot-unfit"]);

    case.sql(&format!("SELECT {fix}"));
    case.sql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
    let checked = case.check();
    checked.refuses("slot-without-checkpoint", "Kafka holds no checkpoint", "pgsluice run --adopt-slot");
    checked.has_only_errors(&["slot-without-checkpoint"]);
    checked.one("ok", "slot-wal");

    // Without Kafka it is not known whether there is a checkpoint, and nothing is claimed.
    case.bootstrap_servers = format!("127.0.0.1:{}", closed_port());
    let checked = case.check();
    checked.has_only_errors(&["kafka-unreachable"]);
    assert!(checked.one("ok", "slot")["found"].as_str().unwrap_or_default().contains("cannot be told without Kafka"));
}

#[test]
fn kafka_that_does_not_fit_is_named() {
    let mut case = Case::new("kafka");
    let checkpoints = format!("{}_checkpoints", case.name);
    let topic = format!("{}.public.orders", case.name);
    case.create_topic(&checkpoints, 2, &[]);
    case.create_topic(&topic, 2, &[("min.insync.replicas", "2"), ("max.message.bytes", "1000")]);
    case.sql("CREATE TABLE lines (id int PRIMARY KEY)");
    case.kafka = format!(
        "checkpoint_topic = {checkpoints:?}\n[kafka.properties]\n\"transaction.timeout.ms\" = \"900001\"\n\
         [kafka.topics]\npartitions = 3\nreplication_factor = 3"
    );
    let checked = case.check();
    checked.refuses("checkpoint-topic", "has 2 partitions", "kafka-topics.sh --delete");
    checked.refuses("transaction-timeout", "900001", "\"transaction.timeout.ms\" = \"900000\" or less");
    checked.refuses("topic-min-insync-replicas", "2 of 1", "min.insync.replicas=1");
    // One broker cannot hold three replicas.
    checked.refuses("topic-creation", "public.lines", "kafka.topics");
    checked.has_only_errors(&[
        "checkpoint-topic",
        "transaction-timeout",
        "topic-min-insync-replicas",
        "topic-creation",
    ]);
    assert_eq!(checked.one("warning", "topic-partitions")["about"], topic);
    assert!(
        checked.one("warning", "message-max-bytes")["fix"].as_str().unwrap_or_default().contains("max.message.bytes")
    );

    let checkpoints = format!("{}_deleted", case.name);
    case.create_topic(&checkpoints, 1, &[("cleanup.policy", "compact,delete")]);
    case.kafka = format!("checkpoint_topic = {checkpoints:?}");
    let checked = case.check();
    checked.refuses("checkpoint-topic", "compact,delete", "--add-config cleanup.policy=compact");
}

#[test]
fn a_checkpoint_behind_an_open_transaction_is_said_to_be_unknown() {
    let mut case = Case::new("open");
    let checkpoints = format!("{}_checkpoints", case.name);
    case.create_topic(&checkpoints, 1, &[("cleanup.policy", "compact")]);
    case.kafka = format!("checkpoint_topic = {checkpoints:?}");

    // As an instance leaves it that is killed in the middle.
    let budget = Arc::new(MemoryBudget::new(1 << 20));
    let producer = Producer::connect(&case.kafka_settings(), Arc::clone(&budget)).expect("connects");
    let mut transaction = producer.begin().expect("begins");
    budget.charge(record_cost(1, 1, 0));
    let record = OutgoingRecord {
        topic: &checkpoints,
        key: Some(b"k"),
        value: Some(b"v"),
        headers: &[],
        lsn: pgoutput::Lsn::INVALID,
    };
    transaction.send(&record).expect("queued");
    let began = Instant::now();
    while budget.used_bytes() > 0 {
        transaction.poll().expect("no failure");
        assert!(began.elapsed() < Duration::from_mins(1), "it is not delivered");
        std::thread::sleep(Duration::from_millis(5));
    }
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
    checked.one("warning", "checkpoint-unreadable");

    transaction.abort();
    assert_eq!(case.check().one("ok", "checkpoint")["found"], "none yet");
}

#[test]
fn every_property_that_librdkafka_does_not_know_is_named() {
    let mut case = Case::new("properties");
    case.kafka = format!(
        "[kafka.properties]\n\"linger.mss\" = \"5\"\n\"sasl.pasword\" = {:?}\n\"socket.timeout.ms\" = {:?}",
        SECRETS[2], SECRETS[2]
    );
    let checked = case.check();
    for name in ["linger.mss", "sasl.pasword", "socket.timeout.ms"] {
        checked.refuses("kafka-property", name, &format!("correct {name} in kafka.properties"));
    }
    checked.has_only_errors(&["kafka-property"]);
}

#[test]
fn a_schema_that_the_registry_would_refuse_is_named() {
    let case = Case::new("registry");
    let subject = format!("{}.public.orders-value", case.name);
    let body = serde_json::json!({ "schema": r#"{"type":"string"}"# }).to_string();
    case.registry_request("POST", &format!("/subjects/{subject}/versions"), &body);
    case.registry_request("PUT", &format!("/config/{subject}"), r#"{"compatibility":"BACKWARD"}"#);
    let checked = case.check();
    checked.refuses("registry-incompatible", &subject, &format!("PUT /config/{subject}"));
    checked.refuses("registry-incompatible", "under level BACKWARD", "undo the change");
    checked.has_only_errors(&["registry-incompatible"]);
}

#[test]
fn a_url_that_is_no_registry_is_told() {
    let mut case = Case::new("no_registry");
    case.registry_url = case.registry_url.replace("/apis/ccompat/v7", "/nowhere");
    let checked = case.check();
    checked.refuses("registry-refused", "404", "schema_registry.url");
    checked.has_only_errors(&["registry-refused"]);
}

#[test]
fn the_built_in_registry_is_examined_and_nothing_is_written() {
    let mut case = Case::new("built_in");
    let topic = format!("_schemas_{}", case.name);
    case.schema_topic = Some(topic.clone());
    let checked = case.check();
    checked.has_only_errors(&[]);
    assert!(checked.one("ok", "schema-topic")["found"].as_str().unwrap_or_default().contains("run creates it"));
    assert!(checked.one("ok", "registry-subjects")["found"].as_str().unwrap_or_default().contains("2 new"));
    assert!(!case.topics().contains(&topic), "the topic was created");

    case.create_topic(&topic, 1, &[("cleanup.policy", "compact")]);
    let subject = format!("{}.public.orders-value", case.name);
    let writer = publisher::ExclusiveWriter::take(&case.kafka_settings().named(format!("{}_writer", case.name)));
    let key = format!(r#"{{"keytype":"SCHEMA","subject":"{subject}","version":1,"magic":1}}"#);
    let value = format!(r#"{{"subject":"{subject}","version":1,"id":1,"schema":"\"string\"","deleted":false}}"#);
    let written = writer.and_then(|writer| writer.write(&topic, key.as_bytes(), value.as_bytes()));
    let writer = written.and_then(publisher::Written::commit).expect("it is written");
    let checked = case.check();
    checked.refuses("registry-incompatible", "under level BACKWARD", "kafka-console-producer.sh");
    checked.refuses("registry-incompatible", &subject, "\"compatibilityLevel\":\"NONE\"");
    checked.has_only_errors(&["registry-incompatible"]);

    writer.write(&topic, b"{", b"").and_then(publisher::Written::commit).map(drop).expect("it is written");
    let checked = case.check();
    checked.refuses("registry-refused", "its key is no key of a schema registry", "see who wrote it");

    let wide = format!("{topic}_wide");
    case.create_topic(&wide, 2, &[("cleanup.policy", "compact")]);
    case.schema_topic = Some(wide);
    case.check().refuses("schema-topic", "has 2 partitions", "set schema_registry.topic");
    let short = format!("{topic}_short");
    case.create_topic(&short, 1, &[("cleanup.policy", "delete")]);
    case.schema_topic = Some(short);
    case.check().refuses("schema-topic", "is delete", "--add-config cleanup.policy=compact");
}

#[test]
fn a_running_instance_is_left_alone() {
    let case = Case::new("running");
    let mut stream =
        Running(case.pgsluice(&["run"]).stderr(Stdio::null()).stdout(Stdio::null()).spawn().expect("it runs"));
    let active = format!("SELECT active_pid FROM pg_replication_slots WHERE database = '{}' AND active", case.name);
    let began = Instant::now();
    let pid = loop {
        let pid = case.value(&active);
        if !pid.is_empty() {
            break pid;
        }
        assert!(
            stream.0.try_wait().expect("its state").is_none() && began.elapsed() < Duration::from_mins(1),
            "it does not stream"
        );
        std::thread::sleep(Duration::from_millis(20));
    };
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
    assert!(checked.one("ok", "slot-active")["found"].as_str().unwrap_or_default().contains(&format!("pid {pid}")));
    assert!(checked.one("ok", "slot")["found"].as_str().unwrap_or_default().contains("run resumes at"));
    assert!(checked.one("ok", "checkpoint")["found"].as_str().unwrap_or_default().contains("by instance"));

    // It still owns its transactional id: what it reads now it can commit.
    let confirmed = format!(
        "SELECT confirmed_flush_lsn >= '{}' FROM pg_replication_slots WHERE database = '{}'",
        case.value("INSERT INTO orders VALUES (1, 1, '(1,1),(0,0)') RETURNING pg_current_wal_insert_lsn()"),
        case.name
    );
    let began = Instant::now();
    while case.value(&confirmed) != "t" {
        assert!(began.elapsed() < Duration::from_mins(1), "what was read is not committed");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(case.value(&active), pid, "the session is the same");
    assert!(stream.0.try_wait().expect("its state").is_none());
    stream.end();

    // Somebody moves the slot while the stream is down.
    case.sql("INSERT INTO orders VALUES (2, 2, '(1,1),(0,0)')");
    case.sql(&format!(
        "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots \
                       WHERE database = '{}'",
        case.name
    ));
    let checked = case.check();
    checked.refuses("slot-ahead-of-checkpoint", "past the checkpoint", "pgsluice run --accept-gap");
    checked.has_only_errors(&["slot-ahead-of-checkpoint"]);
}

/// The program as a process, which does not outlive the test.
struct Running(Child);

impl Running {
    fn end(&mut self) {
        // What matters is that it is gone: what it has committed is committed.
        let _already_gone = self.0.kill();
        self.0.wait().expect("it is gone");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
