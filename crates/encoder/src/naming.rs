//! Names that Kafka and Avro accept, made of names that PostgreSQL accepts.
//!
//! These are Debezium's rules with both of its name adjustment modes set to `avro`: what a name may not hold becomes an underscore, one
//! for each UTF-16 unit, since Debezium is written in Java. Two different names can become one; the plan refuses that within a table.

use crate::{NameAdjustment, PlanError};

/// Kafka's limit on the name of a topic.
const TOPIC_CHARACTERS_MAX: usize = 249;

/// What all tables of one stream have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// First part of every topic and every Avro namespace, and `source.name`.
    pub topic_prefix: String,
    /// The database, `source.db`.
    pub database: String,
    /// What wrote the events, `source.version`.
    pub version: String,
}

impl Naming {
    /// The naming of one stream, with this crate's name and version as `source.version`.
    pub fn new(topic_prefix: impl Into<String>, database: impl Into<String>) -> Self {
        let version = concat!("pgsluice ", env!("CARGO_PKG_VERSION")).to_owned();
        Self { topic_prefix: topic_prefix.into(), database: database.into(), version }
    }

    /// The topic of a table: `{prefix}.{schema}.{table}`.
    pub(crate) fn topic(&self, schema: &str, table: &str) -> Result<String, PlanError> {
        self.side_topic(&format!("{schema}.{table}"))
    }

    /// The topic of [transactions](crate::TransactionTopic); empty if Kafka cannot have it.
    pub fn transaction_topic(&self) -> String {
        self.side_topic("transaction").unwrap_or_default()
    }

    /// The topic of [messages](crate::MessageTopic); empty if Kafka cannot have it.
    pub fn message_topic(&self) -> String {
        self.side_topic("message").unwrap_or_default()
    }

    /// A topic that is beside those of tables: `{prefix}.{name}`.
    pub(crate) fn side_topic(&self, name: &str) -> Result<String, PlanError> {
        checked_topic(&[self.topic_prefix.as_str(), name].join("."))
    }
}

/// How the name of a topic of dead letters ends.
const DEAD_LETTERS: &str = ".dead-letters";

/// A name in which each character that Kafka does not have in the names of topics is an underscore, as in Debezium. It can still be too
/// long, or none: that is [`PlanError::TopicTooLong`] and [`PlanError::IllegalTopic`].
pub fn legal_topic(name: &str) -> String {
    let legal = |unit: u8| unit.is_ascii_alphanumeric() || matches!(unit, b'.' | b'_' | b'-');
    replaced(name, legal).collect()
}

/// The topic of the dead letters of a table with this topic.
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}{DEAD_LETTERS}")
}

/// Whether dead letters go to a topic of this name. The topic of a table can have such a name too.
pub fn may_be_dead_letter_topic(topic: &str) -> bool {
    topic.ends_with(DEAD_LETTERS)
}

/// The topic of this name, if Kafka takes it.
pub(crate) fn checked_topic(name: &str) -> Result<String, PlanError> {
    let topic = legal_topic(name);
    if matches!(topic.as_str(), "" | "." | "..") {
        return Err(PlanError::IllegalTopic { topic });
    }
    // Debezium cuts the name off, so that two tables may share a topic unnoticed.
    if topic.len() > TOPIC_CHARACTERS_MAX {
        return Err(PlanError::TopicTooLong { topic, characters_max: TOPIC_CHARACTERS_MAX });
    }
    Ok(topic)
}

impl NameAdjustment {
    /// The Avro namespace that goes with a topic; none if this leaves a name that Avro does not have.
    ///
    /// Avro wants each part between dots to be a name of its own, which Debezium does not see to for any part but the first. A part that
    /// starts with a digit is led by an underscore here, as Debezium does for the first.
    pub(crate) fn namespace(self, topic: &str) -> Option<String> {
        topic.split('.').map(|part| self.field_name(part)).collect::<Option<Vec<_>>>().map(|parts| parts.join("."))
    }

    /// The Avro field of a column; none if this leaves a name that Avro does not have.
    pub(crate) fn field_name(self, column: &str) -> Option<String> {
        match self {
            Self::None => is_legal(column).then(|| column.to_owned()),
            Self::Avro => {
                let name: String = replaced(column, |unit| unit.is_ascii_alphanumeric() || unit == b'_').collect();
                Some(if is_legal(&name) { name } else { format!("_{name}") })
            }
            Self::AvroUnicode => Some(escaped(column)),
        }
    }
}

