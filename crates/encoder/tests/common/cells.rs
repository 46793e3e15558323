//! Random values of every type, printed as PostgreSQL prints them, and what they are in Avro.
//!
//! A value is drawn first, and its text is made of it: nothing here reads text.

use apache_avro::{Decimal, types::Value as Avro};
use encoder::{Arrays, Bytea, ColumnFacts, Decimals, EncodeOptions, Hstore, Intervals, Times, VaryingBits, ZonedTimes};
use num_bigint::BigInt;
use pgoutput::Oid;
use proptest::prelude::*;

use super::{hex, table, with_point};

/// A column's type, and a value of it: as PostgreSQL prints it, and as Avro has it.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) type_oid: u32,
    pub(crate) type_modifier: i32,
    pub(crate) text: String,
    pub(crate) avro: Avro,
    /// What the catalog says about a type that does not come with PostgreSQL.
    pub(crate) type_facts: Option<ColumnFacts>,
}

fn cell(type_oid: u32, type_modifier: i32, text: impl Into<String>, avro: Avro) -> Cell {
    Cell { type_oid, type_modifier, text: text.into(), avro, type_facts: None }
}

fn cell_of(type_facts: ColumnFacts, text: impl Into<String>, avro: Avro) -> Cell {
    Cell { type_facts: Some(type_facts), ..cell(table::OTHER_OID, -1, text, avro) }
}

pub(crate) fn cells() -> impl Strategy<Value = Cell> {
    prop_oneof![
        any::<bool>().prop_map(|value| cell(16, -1, if value { "t" } else { "f" }, Avro::Boolean(value))),
        any::<i16>().prop_map(|value| cell(21, -1, value.to_string(), Avro::Int(value.into()))),
        any::<i32>().prop_map(|value| cell(23, -1, value.to_string(), Avro::Int(value))),
        any::<i64>().prop_map(|value| cell(20, -1, value.to_string(), Avro::Long(value))),
        any::<f32>().prop_map(|value| cell(
            700,
            -1,
            float_text(value.into(), format!("{value:e}")),
            Avro::Float(value)
        )),
        any::<f64>().prop_map(|value| cell(701, -1, float_text(value, format!("{value:e}")), Avro::Double(value))),
        (prop::sample::select(vec![25, 1043, 1042, 19, 18, 114, 142, 3802, 3614, 3904, 4451, 602, 5069, 99_999]), ".*")
            .prop_map(|(type_oid, value)| cell(type_oid, -1, value.clone(), Avro::String(value))),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|value| cell(
            17,
            -1,
            format!(r"\x{}", hex(&value)),
            Avro::Bytes(value)
        )),
        any::<[u8; 16]>().prop_map(|value| {
            let hex = hex(&value);
            let text = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
            cell(2950, -1, text.clone(), Avro::String(text))
        }),
        decimals(),
        variable_scale_decimals(),
        moments(),
        any::<u32>().prop_map(|value| cell(26, -1, value.to_string(), Avro::Long(value.into()))),
        any::<i64>().prop_map(|cents| cell(790, -1, money_text(cents), decimal(&BigInt::from(cents)))),
        intervals(),
        zoned_times(),
        bit_strings(),
        (any::<f64>(), any::<f64>()).prop_map(|(x, y)| point(x, y)),
        ".*".prop_map(|label| cell_of(table::enumeration(&["a", "b"]), label.clone(), Avro::String(label))),
        prop::collection::vec((".*", prop::option::of(".*")), 0..5).prop_map(|pairs| hstore(&pairs)),
        arrays(),
    ]
}

/// As `cash_out` prints it where `lc_monetary` is C.
fn money_text(cents: i64) -> String {
    let digits = (cents.unsigned_abs() / 100).to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{}${grouped}.{:02}", if cents < 0 { "-" } else { "" }, cents.unsigned_abs() % 100)
}

fn decimal(unscaled: &BigInt) -> Avro {
    Avro::Decimal(Decimal::from(unscaled.to_signed_bytes_be()))
}

