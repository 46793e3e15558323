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

#[test]
fn credentials_over_plain_http_are_a_warning_but_on_this_machine() {
    let told = "schema_registry.url: the credentials cross the network unencrypted; use https";
    for (url, warnings) in [
        ("http://ann:x@registry:8081", [told].as_slice()),
        ("https://ann:x@registry", &[]),
        ("http://ann:x@localhost:8081", &[]),
        ("http://ann:x@[::1]:8081", &[]),
        ("http://registry:8081", &[]),
    ] {
        assert_eq!(valid(&least_with("http://registry:8081", url), &[]).warnings(), warnings, "{url}");
    }
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
url = "http://ann:{SECRET}@registry:8081"
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
        ("http://ann:", "ftp://ann:"),
        ("@registry:8081", "@registry:port"),
        ("http://ann:", "http://ann:1/"),
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
