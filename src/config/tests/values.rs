//! What each key takes, and how a text or a file that is wrong is told.

use std::path::Path;
use std::time::Duration;

use registry::Auth;
use secrecy::ExposeSecret;

use super::{LEAST, SECRET, check, least_and, least_with, parse, problems, remote, valid};
use crate::config::SchemaRegistry;
use crate::config::{Config, LogFormat};

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let config = valid(LEAST, &[]);
    assert_eq!(config.name.as_str(), "shop");
    assert_eq!(config.memory_limit_bytes, 64 << 20);
    assert_eq!(config.postgres.slot, "pgsluice_shop");
    assert_eq!(config.postgres.publication, "pgsluice_shop");
    assert!(config.postgres.manage && config.postgres.publish_via_partition_root && !config.postgres.failover);
    assert_eq!(config.postgres.connect.connect_timeout(), Some(Duration::from_secs(10)));
    assert!(config.postgres.tables.includes("public", "orders") && config.postgres.tables.include.len() == 1);
    assert_eq!(config.kafka.bootstrap_servers, "kafka:9092");
    assert!(config.kafka.properties.is_empty());
    assert_eq!(config.kafka.checkpoint_topic.as_str(), "__pgsluice_checkpoints");
    assert_eq!((config.kafka.topics.partitions, config.kafka.topics.replication_factor), (None, None));
    assert_eq!(config.kafka.transaction.split_after_age, Duration::from_secs(30));
    assert_eq!(remote(&config).url.as_str(), "http://registry:8081/");
    assert!(matches!(remote(&config).auth, Auth::None));
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:9187");
    assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Text, "info"));
    assert_eq!(config.events, encoder::EncodeOptions::default(), "what Debezium's consumers need no change for");
    assert!(config.warnings().is_empty());
}

#[test]
fn the_forms_of_events_are_told_by_name() {
    use encoder::{
        Arrays, Bytea, Decimals, EncodeOptions, Envelope, Format, Hstore, Intervals, NameAdjustment, Times,
        VaryingBits, ZonedTimes,
    };
    let events = |lines: &str| valid(&least_and(&format!("[events]\n{lines}")), &[]).events;
    let lossless = "decimals = \"string\"\ntimes = \"iso_string\"\nintervals = \"string\"\nzoned_times = \"offset\"\n\
                    varying_bits = \"text\"\narrays = \"text\"";
    assert_eq!(events(lossless), EncodeOptions::lossless());
    assert_eq!(events("envelope = \"upsert\""), EncodeOptions::upsert());
    let upsert = events("envelope = \"upsert\"\nformat = \"json\"\ntimes = \"adaptive\"");
    assert_eq!(upsert, EncodeOptions { format: Format::Json, times: Times::Adaptive, ..EncodeOptions::upsert() });
    let expected = EncodeOptions {
        envelope: Envelope::Debezium,
        format: Format::Avro,
        decimals: Decimals::Double,
        times: Times::AdaptiveMicroseconds,
        intervals: Intervals::Numeric,
        zoned_times: ZonedTimes::Utc,
        varying_bits: VaryingBits::Bits,
        arrays: Arrays::Items,
        hstore: Hstore::Map,
        bytea: Bytea::Base64Url,
        names: NameAdjustment::AvroUnicode,
        tombstones: false,
        unavailable_value: "?".to_owned(),
        ..EncodeOptions::default()
    };
    let other = "decimals = \"double\"\ntimes = \"adaptive_microseconds\"\nintervals = \"numeric\"\nzoned_times = \"utc\"\n\
                 varying_bits = \"bits\"\narrays = \"items\"\nhstore = \"map\"\nbytea = \"base64url\"\n\
                 names = \"avro_unicode\"\ntombstones = false\nunavailable_value = \"?\"";
    assert_eq!(events(other), expected);
    for (line, times) in [
        ("times = \"adaptive\"", Times::Adaptive),
        ("times = \"connect\"", Times::Connect),
        ("times = \"microseconds\"", Times::Microseconds),
        ("times = \"nanoseconds\"", Times::Nanoseconds),
    ] {
        assert_eq!(events(line).times, times);
    }
    for (line, bytea) in
        [("bytea = \"bytes\"", Bytea::Bytes), ("bytea = \"base64\"", Bytea::Base64), ("bytea = \"hex\"", Bytea::Hex)]
    {
        assert_eq!(events(line).bytea, bytea);
    }
    for (line, names) in [("names = \"avro\"", NameAdjustment::Avro), ("names = \"none\"", NameAdjustment::None)] {
        assert_eq!(events(line).names, names);
    }
    for (line, expect) in [
        (
            "decimals = \"exact\"",
            "decimals: found \"exact\"; give \"precise\", \"precise_or_string\", \"double\" or \"string\"",
        ),
        ("arrays = true", "arrays: found a boolean; give \"items\" or \"text\""),
        ("tombstones = \"yes\"", "tombstones: found \"yes\"; give true or false"),
        (
            "unavailable_value = \"\"",
            "unavailable_value: found an empty string; give a text that no column holds, or leave the key out",
        ),
        ("decimal = \"string\"", "decimal: unknown key; the nearest known one is events.decimals"),
    ] {
        check(&least_and(&format!("[events]\n{line}")), &format!("line 10: events.{expect}"));
    }
}