fn intervals() -> impl Strategy<Value = Cell> {
    (-2_000_000..2_000_000_i32, -50_000_000..50_000_000_i32, any::<i64>(), 0..64_u32).prop_map(
        |(months, days, micros, shift)| {
            // So that some have no part of a kind, and some have a short one.
            let (months, days) = if shift % 3 == 0 { (months % 14, days % 2) } else { (months, days / 10) };
            let micros = micros >> shift.max(2);
            let number =
                i128::from(months) * 304_375 * 8_640_000 + i128::from(days) * 86_400_000_000 + i128::from(micros);
            cell(1186, -1, interval_text(months, days, micros), Avro::Long(i64::try_from(number).unwrap()))
        },
    )
}

/// As `interval_out` prints it with `IntervalStyle` postgres: a sign is printed if it is a minus, or if the part before had one.
fn interval_text(months: i32, days: i32, micros: i64) -> String {
    let mut text = String::new();
    let mut after_minus = false;
    for (number, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if number != 0 {
            let space = if text.is_empty() { "" } else { " " };
            let plus = if after_minus && number > 0 { "+" } else { "" };
            let plural = if number == 1 { "" } else { "s" };
            text.push_str(&[space, plus, &number.to_string(), " ", unit, plural].concat());
            after_minus = number < 0;
        }
    }
    if micros != 0 || text.is_empty() {
        let space = if text.is_empty() { "" } else { " " };
        let sign = if micros < 0 {
            "-"
        } else if after_minus {
            "+"
        } else {
            ""
        };
        let (seconds, fraction) = (micros.unsigned_abs() / 1_000_000, micros.unsigned_abs() % 1_000_000);
        let time = format!("{:02}:{:02}:{:02}.{fraction:06}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        text.push_str(&[space, sign, time.trim_end_matches('0').trim_end_matches('.')].concat());
    }
    text
}

fn zoned_times() -> impl Strategy<Value = Cell> {
    (0..86_400_000_000_i64, -57_599..57_600_i64, 0..=6_u32).prop_map(|(micros, offset, digits)| {
        let micros = micros / 10_i64.pow(6 - digits) * 10_i64.pow(6 - digits);
        let parts = [offset.abs() / 3600, offset.abs() / 60 % 60, offset.abs() % 60];
        let kept = if parts[2] != 0 {
            3
        } else if parts[1] != 0 {
            2
        } else {
            1
        };
        let parts: Vec<_> = parts[..kept].iter().map(|part| format!("{part:02}")).collect();
        let text = format!("{}{}{}", clock(micros), if offset < 0 { '-' } else { '+' }, parts.join(":"));
        let utc = (micros - offset * 1_000_000).rem_euclid(86_400_000_000);
        cell(1266, -1, text, Avro::String(format!("{}Z", clock(utc))))
    })
}

/// A time of day with the digits that it needs.
fn clock(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    let whole = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = format!(".{:06}", micros % 1_000_000);
    whole + fraction.trim_end_matches('0').trim_end_matches('.')
}

fn bit_strings() -> impl Strategy<Value = Cell> {
    (prop::collection::vec(any::<bool>(), 0..80), any::<bool>()).prop_map(|(bits, varying)| {
        let text: String = bits.iter().map(|bit| if *bit { '1' } else { '0' }).collect();
        let number = BigInt::parse_bytes(text.as_bytes(), 2).unwrap_or_default();
        let (_, bytes) = number.to_bytes_le();
        let bytes = if number == BigInt::ZERO { Vec::new() } else { bytes };
        match (bits.len(), varying) {
            (1, false) => cell(1560, 1, text, Avro::Boolean(bits[0])),
            (length @ 2.., false) => cell(1560, i32::try_from(length).unwrap(), text, Avro::Bytes(bytes)),
            _ => cell(1562, 80, text, Avro::Bytes(bytes)),
        }
    })
}

fn point(x: f64, y: f64) -> Cell {
    let text = format!("({},{})", float_text(x, format!("{x:e}")), float_text(y, format!("{y:e}")));
    let wkb = [&[1, 1, 0, 0, 0][..], &x.to_le_bytes(), &y.to_le_bytes()].concat();
    let fields = [
        ("x", Avro::Double(x)),
        ("y", Avro::Double(y)),
        ("wkb", Avro::Union(1, Box::new(Avro::Bytes(wkb)))),
        ("srid", Avro::Union(0, Box::new(Avro::Null))),
    ];
    cell(600, -1, text, Avro::Record(fields.map(|(name, value)| (name.to_owned(), value)).into()))
}

fn hstore(pairs: &[(String, Option<String>)]) -> Cell {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""));
    let text = |(key, value): &(String, Option<String>)| {
        format!("{}=>{}", quoted(key), value.as_deref().map_or("NULL".to_owned(), quoted))
    };
    let json = |(key, value): &(String, Option<String>)| {
        format!("{}:{}", json_text(key), value.as_deref().map_or("null".to_owned(), json_text))
    };
    let text = pairs.iter().map(text).collect::<Vec<_>>().join(", ");
    let json = format!("{{{}}}", pairs.iter().map(json).collect::<Vec<_>>().join(","));
    cell_of(ColumnFacts::new("", Oid::from(table::OTHER_OID), "hstore"), text, Avro::String(json))
}

