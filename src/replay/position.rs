//! Where in PostgreSQL's log a record comes from.
//!
//! | record | position |
//! |---|---|
//! | a change | the commit LSN of its transaction: in `source.sequence` (Debezium's envelope), in the headers `__commit_lsn` or `__transaction_id` (upserts, and whoever has asked for them), in `commit_lsn` (a dead letter) |
//! | a row that was copied (`op` or `__op` is `r`) | the LSN of its snapshot: `source.lsn`, `__lsn`, `lsn` |
//! | a tombstone | none: it belongs to the deletion before it |
//! | anything else | not known |
//!
//! The LSN of a change itself (`source.lsn`) is no position: transactions interleave in the log, and are streamed in the order of their commits.
//! It is always less than its commit's, so that a search for it finds the whole transaction.
//!
//! What Debezium's connector itself has written is not known: the first number in its `sequence` is the commit *before* the event's.

use encoder::decode::{Value, parse_json};
use pgoutput::Lsn;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// A change of the transaction that commits there.
    Change(Lsn),
    /// A row as it was in a snapshot of there.
    Row(Lsn),
    /// Nothing of its own: it goes with the record before it.
    Follows,
    /// It does not say.
    Unknown,
}

impl Position {
    /// That of a record with these headers, in their order, and this value.
    pub(crate) fn of<'a>(headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>, value: &Value) -> Self {
        let (mut commit, mut lsn, mut is_read) = (None, None, false);
        for (name, bytes) in headers {
            let Some(text) = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()) else { continue };
            match name {
                "__op" => is_read = text == "r",
                "__lsn" => lsn = number(text),
                "__commit_lsn" => commit = number(text),
                "__transaction_id" => commit = text.split_once(':').and_then(|(_, lsn)| number(lsn)).or(commit),
                _ => {}
            }
        }
        match (commit, lsn) {
            (Some(commit), _) => Self::Change(commit),
            (None, Some(lsn)) if is_read => Self::Row(lsn),
            _ => match value {
                Value::Null => Self::Follows,
                value => envelope(value).or_else(|| letter(value)).unwrap_or(Self::Unknown),
            },
        }
    }

    /// The LSN, whatever it is of.
    pub(crate) fn lsn(self) -> Option<Lsn> {
        match self {
            Self::Change(lsn) | Self::Row(lsn) => Some(lsn),
            Self::Follows | Self::Unknown => None,
        }
    }
}

fn number(text: &str) -> Option<Lsn> {
    text.parse::<u64>().ok().map(Lsn::from).filter(|lsn| lsn.is_valid())
}

fn envelope(value: &Value) -> Option<Position> {
    let source = value.field("source")?;
    if !source.field("version")?.as_text()?.starts_with("pgsluice ") {
        return None;
    }
    let sequence = parse_json(source.field("sequence")?.as_text()?.as_bytes()).ok()?;
    let Value::List(items) = sequence else { return None };
    let [commit, lsn] = items.as_slice() else { return None };
    match commit {
        Value::Null => lsn.as_text().and_then(number).map(Position::Row),
        commit => commit.as_text().and_then(number).map(Position::Change),
    }
}

fn letter(value: &Value) -> Option<Position> {
    value.field("columns")?;
    let lsn = |name| value.field(name)?.as_text()?.parse().ok();
    match value.field("op")?.as_text()? {
        "r" => lsn("lsn").map(Position::Row),
        _ => lsn("commit_lsn").map(Position::Change),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&str, &str)], value: &str) -> Position {
        let headers = headers.iter().map(|(name, value)| (*name, Some(value.as_bytes())));
        Position::of(headers, &parse_json(value.as_bytes()).expect("it is JSON"))
    }

    #[test]
    fn each_kind_of_record_says_it_in_its_own_way() {
        let envelope = |version: &str, sequence: &str| {
            let source = serde_json::json!({ "version": version, "lsn": 20, "sequence": sequence });
            of(&[], &serde_json::json!({ "op": "c", "source": source }).to_string())
        };
        assert_eq!(envelope("pgsluice 0.1.0", r#"["30","20"]"#), Position::Change(Lsn::from(30)));
        assert_eq!(envelope("pgsluice 0.1.0", r#"[null,"20"]"#), Position::Row(Lsn::from(20)));
        assert_eq!(envelope("3.6.0.Final", r#"["30","20"]"#), Position::Unknown);
        for wrong in ["", "[]", r#"["x","20"]"#, r#"["0","20"]"#, r#"["1"]"#, "30"] {
            assert_eq!(envelope("pgsluice 0.1.0", wrong), Position::Unknown, "{wrong}");
        }

        let upsert = [("__op", "u"), ("__lsn", "20"), ("__transaction_id", "7:30")];
        assert_eq!(of(&upsert, r#"{"id":1}"#), Position::Change(Lsn::from(30)));
        assert_eq!(of(&upsert, "null"), Position::Change(Lsn::from(30)), "a deletion");
        assert_eq!(of(&[("__op", "r"), ("__lsn", "20")], r#"{"id":1}"#), Position::Row(Lsn::from(20)));
        assert_eq!(of(&[("__op", "u"), ("__lsn", "20")], r#"{"id":1}"#), Position::Unknown);
        assert_eq!(of(&[("__commit_lsn", "30")], "null"), Position::Change(Lsn::from(30)));

        let letter = r#"{"version":1,"op":"u","commit_lsn":"0/1E","lsn":"0/14","columns":[]}"#;
        assert_eq!(of(&[], letter), Position::Change(Lsn::from(30)));
        assert_eq!(of(&[], &letter.replace("\"u\"", "\"r\"")), Position::Row(Lsn::from(20)));

        assert_eq!(of(&[], "null"), Position::Follows);
        assert_eq!(of(&[], "\"hello\""), Position::Unknown);
    }
}