#[test]
fn the_issue_of_names_is_read_as_it_stands() {
    let text = r#"
name = "shop"                                   # transactional id, checkpoint key, default slot and publication, topic prefix
[postgres]
url = "postgres://user:secret@host:5432/db?sslmode=verify-full"
tables = ["public.*"]
slot = "shop"                                   # default: pgsluice_<name>
publication = "shop"                            # default: pgsluice_<name>
manage = true                                   # create slot and publication when missing
[kafka]
bootstrap_servers = "host:9092"
properties = { "compression.type" = "lz4" }     # librdkafka, verbatim
[schema_registry]
url = "http://host:8081"
[http]
listen = "127.0.0.1:9187"
"#;
    let config = valid(text, &[]);
    assert_eq!((config.postgres.slot.as_str(), config.postgres.publication.as_str()), ("shop", "shop"));
    assert_eq!(config.kafka.properties.get("compression.type"), Some("lz4"));
    let connect = &config.postgres.connect;
    assert_eq!((&*connect.server(), connect.user(), connect.database()), ("host:5432", "user", "db"));
    assert_eq!(connect.ssl_mode(), walreceiver::SslMode::VerifyFull);
    assert_eq!(connect.password().map(ExposeSecret::expose_secret), Some("secret"));
}

#[test]
fn an_unknown_key_is_told_with_the_nearest_known_one() {
    for (lines, expect) in [
        ("[postgres.slots]", "line 9: postgres.slots: unknown section; the nearest known one is postgres.slot"),
        ("[log]\nlevl = \"info\"", "line 10: log.levl: unknown key; the nearest known one is log.level"),
        (
            "passwrd = \"x\"",
            "line 9: schema_registry.passwrd: unknown key; the nearest known one is schema_registry.password",
        ),
        ("[htpp]\nlisten = 1", "line 9: htpp: unknown section; the nearest known one is http"),
        ("[kafka.topic]", "line 9: kafka.topic: unknown section; the nearest known one is kafka.topics"),
        ("slot = \"x\"", "line 9: schema_registry.slot: unknown key; the nearest known one is postgres.slot"),
    ] {
        check(&least_and(lines), expect);
    }
    check(&format!("memory = 1\n{LEAST}"), "line 1: memory: unknown key; the nearest known one is memory_limit");
    check(
        &format!("tables = [\"a.b\"]\n{LEAST}"),
        "line 1: tables[0]: found a string; give a list of tables, as in [{ match = \"public.orders\", partitions = 12, \
         events = { decimals = \"string\" } }]",
    );
    check(&format!("\"a\\nb\" = 1\n{LEAST}"), "line 1: a\\nb: unknown key; the nearest known one is name");
}

