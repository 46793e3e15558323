//! The Avro schemas of keys and values, as Debezium's converter writes them: the same fields, names and properties in the same order.
//!
//! The properties that start with `connect.` are what Kafka Connect needs to get its own schema back; other readers ignore them.

mod envelope;

use apache_avro::reader::datum::GenericDatumReader;
use serde_json::{Map, Value, json};

use crate::PlanError;

pub(crate) use envelope::{envelope, key, optional, source, transaction, value};

/// An Avro schema, as its JSON text. It is what is to be registered, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    json: String,
}

impl Schema {
    /// The schema's JSON.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// An encoded value as JSON text, for a message to a person; none if it is not of this schema. It is slow.
    pub(crate) fn describe(&self, mut datum: &[u8]) -> Option<String> {
        let schema = apache_avro::Schema::parse_str(&self.json).ok()?;
        let value = GenericDatumReader::builder(&schema).build().ok()?.read_value(&mut datum).ok()?;
        Value::try_from(value).ok().map(|value| value.to_string())
    }

    /// Takes only what Avro can read back, since a schema that no reader can parse must never reach the registry.
    pub(crate) fn new(schema: &Value, table: &str) -> Result<Self, PlanError> {
        match apache_avro::Schema::parse(schema) {
            Ok(_) => Ok(Self { json: schema.to_string() }),
            Err(cause) => Err(PlanError::InvalidSchema { table: table.to_owned(), cause: cause.to_string() }),
        }
    }
}

/// How values of a type are laid out in Avro.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Physical {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    String,
    Bytes,
    /// `bytes` with the logical type.
    Decimal {
        precision: u32,
        scale: u32,
        /// Whether Kafka Connect's schema has the precision too, which is an addition of Debezium's to that type.
        states_precision: bool,
    },
    /// A record of an `int`, the scale, and `bytes`, the unscaled value.
    VariableScaleDecimal,
    /// A record of two `double`, `bytes` with the same in WKB, and the number of a reference system, which is null.
    Point,
    /// An `array`; its items are a union with null, or not.
    Array {
        items: Box<AvroType>,
        nullable: bool,
    },
    /// A `map` of strings, each of which can be null.
    Map,
}

/// What a PostgreSQL type is in Avro, without nullability and default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AvroType {
    pub(crate) physical: Physical,
    /// `connect.type`: the type in Kafka Connect where Avro has none of its own for it.
    pub(crate) connect_type: Option<&'static str>,
    /// `connect.name`: Kafka Connect's semantic type. All of Debezium's have version 1.
    pub(crate) connect_name: Option<&'static str>,
    /// `connect.parameters`, of which no type has more than one besides decimals.
    pub(crate) connect_parameter: Option<(&'static str, String)>,
    /// `logicalType`, of others than decimals.
    pub(crate) logical_type: Option<&'static str>,
}

impl AvroType {
    /// A type that is no more than its layout.
    pub(crate) const fn plain(physical: Physical) -> Self {
        Self { physical, connect_type: None, connect_name: None, connect_parameter: None, logical_type: None }
    }

    /// A type with a name in Kafka Connect.
    pub(crate) fn named(physical: Physical, connect_name: &'static str) -> Self {
        Self { connect_name: Some(connect_name), ..Self::plain(physical) }
    }
}

impl AvroType {
    /// Avro's logical type: where Kafka Connect has a name for the type, the one that means the same.
    fn native_logical_type(&self) -> Option<&'static str> {
        self.logical_type.map_or_else(
            || match self.connect_name? {
                "io.debezium.data.Uuid" => Some("uuid"),
                "io.debezium.time.Date" => Some("date"),
                "io.debezium.time.Time" => Some("time-millis"),
                "io.debezium.time.MicroTime" => Some("time-micros"),
                "io.debezium.time.Timestamp" => Some("local-timestamp-millis"),
                "io.debezium.time.MicroTimestamp" => Some("local-timestamp-micros"),
                "io.debezium.time.NanoTimestamp" => Some("local-timestamp-nanos"),
                _ => None,
            },
            |logical_type| match (logical_type, self.connect_name) {
                // Kafka Connect knows one kind of timestamp.
                ("timestamp-millis", Some(_)) => Some("local-timestamp-millis"),
                _ => Some(logical_type),
            },
        )
    }
}

/// Which properties types have beside their layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Properties {
    /// Those that Kafka Connect needs to get its own schema back.
    Connect,
    /// Avro's logical types alone.
    Native,
}

/// One field of a key or a row.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) avro_type: AvroType,
    pub(crate) optional: bool,
    /// The default as JSON.
    pub(crate) default: Option<Value>,
}

impl Field {
    /// Which branch of the union a value has, where the field is optional.
    pub(crate) const fn value_branch(&self) -> u8 {
        // A field's default belongs to the first branch.
        if self.default.is_some() { 0 } else { 1 }
    }
}

