//! Any bytes as a value of any type in any form: what the fuzz target `value` runs, and a property test in short.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use apache_avro::{reader::datum::GenericDatumReader, types::Value as Avro};
use encoder::{
    Arrays, BoundPlan, Bytea, Change, ColumnFacts, Decimals, EncodeErrorKind, EncodeOptions, EventOrder, Format,
    Hstore, Intervals, RecordBatch, Times, TypeKind, VaryingBits, ZonedTimes,
};
use pgoutput::{Insert, Oid, ReplicaIdentity, Tuple, Value};
use serde::de::IgnoredAny;

use super::table::{self, Column, column};

/// A type a line, and values of it: the OID, or what the type is where it does not come with PostgreSQL; its modifier; values.
const CODECS: &str = include_str!("../postgres/codecs.tsv");
/// Confluent's.
const FRAMING_BYTES: usize = 5;
/// What an event has besides the row.
const ENVELOPE_BYTES_MAX: usize = 1024;
/// What a byte of text can become, in the key and the value together: an element such as `1,` of a double, with its branch.
const BYTES_PER_BYTE_MAX: usize = 32;

/// How many types there are.
fn kinds() -> usize {
    CODECS.lines().count()
}

/// Encodes a value, given as the byte that chooses the type, the one that chooses the form, and its text.
///
/// Whatever it is, it does not panic, and takes memory in proportion. What is refused leaves nothing behind; what is taken is what
/// apache-avro reads under the schemas of the plan, to the last byte; or `serde_json`, where that is the format.
pub(crate) fn check(input: &[u8]) {
    let [kind, form, text @ ..] = input else { return };
    let known = Known::of(usize::from(*kind) % kinds(), usize::from(*form) % forms().len());
    let new = Tuple::from_values([Value::Text(text)]).unwrap();
    let insert = Insert { xid: None, relation: Oid::from(1), new };
    let mut batch = RecordBatch::new();
    let mut order = EventOrder::default();
    if let Err(error) = table::append(&known.plan, Change::Insert(&insert), &mut order, &mut batch) {
        assert!(batch.is_empty() && batch.bytes() == 0 && order == EventOrder::default(), "{error}");
        let is_of_the_value = matches!(
            error.kind(),
            EncodeErrorKind::InvalidUtf8
                | EncodeErrorKind::MalformedText
                | EncodeErrorKind::OutOfRange
                | EncodeErrorKind::NotANumber
                | EncodeErrorKind::ArrayShape
                | EncodeErrorKind::NullElement
        );
        assert!(is_of_the_value, "{error}");
        return;
    }
    assert!(batch.bytes() <= ENVELOPE_BYTES_MAX + BYTES_PER_BYTE_MAX * text.len(), "{} bytes", batch.bytes());
    let record = batch.iter().next().unwrap();
    let (key, value) = (record.key.unwrap(), record.value.unwrap());
    // The row has the key's field, and the same in it.
    let Some((key_reader, value_reader)) = &known.readers else {
        // A number of a thousand digits is JSON, though few have a type for it.
        serde_json::from_slice::<IgnoredAny>(value).unwrap();
        let row = [b"\"after\":", key].concat();
        assert!(value.windows(row.len()).any(|part| part == row), "the row has not what the key has");
        return;
    };
    let (key, value) = (read(key_reader, key), read(value_reader, value));
    let Avro::Record(envelope) = value else { panic!("{value:?} is no envelope") };
    let Some((_, Avro::Union(1, after))) = envelope.into_iter().find(|(name, _)| name == "after") else {
        panic!("there is no row")
    };
    // NaN is not equal to itself, and a map shows its pairs in no order.
    assert!(
        *after == key || format!("{after:?}") == format!("{key:?}"),
        "{after:?} in the row, and {key:?} in the key"
    );
}

