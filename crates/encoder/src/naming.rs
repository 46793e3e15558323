//! Names that Kafka and Avro accept, made of names that PostgreSQL accepts.
//!
//! These are Debezium's rules with both of its name adjustment modes set to `avro`: what a name may not hold becomes an underscore, one
//! for each UTF-16 unit, since Debezium is written in Java. Two different names can become one; the plan refuses that within a table.

use crate::PlanError;

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
        let parts = [self.topic_prefix.as_str(), schema, table].join(".");
        let legal = |unit: u8| unit.is_ascii_alphanumeric() || matches!(unit, b'.' | b'_' | b'-');
        let topic: String = replaced(&parts, legal).collect();
        // Debezium cuts the name off, so that two tables may share a topic unnoticed.
        if topic.len() > TOPIC_CHARACTERS_MAX {
            return Err(PlanError::TopicTooLong { topic, characters_max: TOPIC_CHARACTERS_MAX });
        }
        Ok(topic)
    }
}

/// The Avro namespace that goes with a topic.
///
/// Avro wants each part between dots to be a name of its own, which Debezium does not see to for any part but the first. A part that
/// starts with a digit is led by an underscore here, as Debezium does for the first.
pub(crate) fn namespace(topic: &str) -> String {
    topic.split('.').map(field_name).collect::<Vec<_>>().join(".")
}

/// The Avro field of a column.
pub(crate) fn field_name(column: &str) -> String {
    let name: String = replaced(column, |unit| unit.is_ascii_alphanumeric() || unit == b'_').collect();
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

fn replaced(name: &str, legal: impl Fn(u8) -> bool) -> impl Iterator<Item = char> {
    name.encode_utf16().map(move |unit| match u8::try_from(unit) {
        Ok(unit) if legal(unit) => char::from(unit),
        _ => '_',
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_legal_as_in_debezium() {
        let naming = Naming::new("corpus_dev", "db");
        let topic = naming.topic("Odd Schema", "Ünïcode-Täble.x").unwrap();
        assert_eq!(topic, "corpus_dev.Odd_Schema._n_code-T_ble.x");
        assert_eq!(namespace(&topic), "corpus_dev.Odd_Schema._n_code_T_ble.x");
        assert_eq!(field_name("two words"), "two_words");
        assert_eq!(field_name("größe"), "gr__e");
        assert_eq!(field_name("a.b"), "a_b");
        assert_eq!(field_name("1st"), "_1st");
        assert_eq!(field_name("🎉"), "__", "a character outside the basic plane is two units in Java");
    }

    #[test]
    fn every_part_of_a_namespace_is_an_avro_name() {
        assert_eq!(namespace("1p.2024.x..y."), "_1p._2024.x._.y._");
    }

    #[test]
    fn a_topic_that_kafka_cannot_hold_is_refused() {
        let naming = Naming::new("p".repeat(247), "db");
        assert!(matches!(naming.topic("s", "t"), Err(PlanError::TopicTooLong { .. })));
        let naming = Naming::new("p".repeat(245), "db");
        assert_eq!(naming.topic("s", "t").unwrap().len(), 249);
    }
}
