//! Secrets come out nowhere.
//!
//! Each key of the configuration that may hold one gets a text of its own, and whatever comes out of the program is searched for it, as it is and as URLs and
//! base64 spell it. Which keys there are is asked of the configuration's own reference, so that a new one is looked at without a word here.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pgsluice::config::Config;

use crate::{Running, case::Case};

/// A key that can hold a secret.
#[derive(Debug, PartialEq, Eq)]
struct Planted {
    /// Its path, and behind it the name of one of its properties, if it has such.
    path: String,
    secret: String,
    /// Whether it is the name of a file that holds the secret.
    is_file: bool,
}

impl Planted {
    fn new(path: &str, is_file: bool) -> Self {
        // It has what URLs have to encode.
        let secret = format!("pl4nted/{}+~secret", path.replace(['.', '"'], "-"));
        Self { path: path.to_owned(), secret, is_file }
    }

    fn variable(&self) -> String {
        let path = self.path.replace("kafka.properties.", "kafka__properties__");
        let path = path.replace("kafka.properties_file.", "kafka__properties_file__");
        match path.rsplit_once("__") {
            Some((section, property)) if path != self.path => {
                format!("PGSLUICE_{}__{}", section.to_uppercase(), property.replace('.', "_").to_uppercase())
            }
            _ => format!("PGSLUICE_{}", path.replace('.', "__").to_uppercase()),
        }
    }

    /// What the key is set to.
    fn value(&self, case: &Case) -> String {
        if self.is_file {
            return case.file(&self.path, &format!("{}\n", self.secret));
        }
        let url = match self.path.as_str() {
            "postgres.url" => &case.url,
            path if path.ends_with("url") => &case.registry_url,
            _ => return self.secret.clone(),
        };
        let mut url: url::Url = url.parse().expect("a URL");
        if url.username().is_empty() {
            url.set_username("ann").expect("it has a host");
        }
        url.set_password(Some(&self.secret)).expect("it has a host");
        url.into()
    }

    /// What else has to be set for the key to mean something.
    fn companions(&self) -> &'static [(&'static str, &'static str)] {
        match self.path.as_str() {
            "schema_registry.password" | "schema_registry.password_file" => {
                &[("PGSLUICE_SCHEMA_REGISTRY__USER", "ann")]
            }
            "columns.hash_salt" | "columns.hash_salt_file" => {
                &[("PGSLUICE_COLUMNS__MASKS", "[{ columns = ['*.*.total'], mask = 'hash' }]")]
            }
            "kafka.oauthbearer_token_file" => &[("PGSLUICE_KAFKA__PROPERTIES__SECURITY_PROTOCOL", "sasl_plaintext")],
            path if path.contains("sasl.") => &[
                ("PGSLUICE_KAFKA__PROPERTIES__SECURITY_PROTOCOL", "sasl_plaintext"),
                ("PGSLUICE_KAFKA__PROPERTIES__SASL_MECHANISM", "PLAIN"),
                ("PGSLUICE_KAFKA__PROPERTIES__SASL_USERNAME", "ann"),
            ],
            _ => &[],
        }
    }
}

