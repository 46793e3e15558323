//! Text in, configuration or problems out.

mod environment;
mod reference;
mod secrets;
mod shaping;
mod values;

use super::{Config, ConfigError, Problem, RemoteRegistry, SchemaRegistry};

const SECRET: &str = "kept-from-print";

/// The least that is valid; tests add to it, or replace lines of it.
const LEAST: &str = r#"name = "shop"
[postgres]
url = "postgres://ann@db/shop"
tables = ["public.*"]
[kafka]
bootstrap_servers = "kafka:9092"
[schema_registry]
url = "http://registry:8081"
"#;

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::parse(text, variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn valid(text: &str, variables: &[(&str, &str)]) -> Config {
    parse(text, variables).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn remote(config: &Config) -> &RemoteRegistry {
    match &config.schema_registry {
        SchemaRegistry::Remote(remote) => remote,
        SchemaRegistry::BuiltIn { .. } => panic!("the configuration names no registry"),
    }
}

/// The problems as they are printed, one a line.
fn problems(text: &str, variables: &[(&str, &str)]) -> String {
    let error = parse(text, variables).expect_err("the configuration has a problem");
    error.problems().iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// One line of [`LEAST`] replaced by others.
fn least_with(line: &str, replacement: &str) -> String {
    assert!(LEAST.contains(line), "{line}");
    LEAST.replace(line, replacement)
}

/// Lines added at the end of [`LEAST`].
fn least_and(lines: &str) -> String {
    format!("{LEAST}{lines}\n")
}

#[track_caller]
fn check(text: &str, expect: &str) {
    assert_eq!(problems(text, &[]), expect);
}
