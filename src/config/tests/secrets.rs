//! Secrets: where they come from, and that they go nowhere.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use registry::Auth;
use secrecy::ExposeSecret;

use super::{SECRET, check, least_and, least_with, parse, problems, remote, valid};

/// A file of a secret that its owner alone can read.
fn secret_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(text.as_bytes()).expect("the file takes it");
    file
}

#[test]
fn secrets_are_read_from_files_without_the_line_break() {
    for (text, secret) in
        [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), (" s3 \n\n", " s3 \n")]
    {
        let file = secret_file(text);
        let path = file.path().display();
        let text = least_with("http://registry:8081", "https://registry")
            .replace("[postgres]", &format!("[postgres]\npassword_file = \"{path}\""))
            .replace("[kafka]", &format!("[kafka]\nproperties_file = {{ \"sasl.password\" = \"{path}\" }}"))
            + &format!("user = \"ann\"\npassword_file = \"{path}\"\n");
        let config = valid(&text, &[]);
        assert_eq!(config.postgres.connect.password().map(ExposeSecret::expose_secret), Some(secret));
        assert_eq!(config.kafka.properties.get("sasl.password"), Some(secret));
        match &remote(&config).auth {
            Auth::Basic { user, password } => assert_eq!((user.as_str(), password.expose_secret()), ("ann", secret)),
            other => panic!("{other:?}"),
        }
        assert!(config.warnings().is_empty());
    }
}

#[test]
fn a_file_of_a_secret_that_cannot_be_used_is_told() {
    let with =
        |path: &str| problems(&least_with("[postgres]", &format!("[postgres]\npassword_file = \"{path}\"")), &[]);
    assert_eq!(
        with("/nonexistent/password"),
        "line 3: postgres.password_file: cannot read /nonexistent/password (No such file or directory (os error 2)); give the path of a \
         file that this process can read"
    );
    assert!(with("/").contains("cannot read / (Is a directory"), "{}", with("/"));
    assert!(with("").contains("found an empty path"), "{}", with(""));
    for text in ["", "\n", "\r\n"] {
        let file = secret_file(text);
        assert!(with(&file.path().display().to_string()).ends_with(" is empty; write the secret into it"));
    }
    let file = secret_file(&"x".repeat(65 << 10));
    assert!(with(&file.path().display().to_string()).contains(" is longer than 64 KiB; "));
}

#[test]
fn a_file_of_a_secret_that_everybody_can_read_is_a_warning() {
    let file = secret_file(SECRET);
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).expect("the file is ours");
    let path = file.path().display();
    let config = valid(&least_with("[postgres]", &format!("[postgres]\npassword_file = \"{path}\"")), &[]);
    let expect = format!(
        "postgres.password_file: {path} can be read by everybody on this machine; take the right away with chmod o-r"
    );
    assert_eq!(config.warnings(), [expect]);
}

/// What is refused is told by the end of its fix.
#[track_caller]
fn is_refused_unless_allowed(text: &str, key: &str, expect: Option<&str>) {
    match expect {
        None => drop(valid(text, &[])),
        Some(expect) => {
            let found = problems(text, &[]);
            let ending = format!("; or, where nobody else is on the network, {key} = true");
            assert!(found.contains(expect) && found.ends_with(&ending), "{found}");
            let variable = format!("PGSLUICE_{}", key.replace('.', "__").to_uppercase());
            valid(text, &[(&variable, "true")]);
            assert_eq!(problems(text, &[(&variable, "false")]), found);
        }
    }
}