fn read(reader: &GenericDatumReader<'_>, framed: &[u8]) -> Avro {
    let mut datum = &framed[FRAMING_BYTES..];
    let value = reader.read_value(&mut datum).unwrap_or_else(|error| panic!("{error}: {framed:02x?}"));
    assert!(datum.is_empty(), "{} bytes are left over", datum.len());
    value
}

/// By type and form.
type Plans = Mutex<HashMap<(usize, usize), Arc<Known>>>;

/// A plan, and readers of what it writes.
struct Known {
    plan: BoundPlan,
    /// Of its keys and values; none where they have no schema.
    readers: Option<(GenericDatumReader<'static>, GenericDatumReader<'static>)>,
}

impl Known {
    /// Compiling takes a thousand times as long as encoding.
    fn of(kind: usize, form: usize) -> Arc<Self> {
        static KNOWN: LazyLock<Plans> = LazyLock::new(Mutex::default);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry((kind, form)).or_insert_with(|| Arc::new(Self::new(kind, form))))
    }

    fn new(kind: usize, form: usize) -> Self {
        let column = the_column(CODECS.lines().nth(kind).unwrap()).key();
        let plan = table::compile_with(ReplicaIdentity::Default, &[column], &forms()[form]);
        let reader = |schema: &encoder::Schema| {
            // A reader borrows its schema, and these live as long as the process.
            let schema = Box::leak(Box::new(apache_avro::Schema::parse_str(schema.json()).unwrap()));
            GenericDatumReader::builder(schema).build().unwrap()
        };
        let readers = plan.key_schema().map(reader).zip(plan.value_schema().map(reader));
        Self { plan: table::bind(plan), readers }
    }
}

fn the_column(line: &str) -> Column {
    let mut parts = line.split('\t');
    let (name, modifier) = (parts.next().unwrap(), parts.next().unwrap().parse().unwrap());
    let mood = || table::enumeration(&["sad", "ok", "happy"]);
    let hstore = || ColumnFacts::new("", Oid::from(table::OTHER_OID), "hstore");
    let decimal = || ColumnFacts {
        type_kind: TypeKind::Domain,
        base_type_oid: Oid::from(1700),
        base_type_modifier: (6 << 16 | 3) + 4,
        ..ColumnFacts::new("", Oid::from(table::OTHER_OID), "numeric")
    };
    let facts = match name {
        "enum" => mood(),
        "enum[]" => table::array_of(&mood()),
        "hstore" => hstore(),
        "hstore[]" => table::array_of(&hstore()),
        "numeric_domain[]" => table::array_of(&decimal()),
        oid => return column("v", oid.parse().unwrap(), modifier),
    };
    column("v", table::OTHER_OID, modifier).of(facts)
}

/// Every form of every type.
fn forms() -> [EncodeOptions; 13] {
    let default = EncodeOptions::default;
    [
        default(),
        EncodeOptions::lossless(),
        EncodeOptions { decimals: Decimals::Double, hstore: Hstore::Map, ..default() },
        EncodeOptions { decimals: Decimals::String, times: Times::AdaptiveMicroseconds, ..default() },
        EncodeOptions { times: Times::Connect, intervals: Intervals::String, ..default() },
        EncodeOptions { times: Times::IsoString, zoned_times: ZonedTimes::Offset, ..default() },
        EncodeOptions { times: Times::Microseconds, bytea: Bytea::Base64, ..default() },
        EncodeOptions { times: Times::Nanoseconds, bytea: Bytea::Base64Url, ..default() },
        EncodeOptions { varying_bits: VaryingBits::Text, bytea: Bytea::Hex, ..default() },
        EncodeOptions { arrays: Arrays::Text, ..default() },
        EncodeOptions { decimals: Decimals::PreciseOrString, times: Times::Native, ..default() },
        EncodeOptions { format: Format::Json, ..default() },
        EncodeOptions { format: Format::Json, hstore: Hstore::Map, times: Times::Native, ..default() },
    ]
}