/// As Jackson writes it, which differs from Rust's in the case of four digits.
fn json_text(text: &str) -> String {
    let mut json = serde_json::to_string(text).unwrap();
    for byte in 0..0x20_u8 {
        json = json.replace(&format!("\\u{byte:04x}"), &format!("\\u{byte:04X}"));
    }
    json
}

fn arrays() -> impl Strategy<Value = Cell> {
    let of = |type_oid, items: Vec<Option<(String, Avro)>>| {
        let text = items.iter().map(|item| item.as_ref().map_or("NULL".to_owned(), |(text, _)| element_text(text)));
        let text = format!("{{{}}}", text.collect::<Vec<_>>().join(","));
        let avro = items.into_iter().map(|item| match item {
            Some((_, avro)) => Avro::Union(1, Box::new(avro)),
            None => Avro::Union(0, Box::new(Avro::Null)),
        });
        cell(type_oid, -1, text, Avro::Array(avro.collect()))
    };
    prop_oneof![
        items(any::<i32>().prop_map(|value| (value.to_string(), Avro::Int(value)))).prop_map(move |all| of(1007, all)),
        items(any::<bool>().prop_map(|value| (if value { "t" } else { "f" }.to_owned(), Avro::Boolean(value))))
            .prop_map(move |all| of(1000, all)),
        items(
            prop_oneof![".*", "(?i)null", "[a-c,{}\"\\\\ ]{0,6}"]
                .prop_map(|value| (value.clone(), Avro::String(value)))
        )
        .prop_map(move |all| of(1009, all)),
        items(
            prop::collection::vec(any::<u8>(), 0..5)
                .prop_map(|value| { (format!(r"\x{}", hex(&value)), Avro::Bytes(value)) })
        )
        .prop_map(move |all| of(1001, all)),
        items((any::<f64>(), any::<f64>()).prop_map(|(x, y)| {
            let point = point(x, y);
            (point.text, point.avro)
        }))
        .prop_map(move |all| of(1017, all)),
    ]
}

fn items<T: Strategy>(item: T) -> impl Strategy<Value = Vec<Option<T::Value>>> {
    prop::collection::vec(prop::option::weighted(0.9, item), 0..80)
}

/// As `array_out` prints an element.
fn element_text(text: &str) -> String {
    let special = |character: char| "\"\\{}, \t\n\r\u{b}\u{c}".contains(character);
    if text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(special) {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}

pub(crate) fn options() -> impl Strategy<Value = EncodeOptions> {
    use prop::sample::select;
    let times = select(vec![
        Times::Adaptive,
        Times::AdaptiveMicroseconds,
        Times::Connect,
        Times::IsoString,
        Times::Microseconds,
        Times::Nanoseconds,
    ]);
    let forms = (
        select(vec![Decimals::Precise, Decimals::Double, Decimals::String]),
        times,
        select(vec![Intervals::Numeric, Intervals::String]),
        select(vec![ZonedTimes::Utc, ZonedTimes::Offset]),
        select(vec![VaryingBits::Bits, VaryingBits::Text]),
        select(vec![Arrays::Items, Arrays::Text]),
        select(vec![Hstore::Json, Hstore::Map]),
        select(vec![Bytea::Bytes, Bytea::Base64, Bytea::Base64Url, Bytea::Hex]),
    );
    forms.prop_map(|(decimals, times, intervals, zoned_times, varying_bits, arrays, hstore, bytea)| EncodeOptions {
        decimals,
        times,
        intervals,
        zoned_times,
        varying_bits,
        arrays,
        hstore,
        bytea,
        ..EncodeOptions::default()
    })
}

/// PostgreSQL prints an exponent with a sign; here it matters only that the text is the shortest that reads back.
fn float_text(value: f64, shortest: String) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ => shortest,
    }
}

