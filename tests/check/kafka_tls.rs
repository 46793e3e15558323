//! Who is who between the program and Kafka: TLS both ways, and each mechanism of SASL, with a broker that has all of them.
//!
//! It is one test, since a broker takes seconds to start.

use std::{
    fmt::Write as _,
    process::Stdio,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::{
    Running,
    case::Case,
    secure_kafka::{Authority, PASSWORD, SecureKafka, USER},
};

type Properties<'a> = &'a [(&'a str, &'a str)];

/// As they are in the configuration.
fn properties(properties: &[Properties<'_>]) -> String {
    let mut text = "[kafka.properties]\n\"broker.address.family\" = \"v4\"\n".to_owned();
    for (name, value) in properties.iter().copied().flatten() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:?} = {value:?}");
    }
    text
}

/// A JSON web token that nobody has signed, as the broker takes one that is told nothing else.
fn token(lives_for_s: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let now = i64::try_from(now).expect("before the year 292 billion");
    let claims = format!("{{\"sub\":{USER:?},\"iat\":{},\"exp\":{}}}", now - 7200, now + lives_for_s);
    format!("{}.{}.", base64url(b"{\"alg\":\"none\"}"), base64url(claims.as_bytes()))
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let digits = (0..=chunk.len()).map(|digit| DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]);
        text.extend(digits.map(char::from));
    }
    text
}

#[test]
fn each_way_to_prove_oneself_works_and_what_is_wrong_with_one_is_told() {
    let mut case = Case::new("kafka_tls");
    let authority = Authority::named("test authority");
    let (stranger, namesake) = (Authority::named("another authority"), Authority::named("test authority"));
    let kafka = SecureKafka::start(case.stack(), &authority);
    let (ca, other_ca) = (case.file("ca.pem", &authority.pem()), case.file("stranger.pem", &stranger.pem()));
    let namesakes_ca = case.file("namesake.pem", &namesake.pem());
    let files = |name: &str, (certificate, key): (String, String)| {
        (case.file(&format!("{name}.pem"), &certificate), case.file(&format!("{name}.key"), &key))
    };
    let (ours, our_key) = files("ours", authority.sign("client", 2100));
    let (theirs, their_key) = files("theirs", stranger.sign("client", 2100));
    let (fresh, stale) = (case.file("token", &token(3600)), case.file("stale-token", &token(-60)));
    let tls: Properties<'_> = &[("security.protocol", "ssl"), ("ssl.ca.location", &ca)];
    let certificate: Properties<'_> = &[("ssl.certificate.location", &ours), ("ssl.key.location", &our_key)];
    let sasl: Properties<'_> = &[("security.protocol", "sasl_ssl"), ("ssl.ca.location", &ca)];
    let user: Properties<'_> = &[("sasl.username", USER), ("sasl.password", PASSWORD)];
    let with_token = |file: &str| format!("oauthbearer_token_file = {file:?}\n{}", properties(&[sasl]));
    let at = |port: u16| format!("localhost:{port}");

    let mut good = vec![
        (kafka.tls, properties(&[tls])),
        (kafka.mutual, properties(&[tls, certificate])),
        (kafka.sasl, with_token(&fresh)),
    ];
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        good.push((kafka.sasl, properties(&[sasl, user, &[("sasl.mechanisms", mechanism)]])));
    }
    for (port, configured) in good {
        (case.bootstrap_servers, case.kafka) = (at(port), configured);
        let checked = case.findings();
        checked.has_only_errors(&[]);
        checked.one("ok", "kafka-reachable");
    }

    let wrong_password: Properties<'_> = &[("sasl.username", USER), ("sasl.password", crate::case::SECRETS[2])];
    let stranger_only: Properties<'_> = &[("security.protocol", "ssl"), ("ssl.ca.location", &other_ca)];
    let namesake_only: Properties<'_> = &[("security.protocol", "ssl"), ("ssl.ca.location", &namesakes_ca)];
    let their_certificate: Properties<'_> = &[("ssl.certificate.location", &theirs), ("ssl.key.location", &their_key)];
    let plain: Properties<'_> = &[("sasl.mechanisms", "PLAIN")];
    let scram: Properties<'_> = &[("sasl.mechanisms", "SCRAM-SHA-256")];
    for (servers, configured, id, found, fix) in [
        (at(kafka.tls), properties(&[stranger_only]), "kafka-untrusted", "signed by no authority", "ssl.ca.location"),
        (at(kafka.tls), properties(&[namesake_only]), "kafka-untrusted", "signed by no authority", "ssl.ca.location"),
        (
            format!("127.0.0.1:{}", kafka.tls),
            properties(&[tls]),
            "kafka-untrusted",
            "made out to another host",
            "subjectAltName",
        ),
        (at(kafka.expired), properties(&[tls]), "kafka-untrusted", "has expired", "renew the certificate"),
        (at(kafka.mutual), properties(&[tls]), "kafka-untrusted", "alert", "ssl.certificate.location"),
        (
            at(kafka.mutual),
            properties(&[tls, their_certificate]),
            "kafka-untrusted",
            "alert",
            "ssl.certificate.location",
        ),
        (at(kafka.sasl), properties(&[sasl, wrong_password, plain]), "kafka-authentication", "SASL", "sasl.password"),
        (at(kafka.sasl), properties(&[sasl, wrong_password, scram]), "kafka-authentication", "SASL", "sasl.password"),
        (at(kafka.sasl), with_token(&stale), "kafka-authentication", "has expired", "kafka.oauthbearer_token_file"),
        (
            at(kafka.open),
            properties(&[&[("security.protocol", "sasl_plaintext")], user, plain]),
            "plaintext-credentials",
            "send clients to 127.1 ",
            "sasl_ssl",
        ),
        (at(kafka.plain), properties(&[tls]), "kafka-unreachable", "PLAINTEXT broker listener", "security.protocol"),
    ] {
        (case.bootstrap_servers, case.kafka) = (servers, configured);
        let checked = case.findings();
        checked.refuses(id, found, fix);
        checked.has_only_errors(&[id]);
    }

    // What `run` says of it comes at once, and not when its time is up.
    let says = |case: &Case, words: &str| {
        let log = case.file("log", "");
        let mut command = case.pgsluice(&["run"]);
        command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).expect("a file"));
        let _running = Running(command.spawn().expect("it runs"));
        let began = Instant::now();
        loop {
            let said = std::fs::read_to_string(&log).expect("a log");
            if said.contains(words) {
                return said;
            }
            assert!(began.elapsed() < Duration::from_mins(1), "no {words} in\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    (case.bootstrap_servers, case.kafka) = (at(kafka.tls), properties(&[stranger_only]));
    says(&case, "starting again: [kafka-untrusted] the certificate of the broker localhost");
    (case.bootstrap_servers, case.kafka) = (at(kafka.sasl), properties(&[sasl, wrong_password, plain]));
    says(&case, "stopping: [kafka-denied]");

    // All of its clients sign in with the token, and a row comes through.
    (case.bootstrap_servers, case.kafka) = (at(kafka.sasl), with_token(&fresh));
    case.sql("INSERT INTO orders VALUES (1, 1, '(1,1),(0,0)')");
    says(&case, "the table is copied");
}