/// Every key that can hold a secret.
fn planted() -> Vec<Planted> {
    /// Properties of librdkafka's that are secret.
    const PROPERTIES: [&str; 4] =
        ["sasl.password", "ssl.key.password", "sasl.oauthbearer.config", "sasl.oauthbearer.client.secret"];
    let mut planted = Vec::new();
    let mut section = String::new();
    for line in Config::reference_markdown().lines() {
        if let Some(name) = line.strip_prefix("### `[").and_then(|rest| rest.strip_suffix("]`")) {
            section = format!("{name}.");
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        let Some(name) = cells[0].strip_prefix("| `").and_then(|name| name.strip_suffix('`')) else { continue };
        let path = format!("{section}{name}");
        match cells[1] {
            "string, secret" => planted.push(Planted::new(&path, false)),
            "path" if path.ends_with("_file") => planted.push(Planted::new(&path, true)),
            "table" if path.starts_with("kafka.properties") => {
                let is_file = path.ends_with("_file");
                planted.extend(PROPERTIES.map(|name| Planted::new(&format!("{path}.{name}"), is_file)));
            }
            _ => {}
        }
    }
    planted
}

/// The texts that tell a secret.
fn forms(secret: &str) -> Vec<String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encoded = |is_upper: bool| -> String {
        secret
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
                other if is_upper => format!("%{other:02X}"),
                other => format!("%{other:02x}"),
            })
            .collect()
    };
    let mut forms = vec![secret.to_owned(), encoded(true), encoded(false)];
    // In base64 it looks otherwise behind each number of bytes modulo three; what depends on its neighbours is left out.
    for before in 0..3 {
        let bytes: Vec<u8> = std::iter::repeat_n(0, before).chain(secret.bytes()).collect();
        let bit = |at: usize| u32::from(bytes[at / 8] >> (7 - at % 8) & 1);
        let digits = (before * 8).div_ceil(6)..bytes.len() * 8 / 6;
        let text: String = digits
            .map(|digit| (0..6).fold(0, |value, at| value << 1 | bit(digit * 6 + at)))
            .map(|value| char::from(DIGITS[value as usize]))
            .collect();
        forms.push(text.replace('+', "-").replace('/', "_"));
        forms.push(text);
    }
    forms
}

#[track_caller]
fn assert_unseen(planted: &[&Planted], where_: &str, output: &str) {
    for Planted { path, secret, .. } in planted {
        for form in forms(secret) {
            if let Some(at) = output.find(&form) {
                let begin = output[..at].rfind('\n').map_or(0, |at| at + 1);
                let end = output[at..].find('\n').map_or(output.len(), |length| at + length);
                panic!("{where_} tells {path} as {form:?}: {}", &output[begin..end]);
            }
        }
    }
}

/// What is for people in a log that has everything.
fn told(log: &str) -> String {
    let is_for_people =
        |line: &&str| !line.contains("facility=") && !line.contains("troyed event") && !line.contains("troying event");
    log.lines().filter(is_for_people).collect::<Vec<_>>().join("\n")
}

/// A command that runs, with both of its streams in one file.
struct Speaking {
    running: Running,
    file: tempfile::NamedTempFile,
    what: String,
}