#[test]
fn what_is_not_toml_is_told_by_line_without_quoting_it() {
    let text = LEAST.replace("\"postgres://ann@db/shop\"", &format!("\"postgres://ann:{SECRET}@db/shop"));
    let told = problems(&text, &[]);
    assert!(told.starts_with("line 3: not valid TOML ("), "{told}");
    assert!(!told.contains(SECRET), "{told}");
    check(&least_and("url = \"http://again\""), "line 9: not valid TOML (duplicate key); correct the syntax");
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = r#"name = "-shop"
memory_limit = "1MiB"
[postgres]
url = "mysql://db"
tables = []
manage = "yes"
[kafka]
properties = { acks = 1 }
[http]
listen = "localhost"
"#;
    let expect = r#"line 1: name: found "-shop"; give 1 to 100 letters, digits, `.`, `_` and `-`, not starting with `.` or `-`
line 2: memory_limit: found 1MiB; give a value from 16MiB to 1024GiB
line 4: postgres.url: connection URL: url: does not start with postgres:// or postgresql://; give postgres://user:password@host:5432/database; characters such as @ / : ? in a user or password are percent-encoded, or the password goes in password_file
line 5: postgres.tables: the list is empty; give a list, as in ["public.*"]
line 6: postgres.manage: found "yes"; give true or false
line 8: kafka.properties."acks": this property is pgsluice's own; it is always all, since an acknowledged record must not be lost; leave it out
line 10: http.listen: found "localhost"; give an IP address and a port, as in "127.0.0.1:9187" or "[::]:9187"
kafka.bootstrap_servers: missing; set bootstrap_servers = "localhost:9092" under [kafka], or PGSLUICE_KAFKA__BOOTSTRAP_SERVERS in the environment"#;
    check(text, expect);
    let error = parse(text, &[]).expect_err("the configuration has problems");
    assert!(error.to_string().starts_with("the configuration has 8 problems:\n  line 1: name: "), "{error}");
    assert_eq!(error.problems()[1].key(), Some("memory_limit"));
}

#[test]
fn values_of_the_wrong_type_are_told() {
    for (line, replacement, expect) in [
        ("name = \"shop\"", "name = 7", "line 1: name: found an integer; give a string in quotes"),
        ("name = \"shop\"", "name = 2026-01-01", "line 1: name: found a date or time; give a string in quotes"),
        ("[postgres]", "[postgres]\nslot = [\"x\"]", "line 3: postgres.slot: found a list; give a string in quotes"),
        ("[postgres]", "[postgres]\nslot.x = 1", "line 3: postgres.slot: found a table; give a string in quotes"),
        (
            "tables = [\"public.*\"]",
            "tables = \"public.*\"",
            "line 4: postgres.tables: found a string; give a list, as in [\"public.*\"]",
        ),
        (
            "tables = [\"public.*\"]",
            "tables = [1]",
            "line 4: postgres.tables: found an integer; give a string in quotes",
        ),
        (
            "[kafka]",
            "[kafka]\ntransaction = 1",
            "line 6: kafka.transaction: found an integer; this is a section: write [kafka.transaction] and its keys below it",
        ),
        (
            "[kafka]",
            "[kafka]\nproperties = \"lz4\"",
            "line 6: kafka.properties: found a string; give a table, as in { \"compression.type\" = \"lz4\", \"security.protocol\" = \"SSL\" }",
        ),
        (
            "[kafka]",
            "[kafka]\nproperties = { a = [1] }",
            "line 6: kafka.properties.\"a\": found a list; give a string, a number, true or false",
        ),
        (
            "[kafka]",
            "[kafka]\ntopics.partitions = \"3\"",
            "line 6: kafka.topics.partitions: found \"3\"; give a whole number",
        ),
        (
            "[kafka]",
            "[kafka]\ntopics.partitions = 99999999999999999999",
            "line 6: kafka.topics.partitions: found an integer out of range; give a whole number",
        ),
    ] {
        check(&least_with(line, replacement), expect);
    }
    let text = least_with("[postgres]\n", "")
        .replace("url = \"postgres://ann@db/shop\"\ntables = [\"public.*\"]", "[[postgres]]\nurl = \"x\"");
    assert!(
        problems(&text, &[]).starts_with("line 2: postgres: found an array; this is a section"),
        "{}",
        problems(&text, &[])
    );
}