/// A letter or an underscore, and more of these and digits (Avro 1.12 specification, "Names").
fn is_legal(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(legal) && name.starts_with(|first: char| !first.is_ascii_digit())
}

fn replaced(name: &str, legal: impl Fn(u8) -> bool) -> impl Iterator<Item = char> {
    name.encode_utf16().map(move |unit| match u8::try_from(unit) {
        Ok(unit) if legal(unit) => char::from(unit),
        _ => '_',
    })
}

/// The underscore starts an escape here, so it is escaped itself. As in Debezium, numbers of one or two digits are led by two zeros, and
/// others by none.
fn escaped(name: &str) -> String {
    let mut escaped = String::new();
    for (position, unit) in name.encode_utf16().enumerate() {
        match u8::try_from(unit) {
            Ok(byte) if byte.is_ascii_alphabetic() || position > 0 && byte.is_ascii_digit() => {
                escaped.push(char::from(byte));
            }
            _ => {
                let hex = format!("{unit:x}");
                escaped += if hex.len() <= 2 { "_u00" } else { "_u" };
                escaped += &hex;
            }
        }
    }
    // A part of a namespace can be nothing, and a name cannot.
    if escaped.is_empty() { "_".to_owned() } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_legal_as_in_debezium() {
        let naming = Naming::new("corpus_dev", "db");
        let topic = naming.topic("Odd Schema", "Ünïcode-Täble.x").unwrap();
        assert_eq!(topic, "corpus_dev.Odd_Schema._n_code-T_ble.x");
        let namespace = |topic: &str| NameAdjustment::Avro.namespace(topic).unwrap();
        let field_name = |column: &str| NameAdjustment::Avro.field_name(column).unwrap();
        assert_eq!(namespace(&topic), "corpus_dev.Odd_Schema._n_code_T_ble.x");
        assert_eq!(field_name("two words"), "two_words");
        assert_eq!(field_name("größe"), "gr__e");
        assert_eq!(field_name("a.b"), "a_b");
        assert_eq!(field_name("1st"), "_1st");
        assert_eq!(field_name("🎉"), "__", "a character outside the basic plane is two units in Java");
    }

    #[test]
    fn every_part_of_a_namespace_is_an_avro_name() {
        assert_eq!(NameAdjustment::Avro.namespace("1p.2024.x..y.").unwrap(), "_1p._2024.x._.y._");
        assert_eq!(NameAdjustment::AvroUnicode.namespace("1p.x..y").unwrap(), "_u0031p.x._.y");
    }

    #[test]
    fn unicode_keeps_names_apart() {
        let name = |column: &str| NameAdjustment::AvroUnicode.field_name(column).unwrap();
        assert_eq!(name("two words"), "two_u0020words");
        assert_eq!(name("größe"), "gr_u00f6_u00dfe");
        assert_eq!(name("漢"), "_u6f22");
        assert_eq!(name("a_b"), "a_u005fb");
        assert_eq!(name("1st"), "_u0031st");
        assert_eq!(name("x1"), "x1");
        assert_eq!(name("🎉"), "_ud83c_udf89");
    }

    #[test]
    fn without_adjustment_a_name_is_legal_or_refused() {
        let name = |column: &str| NameAdjustment::None.field_name(column);
        assert_eq!(name("_a1").as_deref(), Some("_a1"));
        for column in ["", "1a", "a b", "é", "a-b", "a.b"] {
            assert_eq!(name(column), None, "{column}");
        }
        assert_eq!(NameAdjustment::None.namespace("a.b-c"), None);
    }

    #[test]
    fn a_topic_that_kafka_cannot_hold_is_refused() {
        let naming = Naming::new("p".repeat(247), "db");
        assert!(matches!(naming.topic("s", "t"), Err(PlanError::TopicTooLong { .. })));
        let naming = Naming::new("p".repeat(245), "db");
        assert_eq!(naming.topic("s", "t").unwrap().len(), 249);
        for topic in ["", ".", ".."] {
            assert!(matches!(checked_topic(topic), Err(PlanError::IllegalTopic { .. })), "{topic}");
        }
    }
}
