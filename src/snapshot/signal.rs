//! Commands as records of a Kafka topic, in the form of Debezium's signals.
//!
//! A signal is an object with a `type`, and `data` that depend on it. Debezium takes the names of tables for regular expressions; so they are here, where
//! none is a table's name as it stands.

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use super::control::Command;

/// What a signal asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Commands, one after another.
    Commands(Vec<Command>),
    /// To be logged.
    Log(String),
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Execute {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    data_collections: Vec<String>,
    #[serde(default)]
    additional_condition: Option<String>,
    #[serde(default)]
    additional_conditions: Vec<Condition>,
    /// Debezium has no such thing.
    #[serde(default)]
    parallel: Option<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Condition {
    data_collection: String,
    filter: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct Stop {
    #[serde(rename = "type")]
    _kind: Option<String>,
    data_collections: Vec<String>,
}

impl Signal {
    /// Reads a signal; `published` are the tables that are streamed, as `schema.table`.
    ///
    /// # Errors
    /// What cannot be understood of it.
    pub(crate) fn read(value: &[u8], published: &[String]) -> Result<Self, String> {
        let Body { kind, data } = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        let of_data = |error: serde_json::Error| format!("the data of {kind}: {error}");
        match kind.as_str() {
            "execute-snapshot" => {
                let execute: Execute = serde_json::from_value(data).map_err(of_data)?;
                if let Some(kind) = &execute.kind
                    && !kind.eq_ignore_ascii_case("incremental")
                {
                    return Err(format!(
                        "a snapshot of type {kind}: every copy runs beside the stream, which is incremental"
                    ));
                }
                execute.commands(published).map(Self::Commands)
            }
            "stop-snapshot" => {
                let stop =
                    if data.is_null() { Stop::default() } else { serde_json::from_value(data).map_err(of_data)? };
                let tables = matching(&stop.data_collections, published)?;
                Ok(Self::Commands(vec![Command::Stop { tables }]))
            }
            "pause-snapshot" => Ok(Self::Commands(vec![Command::Pause])),
            "resume-snapshot" => Ok(Self::Commands(vec![Command::Resume])),
            "log" => Ok(Self::Log(data["message"].as_str().unwrap_or_default().to_owned())),
            other => Err(format!(
                "the type {other}: there are execute-snapshot, stop-snapshot, pause-snapshot, resume-snapshot and log"
            )),
        }
    }
}

impl Execute {
    /// One command for each table that has a condition, and one for all others: what the server may refuse comes first.
    fn commands(self, published: &[String]) -> Result<Vec<Command>, String> {
        let (mut plain, parallel) = (Vec::new(), self.parallel);
        let mut commands = Vec::new();
        for table in matching(&self.data_collections, published)? {
            let mut own = None;
            for Condition { data_collection, filter } in &self.additional_conditions {
                if matching(std::slice::from_ref(data_collection), published)?.contains(&table) {
                    own = own.or(Some(filter));
                }
            }
            match own.or(self.additional_condition.as_ref()) {
                Some(condition) => {
                    commands.push(Command::Start { tables: vec![table], condition: Some(condition.clone()), parallel });
                }
                None => plain.push(table),
            }
        }
        if !plain.is_empty() {
            commands.push(Command::Start { tables: plain, condition: None, parallel });
        }
        Ok(commands)
    }
}

/// The tables that are named, or match; each name must be for one at least.
fn matching(names: &[String], published: &[String]) -> Result<Vec<String>, String> {
    let mut tables: Vec<String> = Vec::new();
    for name in names {
        let found: Vec<&String> = if published.contains(name) {
            vec![name]
        } else {
            let pattern = Regex::new(&format!("^(?:{name})$")).map_err(|error| format!("{name:?}: {error}"))?;
            published.iter().filter(|table| pattern.is_match(table)).collect()
        };
        if found.is_empty() {
            return Err(format!("{name} is not streamed: the name of a table is schema.table"));
        }
        for table in found {
            if !tables.contains(table) {
                tables.push(table.clone());
            }
        }
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Signal, String> {
        let published = ["public.item", "public.order", "public.order$item"].map(str::to_owned);
        Signal::read(value.as_bytes(), &published)
    }

    fn start(tables: &[&str], condition: Option<&str>) -> Command {
        let tables = tables.iter().map(|table| (*table).to_owned()).collect();
        Command::Start { tables, condition: condition.map(str::to_owned), parallel: None }
    }

    #[test]
    fn debeziums_signals_are_understood() {
        for (value, commands) in [
            (
                r#"{"id":"1","type":"execute-snapshot","data":{"data-collections":["public.item"],"type":"INCREMENTAL"}}"#,
                vec![start(&["public.item"], None)],
            ),
            (
                r#"{"type":"execute-snapshot","data":{"data-collections":["public.order$item"]}}"#,
                vec![start(&["public.order$item"], None)],
            ),
            (
                r#"{"type":"execute-snapshot","data":{"data-collections":["public\\.(item|order)"]}}"#,
                vec![start(&["public.item", "public.order"], None)],
            ),
            (
                r#"{"type":"execute-snapshot","data":{"data-collections":["public.item","public.order"],"additional-conditions":[{"data-collection":"public.item","filter":"id < 9"}]}}"#,
                vec![start(&["public.item"], Some("id < 9")), start(&["public.order"], None)],
            ),
            (
                r#"{"type":"stop-snapshot","data":{"data-collections":["public.item"],"type":"INCREMENTAL"}}"#,
                vec![Command::Stop { tables: vec!["public.item".into()] }],
            ),
            (r#"{"type":"stop-snapshot"}"#, vec![Command::Stop { tables: Vec::new() }]),
            (r#"{"type":"pause-snapshot","data":{}}"#, vec![Command::Pause]),
            (r#"{"type":"resume-snapshot"}"#, vec![Command::Resume]),
        ] {
            assert_eq!(read(value), Ok(Signal::Commands(commands)), "{value}");
        }
        let value = r#"{"type":"execute-snapshot","data":{"data-collections":["public.item"],"parallel":4}}"#;
        let four = Command::Start { tables: vec!["public.item".into()], condition: None, parallel: Some(4) };
        assert_eq!(read(value), Ok(Signal::Commands(vec![four])));
        assert_eq!(read(r#"{"type":"log","data":{"message":"hello"}}"#), Ok(Signal::Log("hello".into())));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_reason() {
        for (value, says) in [
            ("{", "EOF"),
            (r#"{"data":{}}"#, "missing field `type`"),
            (r#"{"type":"execute-snapshot"}"#, "the data of execute-snapshot"),
            (
                r#"{"type":"execute-snapshot","data":{"data-collections":["public.items"]}}"#,
                "public.items is not streamed",
            ),
            (r#"{"type":"execute-snapshot","data":{"data-collections":["("]}}"#, "regex parse error"),
            (
                r#"{"type":"execute-snapshot","data":{"data-collections":["public.item"],"type":"BLOCKING"}}"#,
                "BLOCKING",
            ),
            (
                r#"{"type":"execute-snapshot","data":{"data-collections":["public.item"],"parallel":"many"}}"#,
                "the data of execute-snapshot: invalid type",
            ),
            (r#"{"type":"stop-snapshot","data":{"data_collections":["public.item"]}}"#, "unknown field"),
            (r#"{"type":"schema-changes"}"#, "there are execute-snapshot"),
        ] {
            let refused = read(value).expect_err(value);
            assert!(refused.contains(says), "{value}: {refused}");
        }
    }
}
