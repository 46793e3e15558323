//! What a consumer makes of a decoded value, by the schema alone: the text that PostgreSQL reads.
//!
//! Where a date has to be computed, PostgreSQL computes it. The encoder is not asked for anything.

use num_bigint::BigInt;
use postgres::Client;
use serde_json::Value;

use crate::json::with_point;

/// The stand-ins of Debezium's for values that have no number.
const INFINITE_DAYS: [(i64, &str); 2] = [(-2_147_472_692, "infinity"), (-2_147_472_691, "-infinity")];
const INFINITE_MICROSECONDS: [(i64, &str); 2] =
    [(9_223_372_036_825_200_000, "infinity"), (-9_223_372_036_832_400_000, "-infinity")];
const INFINITE_MILLISECONDS: [(i64, &str); 2] =
    [(9_223_372_036_825_200, "infinity"), (-9_223_372_036_832_400, "-infinity")];

/// Reads values, of columns of one type.
pub(super) struct Reader<'a> {
    /// Somebody who can count days.
    pub(super) client: &'a mut Client,
    /// PostgreSQL's type, for what a consumer has to know of it.
    pub(super) type_name: &'a str,
}

impl Reader<'_> {
    /// The text of a value whose schema is this; none for a null.
    pub(super) fn text(&mut self, schema: &Value, value: &Value) -> Option<String> {
        if value.is_null() {
            return None;
        }
        // The other branch of a union is null.
        let schema = schema
            .as_array()
            .map_or(schema, |union| union.iter().find(|branch| *branch != "null").expect("it is no null"));
        // A record that was defined before is named in the place of its schema.
        let name = schema["connect.name"].as_str().or(schema.as_str()).unwrap_or_default();
        Some(match name {
            "io.debezium.time.Date" => self.date(number(value)),
            "io.debezium.time.Time" => time(number(value) * 1000),
            "io.debezium.time.MicroTime" => time(number(value)),
            "io.debezium.time.Timestamp" => self.timestamp(number(value), 1000, INFINITE_MILLISECONDS),
            "io.debezium.time.MicroTimestamp" => self.timestamp(number(value), 1_000_000, INFINITE_MICROSECONDS),
            "io.debezium.time.MicroDuration" => {
                // Up to 14, seconds have 32 bits to be read into; hours are enough for all.
                let microseconds = number(value);
                let sign = if microseconds < 0 { "-" } else { "" };
                format!(
                    "{sign}{}",
                    time(i64::try_from(microseconds.unsigned_abs()).expect("no value here is the least one"))
                )
            }
            "io.debezium.time.IsoDate"
            | "io.debezium.time.IsoTimestamp"
            | "io.debezium.time.IsoTime"
            | "io.debezium.time.ZonedTimestamp" => from_iso(text(value), name),
            "io.debezium.data.VariableScaleDecimal" => {
                let unscaled = BigInt::from_signed_bytes_be(&bytes(&value["value"]));
                with_point(&unscaled.to_string(), usize::try_from(number(&value["scale"])).expect("a scale"))
            }
            "org.apache.kafka.connect.data.Decimal" => text(&value["decimal"]).to_owned(),
            "io.debezium.data.Bits" => {
                // The lowest byte first. The length is that of `bit(n)`, and the longest of `bit varying`.
                let bits = bytes(value).iter().rev().fold(String::new(), |bits, byte| bits + &format!("{byte:08b}"));
                let digits = bits.trim_start_matches('0');
                match schema["connect.parameters"]["length"].as_str() {
                    Some(length) if !self.type_name.starts_with("bit varying") => {
                        format!("{digits:0>length$}", length = length.parse().expect("a length"))
                    }
                    _ => digits.to_owned(),
                }
            }
            "io.debezium.data.geometry.Point" => format!("({},{})", plain(&value["x"]), plain(&value["y"])),
            "io.debezium.data.Json" if self.type_name.trim_end_matches("[]") == "hstore" => hstore(text(value)),
            // Enums, UUIDs, JSON, XML and others, whose text is PostgreSQL's, and what has no semantic type.
            _ => match value {
                Value::Array(items) => self.array(&schema["items"], items),
                Value::Object(_) => {
                    let digits = bytes(value);
                    digits.iter().fold("\\x".to_owned(), |hex, byte| hex + &format!("{byte:02x}"))
                }
                // `bit(1)`
                Value::Bool(bit) if self.type_name.starts_with("bit") => u8::from(*bit).to_string(),
                _ => plain(value),
            },
        })
    }

    fn array(&mut self, items: &Value, values: &[Value]) -> String {
        let mut texts = Vec::new();
        for value in values {
            texts.push(match self.text(items, value) {
                Some(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
                None => "NULL".to_owned(),
            });
        }
        // A box has commas of its own.
        let delimiter = if self.type_name == "box[]" { ";" } else { "," };
        format!("{{{}}}", texts.join(delimiter))
    }

    fn date(&mut self, days: i64) -> String {
        if let Some((_, text)) = INFINITE_DAYS.iter().find(|(number, _)| *number == days) {
            return (*text).to_owned();
        }
        let days = i32::try_from(days).expect("it is an int");
        self.client.query_one("select (date '1970-01-01' + $1::int)::text", &[&days]).expect("it is a date").get(0)
    }

    fn timestamp(&mut self, units: i64, units_per_second: i64, infinities: [(i64, &str); 2]) -> String {
        if let Some((_, text)) = infinities.iter().find(|(number, _)| *number == units) {
            return (*text).to_owned();
        }
        let day = 86_400 * units_per_second;
        let days = i32::try_from(units.div_euclid(day)).expect("so many days PostgreSQL has");
        let time = time(units.rem_euclid(day) * (1_000_000 / units_per_second));
        let sql = "select (timestamp '1970-01-01' + make_interval(days => $1) + ($2::text)::interval)::text";
        self.client.query_one(sql, &[&days, &time]).expect("it is a timestamp").get(0)
    }
}

/// `24:00:00` is a time of its own.
fn time(microseconds: i64) -> String {
    let seconds = microseconds / 1_000_000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{hour:02}:{minute:02}:{second:02}.{:06}", microseconds % 1_000_000)
}

/// PostgreSQL reads ISO 8601, but for signs of years and the year 0, which is 1 BC.
fn from_iso(text: &str, name: &str) -> String {
    // A date has a zone here, which PostgreSQL does not take.
    let is_zoned = name.ends_with("ZonedTimestamp");
    let text = if is_zoned { text } else { text.trim_end_matches('Z') };
    let (sign, rest) = match text.as_bytes()[0] {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let Some((year, rest)) = rest.split_once('-').filter(|(year, _)| year.parse::<i64>().is_ok()) else {
        return text.to_owned();
    };
    match sign * year.parse::<i64>().expect("it is a number") {
        year @ ..=0 => format!("{:04}-{rest} BC", 1 - year),
        year => format!("{year:04}-{rest}"),
    }
}

fn hstore(json: &str) -> String {
    let pairs: serde_json::Map<String, Value> = serde_json::from_str(json).expect("an hstore is an object");
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let pair = |(key, value): (&String, &Value)| {
        let value = if value.is_null() { "NULL".to_owned() } else { quoted(text(value)) };
        format!("{}=>{value}", quoted(key))
    };
    pairs.iter().map(pair).collect::<Vec<_>>().join(",")
}

/// Strings, numbers and booleans; `NaN` and the infinities are strings.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no whole number"))
}

fn bytes(value: &Value) -> Vec<u8> {
    let hex = text(&value["bytes"]);
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal digits")).collect()
}