#[test]
fn names_map_to_what_postgresql_takes() {
    for (name, slot) in [("my-shop", "pgsluice_my_shop"), ("My.Shop_2", "pgsluice_my_shop_2"), ("7", "pgsluice_7")] {
        let config = valid(&least_with("\"shop\"", &format!("\"{name}\"")), &[]);
        assert_eq!(
            (config.name.as_str(), config.postgres.slot.as_str(), config.postgres.publication.as_str()),
            (name, slot, slot)
        );
    }
    for name in ["", ".a", "-a", "a b", "a/b", "é", &"x".repeat(101)] {
        assert!(
            problems(&least_with("\"shop\"", &format!("\"{name}\"")), &[]).starts_with("line 1: name: found"),
            "{name}"
        );
    }
    let long = "x".repeat(55);
    let told = problems(&least_with("\"shop\"", &format!("\"{long}\"")), &[]);
    let expect = |key: &str| {
        format!("{key}: the default pgsluice_{long} is longer than the 63 bytes that PostgreSQL takes; set {key}")
    };
    assert_eq!(told, format!("{}\n{}", expect("postgres.slot"), expect("postgres.publication")));
    for slot in ["Shop", "my-shop", "", &"x".repeat(64)] {
        let text = least_with("[postgres]", &format!("[postgres]\nslot = \"{slot}\""));
        assert!(problems(&text, &[]).starts_with("line 3: postgres.slot: found"), "{slot}");
    }
    let text = least_with("[postgres]", "[postgres]\npublication = \"My publication\"");
    assert_eq!(valid(&text, &[]).postgres.publication, "My publication");
}

#[test]
fn sizes_and_durations_have_units() {
    for (text, bytes) in [
        ("\"64MiB\"", 64 << 20),
        ("\"1 GiB\"", 1 << 30),
        ("\"20000kB\"", 20_000_000),
        ("67108864", 67_108_864),
        ("\"67108864\"", 67_108_864),
    ] {
        assert_eq!(valid(&format!("memory_limit = {text}\n{LEAST}"), &[]).memory_limit_bytes, bytes, "{text}");
    }
    for text in [
        "\"64 mib\"",
        "\"1.5GiB\"",
        "\"\"",
        "\"MiB\"",
        "-1",
        "\"-1MiB\"",
        "1.5",
        "\"99999999999999999999\"",
        "\"18446744073709551615GiB\"",
        "true",
    ] {
        let told = problems(&format!("memory_limit = {text}\n{LEAST}"), &[]);
        assert!(told.contains("give bytes as a whole number with B, KiB"), "{text}: {told}");
    }
    for (text, duration) in [
        ("500ms", Duration::from_millis(500)),
        ("10s", Duration::from_secs(10)),
        ("2m", Duration::from_mins(2)),
        ("2min", Duration::from_mins(2)),
        ("0h", Duration::ZERO),
    ] {
        let outcome = parse(&least_and(&format!("timeout = \"{text}\"")), &[]);
        match outcome {
            Ok(config) => assert_eq!(remote(&config).timeout, duration),
            Err(error) => assert!(
                duration.is_zero() && error.to_string().contains("found 0ms; give a value from 100ms to 600s"),
                "{error}"
            ),
        }
    }
    for text in ["10", "\"10\"", "\"ten\"", "\"1.5s\"", "\"-1s\"", "10.0"] {
        let told = problems(&least_and(&format!("timeout = {text}")), &[]);
        assert!(told.contains("give a whole number with ms, s, m or h in quotes"), "{text}: {told}");
    }
}

#[test]
fn caps_of_a_transaction_fit_together() {
    let with = |lines: &str| least_and(&format!("[kafka.transaction]\n{lines}"));
    check(
        &with("split_after_age = \"31s\""),
        "line 10: kafka.transaction.split_after_age: found 31s, which is over half of librdkafka's transaction.timeout.ms (60s); give at \
         most 30s, or raise \"transaction.timeout.ms\" in kafka.properties up to the broker's transaction.max.timeout.ms; the rest of the \
         time is for delivering and committing",
    );
    let raised = with("split_after_age = \"31s\"")
        .replace("[kafka]", "[kafka]\nproperties = { \"transaction.timeout.ms\" = 62000 }");
    assert_eq!(valid(&raised, &[]).kafka.transaction.split_after_age, Duration::from_secs(31));
    let text = least_with("[kafka]", "[kafka]\nproperties = { \"transaction.timeout.ms\" = \"20000\" }");
    assert!(
        problems(&text, &[]).starts_with("kafka.transaction.split_after_age: found 30s, which is over half"),
        "{}",
        problems(&text, &[])
    );
    let text = least_with("[kafka]", "[kafka]\nproperties = { \"transaction.timeout.ms\" = \"soon\" }");
    check(
        &text,
        "line 6: kafka.properties.\"transaction.timeout.ms\": found no whole number that librdkafka takes; give milliseconds from 1000 to 2147483647",
    );

    check(
        &with("split_after_records = 10"),
        "line 10: kafka.transaction.split_after_records: max_records is 20000 and split_after_records is 10; give at least kafka.transaction.max_records",
    );
    check(
        &with("max_bytes = \"1GiB\""),
        "line 10: kafka.transaction.max_bytes: max_bytes is 1GiB and split_after_bytes is 512MiB; give at most kafka.transaction.split_after_bytes, or raise that",
    );
    check(
        &with("max_age = \"40s\""),
        "line 10: kafka.transaction.max_age: max_age is 40s and split_after_age is 30s; give at most kafka.transaction.split_after_age, or raise that",
    );
    check(
        &with("max_records = 0"),
        "line 10: kafka.transaction.max_records: found 0; give a value from 1 to 1000000000",
    );
}

