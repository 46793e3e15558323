//! Overrides from the environment.

use std::time::Duration;

use super::{LEAST, problems, remote, valid};

#[test]
fn variables_override_the_file_by_the_kind_of_their_key() {
    let config = valid(
        LEAST,
        &[
            ("PGSLUICE_NAME", "7"),
            ("PGSLUICE_MEMORY_LIMIT", "32MiB"),
            ("PGSLUICE_POSTGRES__URL", "postgres://bob@other/shop"),
            ("PGSLUICE_POSTGRES__TABLES", "public.orders, sales.*"),
            ("PGSLUICE_POSTGRES__MANAGE", "false"),
            ("PGSLUICE_KAFKA__TOPICS__PARTITIONS", "12"),
            ("PGSLUICE_KAFKA__PROPERTIES", "{ \"linger.ms\" = 5, \"client.id\" = \"x\" }"),
            ("PGSLUICE_KAFKA__PROPERTIES__CLIENT_ID", "y"),
            ("PGSLUICE_KAFKA__PROPERTIES__log_level", "ignored: single underscores are dots"),
            ("PGSLUICE_KAFKA__PROPERTIES__sasl.Mechanism", "PLAIN"),
            ("PGSLUICE_SCHEMA_REGISTRY__TIMEOUT", "3s"),
            ("PATH", "/bin"),
        ],
    );
    assert_eq!((config.name.as_str(), config.memory_limit_bytes), ("7", 32 << 20));
    assert_eq!((config.postgres.connect.user(), &*config.postgres.connect.server()), ("bob", "other:5432"));
    let patterns: Vec<_> = config.postgres.tables.include.iter().map(ToString::to_string).collect();
    assert_eq!(patterns, ["public.orders", "sales.*"]);
    assert!(!config.postgres.manage);
    assert_eq!(config.kafka.topics.partitions, Some(12));
    let names: Vec<_> = config.kafka.properties.iter().filter(|(name, _)| *name != "log.level").collect();
    assert_eq!(names, [("client.id", "y"), ("linger.ms", "5"), ("sasl.Mechanism", "PLAIN")]);
    assert_eq!(remote(&config).timeout, Duration::from_secs(3));

    let config =
        valid(LEAST, &[("PGSLUICE_POSTGRES__TABLES", "[\"a,b.*\"]"), ("PGSLUICE_KAFKA__PROPERTIES__LINGER_MS", "9")]);
    assert!(config.postgres.tables.includes("a,b", "c"));
    assert_eq!(config.kafka.properties.get("linger.ms"), Some("9"));
}

#[test]
fn variables_alone_are_a_configuration() {
    let variables = [
        ("PGSLUICE_NAME", "shop"),
        ("PGSLUICE_POSTGRES__URL", "postgres://ann@db/shop"),
        ("PGSLUICE_POSTGRES__TABLES", "public.*"),
        ("PGSLUICE_KAFKA__BOOTSTRAP_SERVERS", "kafka:9092"),
        ("PGSLUICE_SCHEMA_REGISTRY__URL", "http://registry:8081"),
    ];
    assert_eq!(valid("", &variables).name.as_str(), "shop");
}

#[test]
fn a_variable_that_is_no_key_is_told_with_the_nearest() {
    for (name, value, expect) in [
        ("PGSLUICE_POSTGRES_URL", "x", "unknown variable; the nearest known one is PGSLUICE_POSTGRES__URL"),
        ("PGSLUICE_POSTGRES__SLOTS", "x", "unknown variable; the nearest known one is PGSLUICE_POSTGRES__SLOT"),
        ("PGSLUICE_LOG", "debug", "this is a section; set one of its keys: PGSLUICE_LOG__FORMAT, PGSLUICE_LOG__LEVEL"),
        (
            "PGSLUICE_POSTGRES__PASSWORD",
            "x",
            "unknown variable; the nearest known one is PGSLUICE_POSTGRES__PASSWORD_FILE",
        ),
        ("PGSLUICE_MEMORY", "x", "unknown variable; the nearest known one is PGSLUICE_MEMORY_LIMIT"),
        ("PGSLUICE_POSTGRES__MANAGE", "yes", "postgres.manage: found \"yes\"; give true or false"),
        ("PGSLUICE_KAFKA__TOPICS__PARTITIONS", "many", "kafka.topics.partitions: found \"many\"; give a whole number"),
        (
            "PGSLUICE_POSTGRES__TABLES",
            "",
            "postgres.tables: found \"\"; give a pattern schema.table, as in \"public.orders\" or \"public.*\"; a part that holds a dot goes in double quotes",
        ),
        (
            "PGSLUICE_KAFKA__PROPERTIES__ACKS",
            "0",
            "kafka.properties.\"acks\": this property is pgsluice's own; it is always all, since an acknowledged record must not be lost; leave it out",
        ),
    ] {
        assert_eq!(problems(LEAST, &[(name, value)]), format!("environment variable {name}: {expect}"));
    }
}

#[test]
fn variables_of_others_are_left_alone() {
    for name in [
        "PGSLUICE_CONFIG",
        "PGSLUICE_SETUP_URL",
        "PGSLUICE_TEST_KAFKA",
        "PGSLUICE_FAULT",
        "PGSLUICE_DEV_START_TIMEOUT_S",
        "PGSLUICE_SERVICE_HOST",
        "PGSLUICE_SERVICE_PORT",
        "PGSLUICE_SERVICE_PORT_HTTP",
        "PGSLUICE_PORT",
        "PGSLUICE_PORT_9187_TCP",
        "PGSLUICE_PORT_9187_TCP_ADDR",
        "PGSLUICE_METRICS_SERVICE_HOST",
        "PGSLUICE_METRICS_PORT_9187_TCP_PROTO",
        "OTHER_PGSLUICE_NAME",
    ] {
        valid(LEAST, &[(name, "tcp://10.0.0.1:9187")]);
    }
}
