//! The documentation of the types, made of what the codecs do.

use std::fmt::Write;

use pgoutput::{Oid, RelationColumn};

use crate::{
    Arrays, Bytea, ColumnFacts, Decimals, ElementFacts, EncodeOptions, Hstore, Intervals, Times, TypeKind, VaryingBits,
    ZonedTimes,
    avro::Reader,
    json,
    schema::{AvroType, Physical, physical_name},
    types::{self, BUILT_IN, EXTENSIONS},
};

/// A column of some type, and a value.
struct Example {
    name: String,
    column: RelationColumn,
    facts: ColumnFacts,
    text: &'static str,
}

/// No type has this OID.
const OTHER_OID: u32 = u32::MAX;

/// Types whose modifier makes a difference, with a modifier.
const WITH_MODIFIERS: &[(&str, u32, i32, &str)] = &[
    ("time(3)", 1083, 3, "12:34:56.789"),
    ("timestamp(3)", 1114, 3, "2024-02-29 12:34:56.789"),
    ("timestamptz(3)", 1184, 3, "2024-02-29 10:34:56.789+00"),
    ("bit(9)", 1560, 9, "010000001"),
    ("bit varying(16)", 1562, 16, "01101"),
    ("numeric(12,4)", 1700, (12 << 16 | 4) + 4, "-123.4500"),
    ("numeric(3,-2)", 1700, (3 << 16 | (-2 & 0x7ff)) + 4, "12300"),
    ("integer[]", 1007, -1, "{1,NULL,3}"),
    ("text[]", 1009, -1, r#"{a,"b c",NULL,"NULL"}"#),
    ("numeric(12,4)[]", 1231, (12 << 16 | 4) + 4, "{1.5000}"),
    ("box[]", 1020, -1, "{(1,1),(0,0);(2,2),(1,1)}"),
];

/// The tables of the types that a value of PostgreSQL can have: in Markdown, what each is in Avro by default, and what an option changes of
/// that. They are made by encoding an example of each.
pub fn types_markdown() -> String {
    let defaults = EncodeOptions::default();
    let mut out = String::new();
    table(&mut out, "Built-in types", built_in(), &defaults);
    table(&mut out, "Types with a modifier, and arrays", with_modifiers(), &defaults);
    table(&mut out, "Types that are made, and types of extensions", made(), &defaults);
    for (name, options) in variants() {
        let examples = built_in().chain(with_modifiers()).chain(made());
        let default = |example: &Example| row(example, &defaults);
        let changed = examples.filter(|example| row(example, &options) != default(example));
        table(&mut out, name, changed, &options);
    }
    out
}

fn table(out: &mut String, title: &str, examples: impl Iterator<Item = Example>, options: &EncodeOptions) {
    let rows: String = examples.map(|example| row(&example, options)).collect();
    write!(
        out,
        "## {title}\n\n| PostgreSQL | Avro | semantic type | PostgreSQL's text | value |\n|---|---|---|---|---|\n{rows}\n"
    )
    .expect("a String takes all that is written to it");
}

fn row(example: &Example, options: &EncodeOptions) -> String {
    let codec = types::resolve(&example.column, Some(&example.facts), options);
    let avro_type = codec.avro_type();
    let mut encoded = Vec::new();
    let value = match codec.encode(example.text.as_bytes(), &mut encoded) {
        Ok(()) => {
            let mut value = Vec::new();
            json::write_value(&avro_type.physical, &mut Reader::new(&encoded), &mut value);
            code(&String::from_utf8_lossy(&value))
        }
        Err(kind) => format!("error {}", code(kind.as_str())),
    };
    let semantic = semantic_type(&avro_type).map(code).unwrap_or_default();
    format!(
        "| {} | {} | {semantic} | {} | {value} |\n",
        code(&example.name),
        code(&described(&avro_type)),
        code(example.text)
    )
}

fn code(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!("`{}`", text.replace('|', r"\|")),
    }
}

fn described(avro_type: &AvroType) -> String {
    match &avro_type.physical {
        Physical::Decimal { precision, scale, .. } => format!("bytes, decimal({precision},{scale})"),
        Physical::Array { items, nullable } => {
            let null = if *nullable { " or null" } else { "" };
            format!("array of {}{null}", described(items))
        }
        Physical::Map => "map of string or null".to_owned(),
        physical => match avro_type.logical_type {
            Some(logical_type) => format!("{}, {logical_type}", physical_name(physical)),
            None => physical_name(physical).to_owned(),
        },
    }
}

fn semantic_type(avro_type: &AvroType) -> Option<&'static str> {
    match &avro_type.physical {
        Physical::Decimal { .. } => Some("org.apache.kafka.connect.data.Decimal"),
        Physical::VariableScaleDecimal => Some("io.debezium.data.VariableScaleDecimal"),
        Physical::Point => Some("io.debezium.data.geometry.Point"),
        Physical::Array { items, .. } => semantic_type(items),
        _ => avro_type.connect_name,
    }
}