#[test]
fn topics_take_counts_or_the_brokers_default() {
    let config = valid(
        &least_and(
            "[kafka.topics]\npartitions = 6\nreplication_factor = 3\nconfig = { \"cleanup.policy\" = \"compact\" }",
        ),
        &[],
    );
    assert_eq!((config.kafka.topics.partitions, config.kafka.topics.replication_factor), (Some(6), Some(3)));
    assert_eq!(config.kafka.topics.config["cleanup.policy"], "compact");
    for count in [0, -2, 100_001] {
        let told = problems(&least_and(&format!("[kafka.topics]\npartitions = {count}")), &[]);
        assert!(
            told.ends_with(&format!("found {count}; give a number from 1 to 100000, or -1 for the broker's default")),
            "{told}"
        );
    }
}

#[test]
fn bootstrap_servers_are_checked_as_far_as_can_be() {
    for servers in ["a:9092", "a", "a:1,b:2, c:3", "[::1]:9092", "[::1]", "SSL://a:9093"] {
        valid(&least_with("kafka:9092", servers), &[]);
    }
    for servers in ["", "a:0", "a:x", "a:70000", "a:1,", ":9092", "a b:1", "user@host:1"] {
        let told = problems(&least_with("kafka:9092", servers), &[]);
        assert!(told.ends_with("give host:port of one or more brokers, separated by commas"), "{servers}: {told}");
    }
}

#[test]
fn properties_take_scalars_and_plain_toml_keys() {
    let text = least_and(
        "[kafka.properties]\nsasl.username = \"ann\"\nlinger.ms = 5\n\"socket.keepalive.enable\" = true\nretry.backoff.ms = 1.5",
    );
    let config = valid(&text, &[]);
    let read: Vec<_> = config.kafka.properties.iter().collect();
    assert_eq!(
        read,
        [
            ("linger.ms", "5"),
            ("retry.backoff.ms", "1.5"),
            ("sasl.username", "ann"),
            ("socket.keepalive.enable", "true")
        ]
    );
    check(
        &least_and("[kafka.properties]\n\"a.b\" = 1\na.b = 2"),
        "line 11: kafka.properties.a.b: already given on line 10; give it once",
    );
}

#[test]
fn properties_that_the_guarantee_rests_on_are_refused_with_the_reason() {
    for name in [
        "transactional.id",
        "enable.idempotence",
        "bootstrap.servers",
        "isolation.level",
        "partitioner",
        "acks",
        "test.mock.num.brokers",
    ] {
        for key in ["properties", "properties_file"] {
            let told = problems(&least_with("[kafka]", &format!("[kafka]\n{key} = {{ \"{name}\" = \"x\" }}")), &[]);
            assert!(
                told.starts_with(&format!("line 6: kafka.{key}.\"{name}\": this property is pgsluice's own; ")),
                "{told}"
            );
        }
    }
    let told = problems(&least_with("[kafka]", "[kafka]\nproperties = { \"a b\" = 1 }"), &[]);
    assert!(told.contains("found a name that librdkafka cannot have"), "{told}");
}

