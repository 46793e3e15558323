//! Parsed values: each type here can hold what is valid and nothing else, and its parser says what it takes.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use super::SnapshotMode;
use super::document::{Data, printable};
use super::problem::Fault;

/// A value that can be read from TOML.
pub(super) trait FromData: Sized {
    /// Reads the value. The fault's `found` must not hold the value when it may be a secret.
    fn from_data(data: &Data) -> Result<Self, Fault>;
}

/// The name of an instance: 1 to 100 of the characters that a Kafka topic may have, not starting with `.` or `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(String);

impl Name {
    const BYTES_MAX: usize = 100;

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The default name of the slot and the publication: `pgsluice_` and the name in lower case, in which every character but
    /// `a-z`, `0-9` and `_` becomes `_`, since a slot's name can hold nothing else. It may be longer than PostgreSQL takes.
    pub(super) fn replication_object(&self) -> String {
        let keep = |character: char| match character.to_ascii_lowercase() {
            kept @ ('a'..='z' | '0'..='9' | '_') => kept,
            _ => '_',
        };
        format!("pgsluice_{}", self.0.chars().map(keep).collect::<String>())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromData for Name {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        let text = String::from_data(data)?;
        if is_topic_text(&text, Self::BYTES_MAX) && !text.starts_with(['.', '-']) {
            return Ok(Self(text));
        }
        Err(found_text(&text, "give 1 to 100 letters, digits, `.`, `_` and `-`, not starting with `.` or `-`"))
    }
}

/// The name of a Kafka topic: 1 to 249 of `A-Z`, `a-z`, `0-9`, `.`, `_` and `-`, and neither `.` nor `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicName(String);

impl TopicName {
    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromData for TopicName {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        let text = String::from_data(data)?;
        if is_topic_text(&text, 249) && text != "." && text != ".." {
            return Ok(Self(text));
        }
        Err(found_text(&text, "give a Kafka topic name: 1 to 249 letters, digits, `.`, `_` and `-`"))
    }
}

fn is_topic_text(text: &str, bytes_max: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=bytes_max).contains(&text.len()) && text.bytes().all(allowed)
}

/// PostgreSQL's `NAMEDATALEN` less the terminating byte.
pub(super) const IDENTIFIER_BYTES_MAX: usize = 63;

/// A replication slot's name, as PostgreSQL's `ReplicationSlotValidateName` takes it.
pub(super) struct Slot(pub(super) String);

impl FromData for Slot {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        let text = String::from_data(data)?;
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if (1..=IDENTIFIER_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(Self(text));
        }
        Err(found_text(&text, "give 1 to 63 of `a-z`, `0-9` and `_`; PostgreSQL takes nothing else for a slot"))
    }
}

/// An identifier of PostgreSQL, taken literally.
pub(super) struct Identifier(pub(super) String);

impl FromData for Identifier {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        let text = String::from_data(data)?;
        if (1..=IDENTIFIER_BYTES_MAX).contains(&text.len()) && !text.contains('\0') {
            return Ok(Self(text));
        }
        Err(found_text(&text, "give 1 to 63 bytes; PostgreSQL cuts longer names off"))
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) u64);

impl Size {
    const UNITS: &[(&str, u64)] = &[
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
        ("B", 1),
        ("", 1),
    ];
    const FIX: &str = "give bytes as a whole number with B, KiB, MiB, GiB, kB, MB or GB, as in \"64MiB\"";
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |unit: &&(&str, u64)| self.0 >= unit.1 && self.0.is_multiple_of(unit.1);
        let (unit, factor) = Self::UNITS[..3].iter().find(fits).unwrap_or(&("B", 1));
        write!(formatter, "{}{unit}", self.0 / factor)
    }
}

impl FromData for Size {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        match data {
            Data::Integer(bytes) => {
                u64::try_from(*bytes).map(Self).map_err(|_| Fault::new(format!("found {bytes}"), Self::FIX))
            }
            Data::Text(text) => parse_quantity(text, Self::UNITS).map(Self).ok_or_else(|| found_text(text, Self::FIX)),
            other => Err(found_type(other, Self::FIX)),
        }
    }
}

