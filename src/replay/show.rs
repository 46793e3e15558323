//! Records on standard output: as a table for people, or as lines of JSON that lose nothing.

use std::io::Write as _;

use encoder::decode::Value;
use publisher::FetchedRecord;

use super::{decode::Decoded, moment::Moment, position::Position};

/// Columns of the table are at least so wide; what is wider moves what is behind it.
const LSN_WIDTH: usize = 10;
const OFFSET_WIDTH: usize = 9;

/// Appends a record as one line of JSON:
///
/// ```json
/// {"topic":"t","partition":0,"offset":7,"timestamp":1764428400000,"lsn":"0/16B3748","key":{"id":7},"value":{..},"headers":[{"name":"__op","value":"u"}]}
/// ```
///
/// `lsn` is the record's position: of its commit, or of the snapshot of a row that was copied. Numbers have all their digits; bytes are base64; the value of a
/// header that is not UTF-8 is `{"base64":".."}`; what is not there is null, a tombstone's value too. Of a `raw` record key and value are bytes.
pub(crate) fn json_line(record: &FetchedRecord<'_>, decoded: &Decoded, out: &mut Vec<u8>) {
    let text = |text: &str| Value::Text(text.into());
    let field = |name: &str, value: Value| (name.into(), value);
    let headers = record.headers().map(|(name, bytes)| {
        let value = match bytes {
            None => Value::Null,
            Some(bytes) => match std::str::from_utf8(bytes) {
                Ok(value) => text(value),
                Err(_) => Value::Record(vec![field("base64", Value::Bytes(bytes.into()))]),
            },
        };
        Value::Record(vec![field("name", text(name)), field("value", value)])
    });
    let lsn = decoded.position.lsn().map_or(Value::Null, |lsn| text(&lsn.to_string()));
    let before = Value::Record(vec![
        field("topic", text(record.topic())),
        field("partition", Value::Integer(record.partition().into())),
        field("offset", Value::Integer(record.offset())),
        field("timestamp", record.unix_ms().map_or(Value::Null, Value::Integer)),
        field("lsn", lsn),
    ]);
    before.write_json(out);
    // The values are not copied for being written.
    out.pop();
    out.extend_from_slice(b",\"key\":");
    decoded.key.write_json(out);
    out.extend_from_slice(b",\"value\":");
    decoded.value.write_json(out);
    out.extend_from_slice(b",\"headers\":");
    Value::List(headers.collect()).write_json(out);
    out.extend_from_slice(b"}\n");
}

/// A table for people.
#[derive(Debug)]
pub(crate) struct Table {
    /// How wide the terminal is; none for what is no terminal, where nothing is cut.
    width: Option<usize>,
    /// Wide enough for the longest of the topics, or nothing if there is one.
    topic_width: Option<usize>,
}

impl Table {
    pub(crate) fn new(topics: &[String], width: Option<usize>) -> Self {
        let topic_width = (topics.len() > 1).then(|| topics.iter().map(String::len).max().unwrap_or(0));
        Self { width, topic_width }
    }

    /// Appends the names of its columns.
    pub(crate) fn head(&self, out: &mut Vec<u8>) {
        let line = self.columns("TOPIC", "PART", "OFFSET", "TIME", "LSN", "OP");
        self.line(&format!("{line}KEY -> ROW"), out);
    }

    /// Appends a record: its key, and the row as it is behind the change, or as it was before a deletion.
    pub(crate) fn row(&self, record: &FetchedRecord<'_>, decoded: &Decoded, out: &mut Vec<u8>) {
        let header = |wanted: &str| {
            let found = record.headers().filter(|(name, _)| *name == wanted).last();
            found.and_then(|(_, bytes)| std::str::from_utf8(bytes?).ok())
        };
        let is_null = |field: &str| decoded.value.field(field) == Some(&Value::Null);
        let is_envelope = decoded.value.field("after").is_some() && decoded.value.field("op").is_some();
        let op = match decoded.value.field("op").and_then(Value::as_text) {
            Some(op) if is_envelope => op,
            _ => header("__op").unwrap_or("-"),
        };
        let row = match &decoded.value {
            Value::Null => "(no value)".to_owned(),
            value if is_envelope && !is_null("after") => plain(value.field("after").unwrap_or(value)),
            value if is_envelope && !is_null("before") => plain(value.field("before").unwrap_or(value)),
            Value::Record(_) if is_envelope => "-".to_owned(),
            value => plain(value),
        };
        let time = record.unix_ms().map_or_else(|| "-".to_owned(), |ms| Moment(ms).to_string());
        let lsn = match decoded.position {
            Position::Change(lsn) | Position::Row(lsn) => lsn.to_string(),
            Position::Follows | Position::Unknown => "-".to_owned(),
        };
        let (partition, offset) = (record.partition().to_string(), record.offset().to_string());
        let columns = self.columns(record.topic(), &partition, &offset, &time, &lsn, op);
        self.line(&format!("{columns}{} -> {row}", plain(&decoded.key)), out);
    }

    fn columns(&self, topic: &str, partition: &str, offset: &str, time: &str, lsn: &str, op: &str) -> String {
        let topic = self.topic_width.map_or_else(String::new, |width| format!("{topic:width$}  "));
        format!("{topic}{partition:>4}  {offset:>OFFSET_WIDTH$}  {time:<24}  {lsn:<LSN_WIDTH$}  {op:<2}  ")
    }

    fn line(&self, line: &str, out: &mut Vec<u8>) {
        let cut = self.width.filter(|width| line.chars().count() > *width);
        match cut {
            Some(width) => {
                out.extend(line.chars().take(width.saturating_sub(1)).collect::<String>().into_bytes());
                out.extend_from_slice("…".as_bytes());
            }
            None => out.extend_from_slice(line.as_bytes()),
        }
        out.push(b'\n');
    }
}

/// Fields as `name=value`, in JSON but for the outermost braces: nothing in it can move a terminal's cursor.
fn plain(value: &Value) -> String {
    let Value::Record(fields) = value else { return value.to_json() };
    let mut out = Vec::new();
    for (name, value) in fields {
        if !out.is_empty() {
            out.push(b' ');
        }
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{}=", name.escape_debug());
        value.write_json(&mut out);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// How many columns the terminal behind standard output has; none if it is none.
pub(crate) fn terminal_width() -> Option<usize> {
    // SAFETY: `ioctl` writes a `winsize` into the one that it is given, and nothing else.
    let width = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) == 0).then_some(size.ws_col)
    };
    width.filter(|width| *width > 0).map(usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_plain_text() {
        let value = encoder::decode::parse_json("{\"id\":7,\"name\":\"a\\u001b[2J\",\"x\\ny\":[1,null]}".as_bytes());
        assert_eq!(plain(&value.expect("JSON")), r#"id=7 name="a\u001b[2J" x\ny=[1,null]"#);
        assert_eq!(plain(&Value::Null), "null");
    }

    #[test]
    fn lines_are_cut_to_the_terminal() {
        let line = |width| {
            let mut out = Vec::new();
            Table::new(&["t".into()], width).line("äbcdef", &mut out);
            String::from_utf8(out).expect("it is text")
        };
        assert_eq!([None, Some(6), Some(5), Some(1)].map(line), ["äbcdef\n", "äbcdef\n", "äbcd…\n", "…\n"]);
    }
}
