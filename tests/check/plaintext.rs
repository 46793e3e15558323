//! Credentials that would leave this machine without TLS: every command refuses to use them, and none has sent anything by then.

use std::process::Output;

use crate::case::{Case, SECRETS};

/// A host that nobody has (RFC 6761), so that what is sent there is sent to nobody.
const ELSEWHERE: &str = "elsewhere.invalid";

#[track_caller]
fn refused(case: &Case, output: &Output, code: &str, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("[{code}]")) && said.contains(words), "{said}");
    case.assert_no_secret(output);
}

#[test]
fn every_command_refuses_credentials_without_tls() {
    let mut case = Case::new("plaintext");
    let good = (case.url.clone(), case.registry_url.clone());
    let commands = [
        &["run"][..],
        &["check"],
        &["setup"],
        &["replay", "shop.public.orders", "--from-beginning"],
        &["release", "--all"],
        &["top", "--once"],
    ];
    for (url, kafka, registry, key) in [
        (format!("postgres://ann:{}@{ELSEWHERE}/shop?sslmode=disable", SECRETS[1]), "", None, "postgres"),
        (
            good.0.clone(),
            "properties = { \"security.protocol\" = \"sasl_plaintext\", \"sasl.password\" = \"check-sasl-password\" }",
            None,
            "kafka",
        ),
        (good.0.clone(), "", Some(format!("http://ann:{}@{ELSEWHERE}", SECRETS[3])), "schema_registry"),
    ] {
        case.url = url;
        case.registry_url = registry.unwrap_or_else(|| good.1.clone());
        case.kafka = kafka.to_owned();
        let brokers = format!("{ELSEWHERE}:9092");
        for arguments in commands {
            let mut command = case.pgsluice(arguments);
            if key == "kafka" {
                command.env("PGSLUICE_KAFKA__BOOTSTRAP_SERVERS", &brokers);
            }
            let words = format!("{key}.allow_plaintext_credentials = true");
            refused(&case, &command.output().expect("it runs"), "config-invalid", &words);
        }
    }
}

#[test]
fn what_a_command_is_given_itself_is_refused_as_well() {
    let mut case = Case::new("plaintext_given");
    let url = format!("postgres://ann:{}@{ELSEWHERE}/{}?sslmode=disable", SECRETS[1], case.name);
    let setup = case.pgsluice(&["setup"]).env("PGSLUICE_SETUP_URL", &url).output().expect("it runs");
    refused(&case, &setup, "plaintext-credentials", "without TLS");

    // Documentation's own address (RFC 5737): nobody answers there.
    let instance = ["snapshot", "pause", "--instance", "192.0.2.1:9187"];
    let pause = case.pgsluice(&instance).env("PGSLUICE_HTTP__TOKEN", SECRETS[2]).output().expect("it runs");
    refused(&case, &pause, "plaintext-credentials", "http.token would go to the instance at 192.0.2.1:9187");

    // A server without TLS, of which the configuration does not know it. Linux takes this address for 127.0.0.1.
    case.edit_url(|url| url.set_host(Some("0.0.0.0")).expect("a host"));
    let checked = case.check();
    checked.refuses("plaintext-credentials", "does not offer it", "sslmode=verify-full");
    checked.has_only_errors(&["plaintext-credentials"]);
    refused(&case, &case.pgsluice(&["run"]).output().expect("it runs"), "plaintext-credentials", "sslmode=prefer");
    case.postgres = "allow_plaintext_credentials = true".into();
    case.check().has_only_errors(&[]);
}
