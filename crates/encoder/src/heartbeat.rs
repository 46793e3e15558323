//! The topic of heartbeats: a record from time to time, whatever happens, so that whoever waits for changes can tell a quiet source from a dead
//! stream. These are Debezium's records with `heartbeat.interval.ms`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    Format, Naming, PlanError, Schema, avro,
    encode::{Framing, bound_framing},
    json::{self, append},
    naming::checked_topic,
};

/// The topic of heartbeats, `__debezium-heartbeat.{prefix}` unless it has another name, whose schemas are to be registered.
#[derive(Debug)]
pub struct HeartbeatTopic {
    topic: Arc<str>,
    server: String,
    schemas: Option<(Schema, Schema)>,
}

impl HeartbeatTopic {
    /// The topic of one stream.
    ///
    /// # Errors
    /// Its name is one that Kafka does not allow.
    pub fn new(naming: &Naming, topic: Option<&str>, format: Format) -> Result<Self, PlanError> {
        let topic = match topic {
            Some(topic) => checked_topic(topic)?,
            None => checked_topic(&format!("__debezium-heartbeat.{}", naming.topic_prefix))?,
        };
        let schemas = match format {
            Format::Avro => Some((Schema::new(&key(), &topic)?, Schema::new(&value(), &topic)?)),
            Format::Json => None,
        };
        Ok(Self { topic: topic.into(), server: naming.topic_prefix.clone(), schemas })
    }

    /// Its name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The schemas of keys, subject `{topic}-key`, and of values, subject `{topic}-value`; none for JSON.
    pub fn schemas(&self) -> Option<(&Schema, &Schema)> {
        self.schemas.as_ref().map(|(key, value)| (key, value))
    }

    /// Takes the ids that the registry has for the schemas of keys and values, if they have schemas.
    ///
    /// # Errors
    /// There are ids without schemas, or schemas without ids.
    pub fn bind(self, ids: Option<(u32, u32)>) -> Result<BoundHeartbeatTopic, PlanError> {
        let framing = bound_framing(&self.topic, self.schemas.is_some(), ids)?;
        let mut key = Vec::new();
        if let Some((key_framing, _)) = &framing {
            key.extend_from_slice(key_framing);
            avro::write_bytes(&mut key, self.server.as_bytes());
        } else {
            key.extend_from_slice(b"{\"serverName\":");
            json::write_string(&mut key, &self.server);
            key.push(b'}');
        }
        Ok(BoundHeartbeatTopic { topic: self.topic, key, value_framing: framing.map(|(_, value)| value) })
    }
}

/// A [`HeartbeatTopic`] whose schemas are registered: it can encode.
#[derive(Debug)]
pub struct BoundHeartbeatTopic {
    topic: Arc<str>,
    key: Vec<u8>,
    value_framing: Option<Framing>,
}

impl BoundHeartbeatTopic {
    /// Where it goes.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The key of every heartbeat: the name of the stream.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The value of a heartbeat at this time, in milliseconds since 1970.
    pub fn value(&self, unix_ms: i64) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(framing) = &self.value_framing {
            out.extend_from_slice(framing);
            avro::write_long(&mut out, unix_ms);
        } else {
            append(&mut out, format_args!("{{\"ts_ms\":{unix_ms}}}"));
        }
        out
    }
}

fn key() -> Value {
    record("ServerNameKey", &json!({ "name": "serverName", "type": "string" }))
}

fn value() -> Value {
    record("Heartbeat", &json!({ "name": "ts_ms", "type": "long" }))
}

fn record(name: &str, field: &Value) -> Value {
    const NAMESPACE: &str = "io.debezium.connector.common";
    json!({
        "type": "record",
        "name": name,
        "namespace": NAMESPACE,
        "fields": [field],
        "connect.version": 1,
        "connect.name": format!("{NAMESPACE}.{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_read_back_in_both_formats() {
        let naming = Naming::new("shop", "app");
        let avro = HeartbeatTopic::new(&naming, None, Format::Avro).unwrap();
        assert_eq!(&**avro.topic(), "__debezium-heartbeat.shop");
        let read = |schema: &Schema, framed: &[u8]| schema.describe(&framed[5..]).unwrap();
        let schemas = avro.schemas().map(|(key, value)| (key.clone(), value.clone())).unwrap();
        let bound = avro.bind(Some((1, 2))).unwrap();
        assert_eq!(read(&schemas.0, bound.key()), r#"{"serverName":"shop"}"#);
        assert_eq!(
            (&bound.value(5)[..5], read(&schemas.1, &bound.value(-5)).as_str()),
            (&[0, 0, 0, 0, 2][..], r#"{"ts_ms":-5}"#)
        );

        let json = HeartbeatTopic::new(&naming, Some("beats"), Format::Json).unwrap().bind(None).unwrap();
        assert_eq!((json.topic(), json.key()), ("beats", &br#"{"serverName":"shop"}"#[..]));
        assert_eq!(json.value(-5), br#"{"ts_ms":-5}"#);
        assert!(HeartbeatTopic::new(&naming, None, Format::Json).unwrap().bind(Some((1, 2))).is_err());
    }
}