#[test]
fn the_registry_is_the_built_in_one_unless_it_has_a_url() {
    let topic = |text: &str| match valid(text, &[]).schema_registry {
        SchemaRegistry::BuiltIn { topic } => topic.as_str().to_owned(),
        SchemaRegistry::Remote(remote) => panic!("{}", remote.url),
    };
    let without = LEAST.split("[schema_registry]").next().expect("there is a first part");
    assert_eq!(topic(without), "_schemas");
    assert_eq!(topic(&format!("{without}[schema_registry]\n")), "_schemas");
    assert_eq!(
        topic(&format!("{without}[schema_registry]\ntopic = \"shop-schemas\"\ntimeout = \"1s\"\n")),
        "shop-schemas"
    );
    for (lines, expect) in [
        (
            "user = \"ann\"",
            "line 8: schema_registry.user: there is no schema_registry.url, so that the built-in registry is used; set \
             schema_registry.url, or leave this out",
        ),
        (
            "url = \"http://registry\"\ntopic = \"x\"",
            "line 9: schema_registry.topic: schema_registry.url is given, so that the built-in registry is not used; leave one of the \
             two out",
        ),
        (
            "topic = \"__pgsluice_checkpoints\"",
            "line 8: schema_registry.topic: kafka.checkpoint_topic and schema_registry.topic are both __pgsluice_checkpoints; give each \
             a topic of its own",
        ),
        (
            "topic = \"a/b\"",
            "line 8: schema_registry.topic: found \"a/b\"; give a Kafka topic name: 1 to 249 letters, digits, `.`, `_` and `-`",
        ),
    ] {
        check(&format!("{without}[schema_registry]\n{lines}\n"), expect);
    }
    let clash = without.replace("[kafka]", "[kafka]\ncheckpoint_topic = \"_schemas\"");
    assert!(problems(&clash, &[]).starts_with("line 6: kafka.checkpoint_topic: "), "{}", problems(&clash, &[]));
}

#[test]
fn the_registry_is_authenticated_at_in_one_way() {
    let token = valid(&least_and("token = \"t\"").replace("http://registry", "https://registry"), &[]);
    assert!(matches!(remote(&token).auth, Auth::Bearer(ref token) if token.expose_secret() == "t"));
    let in_url = valid(&least_with("http://registry:8081", "https://an%40n:p%25w@registry/apis/ccompat/v7"), &[]);
    assert_eq!(remote(&in_url).url.as_str(), "https://registry/apis/ccompat/v7");
    assert!(
        matches!(remote(&in_url).auth, Auth::Basic { ref user, ref password } if user == "an@n" && password.expose_secret() == "p%w")
    );

    for (lines, expect) in [
        (
            "user = \"ann\"",
            "line 9: schema_registry.user: there is no password; set schema_registry.password or schema_registry.password_file",
        ),
        ("password = \"x\"", "line 9: schema_registry.password: there is no user; set schema_registry.user"),
        (
            "user = \"a:b\"\npassword = \"x\"",
            "line 9: schema_registry.user: found \"a:b\"; give a user without `:`, which HTTP basic authentication cannot carry",
        ),
        (
            "user = \"a\"\npassword = \"x\"\ntoken = \"t\"",
            "line 11: schema_registry.token: schema_registry.user or its password is given too; authenticate in one way only",
        ),
        (
            "password = \"\"",
            "line 9: schema_registry.password: found an empty string; give the secret, or leave the key out",
        ),
    ] {
        check(&least_and(lines), expect);
    }
    for lines in ["token = \"t\"", "user = \"a\"\npassword = \"x\"", "password = \"x\""] {
        let told = problems(&least_and(lines).replace("http://registry", "http://ann:x@registry"), &[]);
        assert!(told.ends_with("schema_registry.url holds a user too; authenticate in one way only"), "{told}");
    }
    for url in [
        "registry:8081",
        "ftp://registry",
        "http://",
        "http://registry/?x=1",
        "http://registry/#x",
        "http://registry:port",
    ] {
        assert!(
            problems(&least_with("http://registry:8081", url), &[]).starts_with("line 8: schema_registry.url: "),
            "{url}"
        );
    }
}