impl FromData for Duration {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        const UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("min", 60_000), ("m", 60_000), ("h", 3_600_000)];
        const FIX: &str = "give a whole number with ms, s, m or h in quotes, as in \"500ms\" or \"10s\"";
        match data {
            Data::Text(text) => parse_quantity(text, UNITS).map(Self::from_millis).ok_or_else(|| found_text(text, FIX)),
            Data::Integer(number) => Err(Fault::new(format!("found {number}, which has no unit"), FIX)),
            other => Err(found_type(other, FIX)),
        }
    }
}

/// Reads digits and a unit, with blanks between them or not.
fn parse_quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A duration as the configuration writes it.
pub(super) fn duration_words(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms >= 1_000 && ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

impl FromData for String {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        match data {
            Data::Text(text) => Ok(text.clone()),
            other => Err(found_type(other, "give a string in quotes")),
        }
    }
}

impl FromData for SecretString {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        match data {
            Data::Text(text) if text.is_empty() => {
                Err(Fault::new("found an empty string", "give the secret, or leave the key out"))
            }
            Data::Text(text) => Ok(Self::from(text.as_str())),
            other => Err(found_type(other, "give a string in quotes")),
        }
    }
}

impl FromData for PathBuf {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        match String::from_data(data)? {
            text if text.is_empty() => {
                Err(Fault::new("found an empty path", "give the path of a file, or leave the key out"))
            }
            text => Ok(Self::from(text)),
        }
    }
}

impl FromData for bool {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        match data {
            Data::Boolean(flag) => Ok(*flag),
            Data::Text(text) => Err(found_text(text, "give true or false")),
            other => Err(found_type(other, "give true or false")),
        }
    }
}

impl FromData for i64 {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        match data {
            Data::Integer(number) => Ok(*number),
            Data::Text(text) => Err(found_text(text, "give a whole number")),
            other => Err(found_type(other, "give a whole number")),
        }
    }
}

impl FromData for SocketAddr {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        let text = String::from_data(data)?;
        text.parse()
            .map_err(|_| found_text(&text, "give an IP address and a port, as in \"127.0.0.1:9187\" or \"[::]:9187\""))
    }
}

impl FromData for SnapshotMode {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        match String::from_data(data)?.as_str() {
            "initial" => Ok(Self::Initial),
            "initial_only" => Ok(Self::InitialOnly),
            "when_needed" => Ok(Self::WhenNeeded),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            other => {
                Err(found_text(other, "give \"initial\", \"initial_only\", \"when_needed\", \"always\" or \"never\""))
            }
        }
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromData for LogFormat {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        match String::from_data(data)?.as_str() {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(found_text(other, "give \"text\" or \"json\"")),
        }
    }
}

/// Log directives that `tracing_subscriber::EnvFilter` has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// The directives, separated by commas without blanks.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromData for LogLevel {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        const FIX: &str =
            "give error, warn, info, debug or trace, or directives by target such as \"info,walreceiver=debug\"";
        let text = String::from_data(data)?;
        // A lone word that is no level would be taken for a target, with every level switched on: a slip such as "inf" is refused.
        let bare_level = |word: &str| {
            !word.is_empty() && (word.contains('=') || word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok())
        };
        let directives = text.split(',').map(str::trim).collect::<Vec<_>>();
        let is_sound = directives.iter().all(|directive| bare_level(directive));
        let directives = directives.join(",");
        let is_valid = is_sound && tracing_subscriber::EnvFilter::try_new(&directives).is_ok();
        if is_valid { Ok(Self(directives)) } else { Err(found_text(&text, FIX)) }
    }
}

/// The number for "leave it to the broker" in Kafka's own interfaces is -1.
pub(super) struct BrokerDefaultOr(pub(super) Option<i64>);

impl FromData for BrokerDefaultOr {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        match i64::from_data(data)? {
            -1 => Ok(Self(None)),
            number => Ok(Self(Some(number))),
        }
    }
}

pub(super) fn found_text(text: &str, fix: &str) -> Fault {
    Fault::new(format!("found \"{}\"", printable(text)), fix)
}

pub(super) fn found_type(data: &Data, fix: &str) -> Fault {
    Fault::new(format!("found {}", data.type_name()), fix)
}