#[test]
fn it_does_not_go_to_a_standby_without_tls_either() {
    let told = Some(
        "snapshot.standby_host: the password would go to standby:5432 without TLS (sslmode=disable); give sslmode=verify-full in postgres.url",
    );
    for (url, host, expect) in [
        ("postgres://ann:x@localhost/shop?sslmode=disable", "standby", told),
        ("postgres://ann:x@localhost/shop?sslmode=disable", "localhost", None),
        ("postgres://ann:x@localhost/shop?sslmode=disable", "/run/pg", None),
        ("postgres://ann@localhost/shop?sslmode=disable", "standby", None),
        ("postgres://ann:x@db/shop?sslmode=verify-full", "standby", None),
    ] {
        let text = format!("{}\n[snapshot]\nstandby_host = \"{host}\"", least_with("postgres://ann@db/shop", url));
        is_refused_unless_allowed(&text, "postgres.allow_plaintext_credentials", expect);
    }
}

#[test]
fn a_password_of_postgresql_does_not_leave_the_machine_without_tls() {
    let told = Some(
        "line 3: postgres.url: the password would go to db:5432 without TLS (sslmode=disable); give sslmode=verify-full",
    );
    for (url, expect) in [
        ("postgres://ann:x@db/shop?sslmode=disable", told),
        ("postgres://db/shop?user=ann&password=x&sslmode=disable", told),
        // Connecting refuses a server that has no TLS.
        ("postgres://ann:x@db/shop", None),
        ("postgres://ann:x@db/shop?sslmode=require", None),
        ("postgres://ann@db/shop?sslmode=disable", None),
        ("postgres://ann:x@localhost/shop?sslmode=disable", None),
        ("postgres://ann:x@127.0.0.2/shop?sslmode=disable", None),
        ("postgres://ann:x@[::1]/shop?sslmode=disable", None),
        ("postgres://ann:x@/shop?host=/run/pg&sslmode=disable", None),
        ("postgres://ann:x@localhost.example/shop?sslmode=disable", Some("localhost.example:5432")),
    ] {
        let text = least_with("postgres://ann@db/shop", url);
        is_refused_unless_allowed(&text, "postgres.allow_plaintext_credentials", expect);
    }
    let file = secret_file(SECRET);
    let path = file.path().display();
    let text = least_with(
        "postgres://ann@db/shop\"",
        &format!("postgres://ann@db/shop?sslmode=disable\"\npassword_file = \"{path}\""),
    );
    is_refused_unless_allowed(&text, "postgres.allow_plaintext_credentials", told);
}

#[test]
fn what_sasl_proves_does_not_leave_the_machine_without_tls() {
    let told = Some(
        "kafka.bootstrap_servers: the SASL credentials would go to kafka:9092 without TLS (\"security.protocol\" is sasl_plaintext)",
    );
    for (servers, protocol, expect) in [
        ("kafka:9092", "sasl_plaintext", told),
        ("kafka:9092", "SASL_PLAINTEXT", told),
        ("localhost:9092, kafka:9092", "Sasl_Plaintext", told),
        ("SASL_PLAINTEXT://kafka:9092", "sasl_plaintext", Some("would go to SASL_PLAINTEXT://kafka:9092")),
        ("kafka:9092", "sasl_ssl", None),
        ("kafka:9092", "plaintext", None),
        ("localhost:9092,127.0.0.1:9093,[::1]:9094,[::1]", "sasl_plaintext", None),
    ] {
        let file = secret_file(protocol);
        let in_place = format!("properties = {{ \"security.protocol\" = \"{protocol}\" }}");
        let in_file = format!("properties_file = {{ \"security.protocol\" = \"{}\" }}", file.path().display());
        for properties in [in_place, in_file] {
            let text = least_with("[kafka]", &format!("[kafka]\n{properties}")).replace("kafka:9092", servers);
            is_refused_unless_allowed(&text, "kafka.allow_plaintext_credentials", expect);
        }
    }
}