fn example(name: &str, type_oid: u32, modifier: i32, text: &'static str, facts: ColumnFacts) -> Example {
    let type_oid = Oid::from(type_oid);
    let column = RelationColumn { is_key: false, name: String::new(), type_oid, type_modifier: modifier };
    Example { name: name.to_owned(), column, facts: ColumnFacts { type_oid, ..facts }, text }
}

fn built_in() -> impl Iterator<Item = Example> {
    BUILT_IN.iter().map(|built_in| {
        let facts = ColumnFacts::new("", Oid::from(built_in.oid), "");
        example(built_in.name, built_in.oid, -1, built_in.example, facts)
    })
}

fn with_modifiers() -> impl Iterator<Item = Example> {
    WITH_MODIFIERS.iter().map(|(name, oid, modifier, text)| {
        example(name, *oid, *modifier, text, ColumnFacts::new("", Oid::from(*oid), ""))
    })
}

/// One of each kind, and the extensions' types.
fn made() -> impl Iterator<Item = Example> {
    let labels = || vec!["sad".to_owned(), "ok".to_owned()];
    let of_kind =
        |kind| ColumnFacts { type_kind: kind, base_type_kind: kind, ..ColumnFacts::new("", Oid::from(0), "") };
    let other = |name: &str, text, facts| example(name, OTHER_OID, -1, text, facts);
    let enumeration = || ColumnFacts { labels: labels(), ..of_kind(TypeKind::Enum) };
    let moods = ElementFacts {
        type_oid: Oid::from(0),
        type_name: String::new(),
        type_kind: TypeKind::Enum,
        type_modifier: -1,
        labels: labels(),
        delimiter: b',',
    };
    let domain = ColumnFacts {
        type_kind: TypeKind::Domain,
        base_type_modifier: (6 << 16 | 3) + 4,
        ..ColumnFacts::new("", Oid::from(1700), "numeric")
    };
    let matrix = ColumnFacts { dimensions: 2, ..ColumnFacts::new("", Oid::from(1007), "_int4") };
    let kinds = [
        other("enum", "ok", enumeration()),
        other("enum[]", "{ok,sad}", ColumnFacts { element: Some(moods), ..of_kind(TypeKind::Base) }),
        other("domain over numeric(6,3)", "123.456", domain),
        other("composite", r#"("Main, St",12345)"#, of_kind(TypeKind::Composite)),
        other("range", "[a,b)", of_kind(TypeKind::Range)),
        other("multirange", "{[a,b)}", of_kind(TypeKind::Multirange)),
        example("integer[][]", 1007, -1, "{{1,2},{3,4}}", matrix),
    ];
    let extensions = EXTENSIONS.iter().map(move |extension| {
        let facts = ColumnFacts::new("", Oid::from(OTHER_OID), extension.name);
        other(extension.name, extension.example, facts)
    });
    let unknown = ColumnFacts::new("", Oid::from(OTHER_OID), "geometry");
    let unknown = example("any other", OTHER_OID, -1, "0101000000000000000000F03F0000000000000040", unknown);
    kinds.into_iter().chain(extensions).chain([unknown])
}

/// Each option that changes values.
fn variants() -> Vec<(&'static str, EncodeOptions)> {
    let default = EncodeOptions::default;
    vec![
        ("Decimals as double", EncodeOptions { decimals: Decimals::Double, ..default() }),
        ("Decimals precise or as string", EncodeOptions { decimals: Decimals::PreciseOrString, ..default() }),
        ("Decimals as string", EncodeOptions { decimals: Decimals::String, ..default() }),
        ("Times: every time in microseconds", EncodeOptions { times: Times::AdaptiveMicroseconds, ..default() }),
        ("Times as Kafka Connect's own", EncodeOptions { times: Times::Connect, ..default() }),
        ("Times as ISO 8601 text", EncodeOptions { times: Times::IsoString, ..default() }),
        ("Times in microseconds", EncodeOptions { times: Times::Microseconds, ..default() }),
        ("Times as Avro's own", EncodeOptions { times: Times::Native, ..default() }),
        ("Times in nanoseconds", EncodeOptions { times: Times::Nanoseconds, ..default() }),
        ("Intervals as string", EncodeOptions { intervals: Intervals::String, ..default() }),
        ("Zoned times with their offset", EncodeOptions { zoned_times: ZonedTimes::Offset, ..default() }),
        ("Varying bits as text", EncodeOptions { varying_bits: VaryingBits::Text, ..default() }),
        ("Arrays as text", EncodeOptions { arrays: Arrays::Text, ..default() }),
        ("hstore as map", EncodeOptions { hstore: Hstore::Map, ..default() }),
        ("bytea as base64", EncodeOptions { bytea: Bytea::Base64, ..default() }),
        ("bytea as base64 for URLs", EncodeOptions { bytea: Bytea::Base64Url, ..default() }),
        ("bytea as hexadecimal digits", EncodeOptions { bytea: Bytea::Hex, ..default() }),
    ]
}