/// Writes the fields of one schema. A record is defined where it comes first, and is only named after that.
struct FieldWriter {
    properties: Properties,
    defined: Vec<&'static str>,
}

impl FieldWriter {
    fn new(properties: Properties) -> Self {
        Self { properties, defined: Vec::new() }
    }

    fn fields(&mut self, fields: &[&Field]) -> Value {
        fields.iter().map(|field| self.field(field)).collect()
    }

    fn field(&mut self, field: &Field) -> Value {
        let avro_type = self.avro_type(&field.avro_type, field.default.as_ref());
        match (field.optional, &field.default) {
            (false, None) => json!({ "name": field.name, "type": avro_type }),
            (false, Some(default)) => json!({ "name": field.name, "type": avro_type, "default": default }),
            (true, None) => json!({ "name": field.name, "type": ["null", avro_type], "default": null }),
            (true, Some(default)) => json!({ "name": field.name, "type": [avro_type, "null"], "default": default }),
        }
    }

    fn avro_type(&mut self, avro_type: &AvroType, default: Option<&Value>) -> Value {
        let mut properties = Map::new();
        let mut put = |name: &str, value: Value| {
            properties.insert(name.to_owned(), value);
        };
        let mut connect_name = avro_type.connect_name;
        let mut connect_parameters = avro_type.connect_parameter.as_ref().map(|(name, value)| json!({ *name: value }));
        let native = self.properties == Properties::Native;
        let mut logical_type = if native { avro_type.native_logical_type() } else { avro_type.logical_type };
        put("type", physical_name(&avro_type.physical).into());
        match &avro_type.physical {
            Physical::Decimal { precision, scale, states_precision } => {
                put("scale", (*scale).into());
                put("precision", (*precision).into());
                connect_name = Some("org.apache.kafka.connect.data.Decimal");
                let mut parameters = json!({ "scale": scale.to_string() });
                if *states_precision {
                    parameters["connect.decimal.precision"] = precision.to_string().into();
                }
                connect_parameters = Some(parameters);
                logical_type = Some("decimal");
            }
            Physical::VariableScaleDecimal | Physical::Point => {
                let record = if avro_type.physical == Physical::Point { &POINT } else { &VARIABLE_SCALE_DECIMAL };
                connect_name = Some(record.full_name);
                if self.defined.contains(&record.full_name) {
                    return record.full_name.into();
                }
                self.defined.push(record.full_name);
                let (namespace, name) = record.full_name.rsplit_once('.').unwrap_or_default();
                put("name", name.into());
                put("namespace", namespace.into());
                put("fields", (record.fields)());
                if !native {
                    put("connect.doc", record.doc.into());
                }
            }
            Physical::Array { items, nullable } => {
                let item = self.avro_type(items, None);
                put("items", if *nullable { json!(["null", item]) } else { item });
            }
            Physical::Map => put("values", json!(["null", "string"])),
            _ => {}
        }
        if !native {
            if let Some(connect_type) = avro_type.connect_type {
                put("connect.type", connect_type.into());
            }
            if connect_name.is_some() {
                put("connect.version", 1.into());
            }
            if let Some(parameters) = connect_parameters {
                put("connect.parameters", parameters);
            }
            if let Some(default) = default {
                put("connect.default", default.clone());
            }
            if let Some(name) = connect_name {
                put("connect.name", name.into());
            }
        }
        if let Some(name) = logical_type {
            put("logicalType", name.into());
        }
        // A type without properties is written as its name.
        if properties.len() == 1 { properties["type"].take() } else { Value::Object(properties) }
    }
}

/// One of Debezium's records that stand for a single value.
struct ValueRecord {
    full_name: &'static str,
    doc: &'static str,
    fields: fn() -> Value,
}

static VARIABLE_SCALE_DECIMAL: ValueRecord = ValueRecord {
    full_name: "io.debezium.data.VariableScaleDecimal",
    doc: "Variable scaled decimal",
    fields: || json!([{ "name": "scale", "type": "int" }, { "name": "value", "type": "bytes" }]),
};

static POINT: ValueRecord = ValueRecord {
    full_name: "io.debezium.data.geometry.Point",
    doc: "Geometry (POINT)",
    fields: || {
        json!([
            { "name": "x", "type": "double" },
            { "name": "y", "type": "double" },
            { "name": "wkb", "type": ["null", "bytes"], "default": null },
            { "name": "srid", "type": ["null", "int"], "default": null },
        ])
    },
};

/// The name of an Avro type as a schema has it.
pub(crate) const fn physical_name(physical: &Physical) -> &'static str {
    match physical {
        Physical::Boolean => "boolean",
        Physical::Int => "int",
        Physical::Long => "long",
        Physical::Float => "float",
        Physical::Double => "double",
        Physical::String => "string",
        Physical::Bytes | Physical::Decimal { .. } => "bytes",
        Physical::VariableScaleDecimal | Physical::Point => "record",
        Physical::Array { .. } => "array",
        Physical::Map => "map",
    }
}