impl Speaking {
    fn start(command: &mut Command) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut append = std::fs::OpenOptions::new();
        let writer = append.append(true).open(file.path()).expect("the same file");
        command.stdin(Stdio::null()).stdout(writer.try_clone().expect("a descriptor")).stderr(writer);
        Self { running: Running(command.spawn().expect("it runs")), file, what: format!("{:?}", command.get_args()) }
    }

    /// What it says to its end, or to these words.
    fn output(mut self, ends_at: &str) -> String {
        let began = Instant::now();
        loop {
            let ended = self.running.0.try_wait().expect("its state").is_some();
            let text = std::fs::read_to_string(self.file.path()).expect("UTF-8");
            if ended || (!ends_at.is_empty() && text.contains(ends_at)) {
                return text;
            }
            assert!(began.elapsed() < Duration::from_mins(1), "{} says\n{}", self.what, told(&text));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_reference_names_every_key_that_can_hold_a_secret() {
    let planted = planted();
    for (path, is_file) in [
        ("postgres.url", false),
        ("postgres.password_file", true),
        ("kafka.properties.sasl.password", false),
        ("kafka.properties_file.sasl.password", true),
        ("kafka.oauthbearer_token_file", true),
        ("columns.hash_salt", false),
        ("schema_registry.url", false),
        ("schema_registry.password", false),
        ("schema_registry.token_file", true),
        ("http.token", false),
    ] {
        assert!(planted.contains(&Planted::new(path, is_file)), "{path}: {planted:?}");
    }
    assert_eq!(planted[0].variable(), "PGSLUICE_POSTGRES__URL");
    let variable = Planted::new("kafka.properties.sasl.password", false).variable();
    assert_eq!(variable, "PGSLUICE_KAFKA__PROPERTIES__SASL_PASSWORD");
    // RFC 4648 of "foo".
    assert!(forms("foo").contains(&"Zm9v".to_owned()));
    assert!(forms("a/b").contains(&"a%2Fb".to_owned()));
}

/// One at a time, right or wrong: what is told of the configuration, of connections that fail, and what a panic could say.
#[test]
fn no_secret_is_in_what_is_told_of_failures() {
    let mut case = Case::new("planted");
    let brokers = std::mem::take(&mut case.bootstrap_servers);
    // What is said of a broker that cannot be reached is searched as well.
    case.bootstrap_servers = format!("127.0.0.1:{}", crate::case::closed_port());
    let text = std::fs::read_to_string(case.config()).expect("a configuration");
    let mut checks = Vec::new();
    for one in planted() {
        let (variable, value) = (one.variable(), one.value(&case));
        let pairs: Vec<(String, String)> = one
            .companions()
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .chain([(variable.clone(), value.clone())])
            .collect();
        // A panic prints what `Debug` does, at most.
        match Config::parse(&text, pairs.clone()) {
            Ok(config) => assert_unseen(&[&one], "Debug", &format!("{config:?} {config:#?} {:?}", config.warnings())),
            Err(error) => assert_unseen(&[&one], "the error", &format!("{error} {error:?}")),
        }
        // It is there, and of no use: behind a misspelt name, and in a file that is no TOML.
        let misspelt = Config::parse(&text, [(format!("{variable}X"), value.clone())]);
        let torn = Config::parse(&format!("{text}\nlevel = \"{}\n", one.secret), []);
        assert!(torn.is_err(), "there are two sections of one name, or it is no TOML");
        for outcome in [misspelt, torn] {
            let told = outcome.map_or_else(|error| format!("{error} {error:?}"), |config| format!("{config:?}"));
            assert_unseen(&[&one], "what is told of it", &told);
        }
        let with = |command: &mut Command| {
            command.envs(pairs.iter().map(|(name, value)| (name, value))).env("PGSLUICE_LOG__LEVEL", "trace");
        };
        let mut check = case.pgsluice(&["check", "--json"]);
        with(&mut check);
        checks.push((one, Speaking::start(&mut check)));
    }
    // Most of them wait for brokers, and they do so at the same time.
    for (one, check) in checks {
        assert_unseen(&[&one], "check", &check.output(""));
    }
    // A role's password that is wrong, by each command that connects.
    let wrong = Planted::new("postgres.url", false);
    let url = wrong.value(&case);
    for arguments in [&["check"][..], &["run"], &["setup"], &["setup", "--as", &url]] {
        let mut command = case.pgsluice(arguments);
        command.env("PGSLUICE_POSTGRES__URL", &url).env("PGSLUICE_LOG__LEVEL", "trace");
        command.env("PGSLUICE_KAFKA__BOOTSTRAP_SERVERS", &brokers);
        let said = Speaking::start(&mut command).output("starting again");
        assert_unseen(&[&wrong], &arguments.join(" "), &said);
    }
}

/// As many as go together, in a stream that works: its log at every level, with all that librdkafka says, its pages, and the commands that ask it.
#[test]
fn no_secret_is_in_what_a_stream_tells() {
    let mut case = Case::new("planted_stream");
    let chosen = [
        "postgres.password_file",
        "kafka.properties.ssl.key.password",
        "kafka.properties_file.sasl.password",
        "columns.hash_salt",
        "schema_registry.url",
        "http.token_file",
    ];
    let planted: Vec<Planted> = planted().into_iter().filter(|one| chosen.contains(&one.path.as_str())).collect();
    assert_eq!(planted.len(), chosen.len());
    let role = format!("{}_role", case.name);
    let password = &planted.iter().find(|one| one.path == chosen[0]).expect("it is chosen").secret;
    case.sql(&format!("CREATE ROLE {role} SUPERUSER LOGIN REPLICATION PASSWORD '{password}'"));
    case.sql("INSERT INTO orders VALUES (1, 1, '(1,1),(0,0)')");
    case.edit_url(|url| {
        url.set_username(&role).expect("it has a host");
        url.set_password(None).expect("it has a host");
    });
    let listen = format!("127.0.0.1:{}", crate::case::closed_port());
    let variables: Vec<(String, String)> = planted
        .iter()
        .map(|one| (one.variable(), one.value(&case)))
        .chain(
            planted
                .iter()
                .filter(|one| one.path.starts_with("columns"))
                .flat_map(|one| one.companions().iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))),
        )
        .chain([
            ("PGSLUICE_HTTP__LISTEN".to_owned(), listen.clone()),
            ("PGSLUICE_LOG__LEVEL".to_owned(), "trace".to_owned()),
            ("PGSLUICE_KAFKA__PROPERTIES__DEBUG".to_owned(), "all".to_owned()),
        ])
        .collect();
    let log = case.file("log", "");
    let mut run = case.pgsluice(&["run"]);
    run.envs(variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    let writer = std::fs::File::create(&log).expect("a file");
    run.stdout(writer.try_clone().expect("a descriptor")).stderr(writer);
    let mut running = Running(run.spawn().expect("it runs"));
    let said = || std::fs::read_to_string(&log).expect("a log");
    let began = Instant::now();
    while !said().contains("the table is copied") {
        let is_running = running.0.try_wait().expect("its state").is_none();
        assert!(is_running && began.elapsed() < Duration::from_mins(1), "it does not stream:\n{}", told(&said()));
        std::thread::sleep(Duration::from_millis(20));
    }
    let planted: Vec<&Planted> = planted.iter().collect();
    let token = &planted.iter().find(|one| one.path == "http.token_file").expect("it is chosen").secret;
    let requests = [
        ("GET /", "accept: text/html\r\n".to_owned(), ""),
        ("GET /status", String::new(), ""),
        ("GET /metrics", String::new(), ""),
        ("GET /readyz", String::new(), ""),
        ("GET /livez", String::new(), ""),
        ("GET /snapshot", String::new(), ""),
        ("POST /snapshot/pause", "content-type: application/json\r\nauthorization: Bearer wrong\r\n".to_owned(), "{}"),
        ("POST /snapshot/start", format!("content-type: application/json\r\nauthorization: Bearer {token}\r\n"), "{"),
        ("POST /snapshot/resume", format!("content-type: application/json\r\nauthorization: Bearer {token}\r\n"), "{}"),
    ];
    for (what, headers, body) in requests {
        let mut connection = TcpStream::connect(&listen).expect("it listens");
        write!(
            connection,
            "{what} HTTP/1.1\r\nhost: {listen}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
        .expect("sent");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 ") && !answer.starts_with("HTTP/1.1 404"), "{what}: {answer}");
        assert_unseen(&planted, what, &answer);
    }
    for arguments in [
        &["top", "--once"][..],
        &["snapshot", "status"],
        &["snapshot", "pause"],
        &["check"],
        &["config", "example"],
        &["config", "reference"],
    ] {
        let mut command = case.pgsluice(arguments);
        if arguments[0] == "config" {
            command = Command::new(env!("CARGO_BIN_EXE_pgsluice"));
            command.args(arguments);
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        assert_unseen(&planted, &arguments.join(" "), &Speaking::start(&mut command).output(""));
    }
    running.end();
    let said = said();
    assert!(said.contains("librdkafka") || said.contains("BROKER"), "librdkafka says nothing");
    assert_unseen(&planted, "the log", &said);
}