#[test]
fn credentials_of_the_registry_do_not_leave_the_machine_without_tls() {
    let told =
        Some("line 8: schema_registry.url: the password would go to registry without TLS; give an https:// address");
    for (url, expect) in [
        ("http://ann:x@registry:8081", told),
        ("https://ann:x@registry", None),
        ("http://ann:x@localhost:8081", None),
        ("http://ann:x@127.1.2.3:8081", None),
        ("http://ann:x@[::1]:8081", None),
        ("http://registry:8081", None),
    ] {
        let text = least_with("http://registry:8081", url);
        is_refused_unless_allowed(&text, "schema_registry.allow_plaintext_credentials", expect);
    }
    is_refused_unless_allowed(
        &least_and("user = \"ann\"\npassword = \"x\""),
        "schema_registry.allow_plaintext_credentials",
        told,
    );
    let told = Some("the token would go to registry without TLS");
    is_refused_unless_allowed(&least_and("token = \"x\""), "schema_registry.allow_plaintext_credentials", told);
}

#[test]
fn a_secret_given_in_two_ways_is_told() {
    let file = secret_file(SECRET);
    let path = file.path().display().to_string();
    let url_and_file = least_with("[postgres]", &format!("[postgres]\npassword_file = \"{path}\""));
    for url in ["postgres://ann:x@db/shop", "postgres://db/shop?user=ann&password=x"] {
        check(
            &url_and_file.replace("postgres://ann@db/shop", url),
            "line 3: postgres.password_file: postgres.url holds a password too (line 4); give the password in one way only",
        );
    }
    let password = least_and(&format!("user = \"ann\"\npassword_file = \"{path}\""));
    assert_eq!(
        problems(&password, &[("PGSLUICE_SCHEMA_REGISTRY__PASSWORD", SECRET)]),
        "line 10: schema_registry.password_file: schema_registry.password is given too (environment variable \
         PGSLUICE_SCHEMA_REGISTRY__PASSWORD); give the secret in one way only"
    );
    let property = format!(
        "[kafka]\nproperties = {{ \"sasl.password\" = \"x\" }}\nproperties_file = {{ \"sasl.password\" = \"{path}\" }}"
    );
    check(
        &least_with("[kafka]", &property),
        "line 7: kafka.properties_file.\"sasl.password\": kafka.properties.\"sasl.password\" is given too (line 6); give the value in one way only",
    );
}

/// Every place that can hold a secret holds this one, and nothing that is printed does.
#[test]
fn no_secret_is_ever_printed() {
    let file = secret_file(SECRET);
    let path = file.path().display();
    let text = format!(
        r#"name = "shop"
[postgres]
url = "postgres://ann:{SECRET}@db/shop?sslmode=verify-full"
tables = ["public.*"]
[kafka]
bootstrap_servers = "kafka:9092"
properties = {{ "ssl.key.password" = "{SECRET}", "sasl.oauthbearer.config" = "{SECRET}", "compression.type" = "lz4", "unheard.of" = "{SECRET}" }}
properties_file = {{ "sasl.password" = "{path}" }}
[schema_registry]
url = "https://ann:{SECRET}@registry:8081"
"#
    );
    let config = valid(&text, &[]);
    let printed = format!("{config:?} {:?}", remote(&config).options());
    assert!(!printed.contains(SECRET), "{printed}");
    assert!(printed.contains("lz4"), "what is harmless is printed");
    for line in ["token", "password"] {
        let text = text.replace(&format!("ann:{SECRET}@registry"), "registry")
            + &format!("user = \"ann\"\n{line} = \"{SECRET}\"\n");
        let outcome = parse(&text, &[]);
        assert!(!format!("{outcome:?}").contains(SECRET), "{outcome:?}");
    }

    // Each breaks something near a secret.
    for (from, to) in [
        ("postgres://ann:", "mysql://ann:"),
        ("@db/shop", "@db:port/shop"),
        ("sslmode=verify-full", &format!("unheard_of={SECRET}")),
        ("postgres://ann:", "postgres://ann:1/x?user=ann&"),
        ("postgres://ann:", "postgres://ann:1?"),
        ("postgres://ann:", "ann:"),
        ("https://ann:", "ftp://ann:"),
        ("@registry:8081", "@registry:port"),
        ("https://ann:", "https://ann:1/"),
        ("postgres://ann:", "postgres://ann:1/"),
        ("\"sasl.oauthbearer.config\"", "\"acks\""),
        ("\"unheard.of\" =", "\"unheard.of\" = x"),
        ("tables = [\"public.*\"]", ""),
        ("url = \"postgres", "urls = \"postgres"),
        ("\"postgres://ann:", "postgres://ann:"),
    ] {
        assert!(text.contains(from), "{from}");
        let error = parse(&text.replace(from, to), &[]).expect_err("something is broken");
        assert!(!format!("{error} {error:?}").contains(SECRET), "{from}: {error}");
    }
    for variable in [
        "PGSLUICE_POSTGRES__URL",
        "PGSLUICE_SCHEMA_REGISTRY__URL",
        "PGSLUICE_KAFKA__PROPERTIES",
        "PGSLUICE_POSTGRES__PASSWORD",
    ] {
        let error = parse(&text, &[(variable, SECRET)]).expect_err("the variable's value is of no use");
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error}");
    }
}