#[test]
fn the_url_of_postgresql_is_checked_as_far_as_can_be() {
    for (url, server) in [
        ("postgres:///shop?host=/var/run/postgresql&user=ann", "/var/run/postgresql/.s.PGSQL.5432"),
        ("postgres://ann@/shop?host=/var/run/postgresql", "/var/run/postgresql/.s.PGSQL.5432"),
        ("postgresql://ann@[::1]:5432/shop", "[::1]:5432"),
        ("postgres://ann@db", "db:5432"),
    ] {
        let config = valid(&least_with("postgres://ann@db/shop", url), &[]);
        assert_eq!(&*config.postgres.connect.server(), server, "{url}");
    }
    for url in [
        "db/shop",
        "postgres:db",
        "postgres://ann:p@ss:w@db:x/shop",
        "postgres://db/shop",
        "postgres://ann@db/shop?unheard_of=1",
        "postgres://ann:pass/word@db/shop?user=ann",
        "http://db",
        "postgres://ann@db/?connect_timeout=0",
    ] {
        assert!(
            problems(&least_with("postgres://ann@db/shop", url), &[]).starts_with("line 3: postgres.url: "),
            "{url}"
        );
    }
    let text = least_with("postgres://ann@db/shop", "postgres://ann@db/shop?connect_timeout=3");
    assert_eq!(valid(&text, &[]).postgres.connect.connect_timeout(), Some(Duration::from_secs(3)));
    assert_eq!(
        valid(&text, &[("PGSLUICE_POSTGRES__CONNECT_TIMEOUT", "4s")]).postgres.connect.connect_timeout(),
        Some(Duration::from_secs(4))
    );
}

#[test]
fn levels_of_the_log_are_checked() {
    for level in ["trace", "warn", "INFO", "info,walreceiver=debug", "warn, pgsluice=trace", "off"] {
        valid(&least_and(&format!("[log]\nlevel = \"{level}\"")), &[]);
    }
    for level in ["", "inf", "info,,warn", "info,walreceiver", "walreceiver=loud"] {
        let told = problems(&least_and(&format!("[log]\nlevel = \"{level}\"")), &[]);
        assert!(told.starts_with(&format!("line 10: log.level: found \"{level}\"; ")), "{told}");
    }
    check(&least_and("[log]\nformat = \"xml\""), "line 10: log.format: found \"xml\"; give \"text\" or \"json\"");
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let error = Config::load(Some(Path::new("/nonexistent/pgsluice.toml"))).expect_err("there is no such file");
    assert_eq!(
        error.to_string(),
        "the configuration has a problem:\n  cannot read /nonexistent/pgsluice.toml (No such file or directory (os error 2)); give the \
         path of a file; `pgsluice config` prints a commented example"
    );
}

#[test]
fn a_standby_has_all_but_its_place_from_the_primary() {
    let url = "postgres://ann:x@db:6000/shop?sslmode=verify-full&application_name=copies";
    let with = |keys: &str| format!("{}\n[snapshot]\n{keys}", least_with("postgres://ann@db/shop", url));
    for (keys, server) in [
        ("standby_host = \"standby\"", "standby:6000"),
        ("standby_host = \"standby\"\nstandby_port = 5433", "standby:5433"),
        ("standby_host = \"[::1]\"", "[::1]:6000"),
        ("standby_host = \"/run/pg\"", "/run/pg/.s.PGSQL.6000"),
    ] {
        let config = valid(&with(keys), &[]);
        let standby = config.snapshot.standby.expect("a standby");
        assert_eq!(&*standby.server(), server);
        assert_eq!((standby.user(), standby.database(), standby.application_name()), ("ann", "shop", "copies"));
        assert_eq!(standby.ssl_mode(), config.postgres.connect.ssl_mode());
        assert_eq!(standby.password().map(ExposeSecret::expose_secret), Some("x"));
    }
    for (keys, found) in [
        ("standby_port = 5433", "snapshot.standby_port: there is no snapshot.standby_host"),
        ("standby_host = \"a,b\"", "snapshot.standby_host: "),
        ("standby_host = \"\"", "snapshot.standby_host: "),
        ("standby_host = \"postgres://standby/shop\"", "snapshot.standby_host: "),
        ("standby_host = \"a\"\nstandby_port = 0", "snapshot.standby_port: found 0"),
        ("standby_host = \"a\"\nstandby_port = 65536", "snapshot.standby_port: found 65536"),
    ] {
        let told = problems(&with(keys), &[]);
        assert!(told.contains(found), "{told}");
    }
}