fn decimals() -> impl Strategy<Value = Cell> {
    (unscaled(), 0..30_u16).prop_map(|(unscaled, scale)| {
        let text = with_point(&unscaled.to_string(), scale.into());
        cell(
            1700,
            (1000 << 16 | i32::from(scale)) + 4,
            text,
            Avro::Decimal(Decimal::from(unscaled.to_signed_bytes_be())),
        )
    })
}

fn variable_scale_decimals() -> impl Strategy<Value = Cell> {
    (unscaled(), 0..30_usize, 0..5_usize).prop_map(|(unscaled, scale, zeros)| {
        let text = with_point(&unscaled.to_string(), scale);
        let text = if scale > 0 { text + &"0".repeat(zeros) } else { text };
        let (mut unscaled, mut scale) = (unscaled, scale);
        while scale > 0 && &unscaled % 10 == BigInt::ZERO {
            (unscaled, scale) = (unscaled / 10, scale - 1);
        }
        let fields = vec![
            ("scale".to_owned(), Avro::Int(i32::try_from(scale).unwrap())),
            ("value".to_owned(), Avro::Bytes(unscaled.to_signed_bytes_be())),
        ];
        cell(1700, -1, text, Avro::Record(fields))
    })
}

fn unscaled() -> impl Strategy<Value = BigInt> {
    prop_oneof![
        any::<i64>().prop_map(BigInt::from),
        any::<i16>().prop_map(BigInt::from),
        any::<i128>().prop_map(BigInt::from),
        prop::collection::vec(any::<u8>(), 1..60).prop_map(|bytes| BigInt::from_signed_bytes_be(&bytes)),
    ]
}

/// Dates, times and timestamps that jiff knows, which are all of PostgreSQL's before the year 10000.
fn moments() -> impl Strategy<Value = Cell> {
    (-4713..=9999_i16, 1..=12_i8, 1..=28_i8, 0..86_400_000_000_i64, 0..=6_u32, 0..5).prop_map(
        |(year, month, day, micros, digits, kind)| {
            let date = jiff::civil::date(year, month, day);
            let days = i64::from(date.since(jiff::civil::date(1970, 1, 1)).unwrap().get_days());
            let unit = 10_i64.pow(6 - digits);
            let micros = micros / unit * unit;
            let (year, era) = if year > 0 { (i32::from(year), "") } else { (1 - i32::from(year), " BC") };
            let (date_text, time_text) = (format!("{year:04}-{month:02}-{day:02}"), time_text(micros));
            let type_modifier = digits.cast_signed();
            let scaled = |micros: i64| if digits <= 3 { micros / 1000 } else { micros };
            match kind {
                0 => cell(1082, -1, format!("{date_text}{era}"), Avro::Int(i32::try_from(days).unwrap())),
                1 if digits <= 3 => {
                    cell(1083, type_modifier, time_text, Avro::Int(i32::try_from(micros / 1000).unwrap()))
                }
                1 => cell(1083, type_modifier, time_text, Avro::Long(micros)),
                2 => {
                    let value = Avro::Long(scaled(days * 86_400_000_000 + micros));
                    cell(1114, type_modifier, format!("{date_text} {time_text}{era}"), value)
                }
                _ => {
                    let sign = if date.year() < 0 { "-" } else { "" };
                    let whole = time_text.split('.').next().unwrap();
                    let fraction = format!(".{:06}", micros % 1_000_000);
                    let fraction = if digits == 0 { "" } else { &fraction[..=digits as usize] };
                    let iso = format!("{sign}{:04}-{month:02}-{day:02}T{whole}{fraction}Z", date.year().unsigned_abs());
                    cell(1184, type_modifier, format!("{date_text} {time_text}+00{era}"), Avro::String(iso))
                }
            }
        },
    )
}

/// PostgreSQL leaves out zeros at the end of a fraction.
fn time_text(micros: i64) -> String {
    let seconds = micros / 1_000_000;
    let text = format!("{:02}:{:02}:{:02}.{:06}", seconds / 3600, seconds / 60 % 60, seconds % 60, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