#[test]
fn a_token_of_oauthbearer_goes_with_its_mechanism() {
    let file = secret_file("token");
    let path = file.path().display();
    let with = |lines: &str| least_with("[kafka]", &format!("[kafka]\n{lines}"));
    let token = format!("oauthbearer_token_file = \"{path}\"");
    let protocol = "properties.\"security.protocol\" = \"sasl_ssl\"";
    let mechanism = |name: &str| format!("properties.\"sasl.mechanism\" = \"{name}\"");
    for lines in [format!("{token}\n{protocol}"), format!("{token}\n{protocol}\n{}", mechanism("oauthbearer"))] {
        let config = valid(&with(&lines), &[]);
        assert_eq!(config.kafka.oauthbearer_token_file.as_deref(), Some(file.path()), "{lines}");
        assert!(config.warnings().is_empty());
    }
    for (lines, expect) in [
        (token.clone(), "there is no SASL in \"security.protocol\""),
        (format!("{token}\n{protocol}\n{}", mechanism("PLAIN")), "\"sasl.mechanisms\" is another one"),
        (format!("{protocol}\n{}", mechanism("OAUTHBEARER")), "missing, and \"sasl.mechanisms\" is OAUTHBEARER"),
    ] {
        let told = problems(&with(&lines), &[]);
        assert!(told.contains(&format!("kafka.oauthbearer_token_file: {expect}")), "{told}");
    }
    let unsecured = with("properties.\"enable.sasl.oauthbearer.unsecure.jwt\" = true");
    assert!(problems(&unsecured, &[]).contains("kafka.oauthbearer_token_file instead"));
}

#[test]
fn private_keys_that_everybody_can_read_are_a_warning_and_those_that_are_not_there_are_not() {
    let (key, token) = (secret_file("key"), secret_file("token"));
    let text = |key: &str, token: &str| {
        least_with("postgres://ann@db/shop", &format!("postgres://ann@db/shop?sslcert=/c.pem&sslkey={key}")).replace(
            "[kafka]",
            &format!(
                "[kafka]\noauthbearer_token_file = \"{token}\"\n\
                 properties = {{ \"security.protocol\" = \"sasl_ssl\", \"ssl.key.location\" = \"{key}\" }}"
            ),
        )
    };
    let paths = [&key, &token].map(|file| file.path().display().to_string());
    let text_of_files = text(&paths[0], &paths[1]);
    assert!(valid(&text_of_files, &[]).warnings().is_empty());
    for file in [&key, &token] {
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).expect("the file is ours");
    }
    let config = valid(&text_of_files, &[]);
    let told = |key: &str, path: &str| {
        format!("{key}: {path} can be read by everybody on this machine; take the right away with chmod o-r")
    };
    let expect = [
        told("kafka.oauthbearer_token_file", &paths[1]),
        told("postgres.url: sslkey", &paths[0]),
        told("kafka.properties.\"ssl.key.location\"", &paths[0]),
    ];
    assert_eq!(config.warnings(), expect);
    assert!(valid(&text("/nowhere.key", "/nowhere.token"), &[]).warnings().is_empty());
}
