//! Columns of every type with random values.

use super::{
    Table,
    columns::{Column, Forgets, MONTHS_AND_DAYS, SECONDS, ZEROS_AT_THE_END},
    draw::Draw,
};
use crate::harness::random::Random;

/// Values in a column.
const VALUES: usize = 200;

/// A column, and where its values come from.
struct Source {
    type_name: &'static str,
    draw: fn(&mut Draw) -> String,
    since: u32,
    /// Whether the default form has no room for most values.
    only_lossless: bool,
    forgets: Option<Forgets>,
}

const fn of(type_name: &'static str, draw: fn(&mut Draw) -> String) -> Source {
    Source { type_name, draw, since: 14, only_lossless: false, forgets: None }
}

impl Source {
    const fn since(self, since: u32) -> Self {
        Self { since, ..self }
    }

    const fn only_lossless(self) -> Self {
        Self { only_lossless: true, ..self }
    }

    const fn forgets(self, what: &'static str, kept: &'static str) -> Self {
        Self { forgets: Some(Forgets { what, kept, always: false }), ..self }
    }

    const fn text_forgets(self, what: &'static str, kept: &'static str) -> Self {
        Self { forgets: Some(Forgets { what, kept, always: true }), ..self }
    }
}

/// Tables of one kind of type each, as in [`super::columns`].
const FAMILIES: &[(&str, &[Source])] = &[
    (
        "numbers",
        &[
            of("boolean", Draw::boolean),
            of("smallint", Draw::int2),
            of("integer", Draw::int4),
            of("bigint", Draw::int8),
            of("real", Draw::float4),
            of("double precision", Draw::float8),
            of("numeric", Draw::numeric).forgets(ZEROS_AT_THE_END, "v"),
            of("numeric(12,4)", Draw::numeric_12_4),
            of("numeric(1000,300)", Draw::numeric_1000_300),
            of("numeric(3,-2)", Draw::numeric_3_minus_2).since(15),
            of("numeric(3,5)", Draw::numeric_3_5).since(15),
            of("money", Draw::money),
            of("oid", Draw::oid),
        ],
    ),
    (
        "texts",
        &[
            of("text", Draw::text),
            of("varchar(20)", Draw::varchar_20),
            of("char(5)", Draw::char_5),
            of("name", Draw::varchar_20),
            of("\"char\"", Draw::quoted_char),
            of("citext", Draw::text),
            of("bytea", Draw::bytea),
            of("uuid", Draw::uuid),
            of("xml", Draw::xml),
        ],
    ),
    (
        "documents",
        &[
            of("json", Draw::json),
            of("jsonb", Draw::json),
            of("jsonpath", Draw::jsonpath),
            of("tsvector", Draw::tsvector),
            of("tsquery", Draw::tsquery).text_forgets("how a chain of the same operator was grouped", "v::text"),
            of("hstore", Draw::hstore),
            of("ltree", Draw::ltree),
        ],
    ),
    (
        "times",
        &[
            of("date", Draw::date),
            of("time", Draw::time),
            of("time(3)", Draw::time),
            of("time(0)", Draw::time),
            of("timestamp", Draw::timestamp),
            of("timestamp(3)", Draw::timestamp_3),
            of("timestamp(0)", Draw::timestamp_3),
            of("timestamptz", Draw::timestamptz),
            of("timestamptz(3)", Draw::timestamptz_3),
            of("timetz", Draw::timetz).forgets("the zone", "((date '2000-01-01' + v) at time zone 'utc')::time"),
            of("interval", Draw::interval).forgets(MONTHS_AND_DAYS, SECONDS),
        ],
    ),
    (
        "bits",
        &[
            of("bit", |draw| if draw.boolean() == "t" { "1" } else { "0" }.to_owned()),
            of("bit(9)", Draw::bit_9),
            of("bit(300)", Draw::bit_300),
            of("bit varying", Draw::varbit).forgets("the zeros in front", "ltrim(v::text, '0')"),
            of("bit varying(16)", Draw::varbit_16).forgets("the zeros in front", "ltrim(v::text, '0')"),
        ],
    ),
    (
        "networks",
        &[of("inet", Draw::inet), of("cidr", Draw::cidr), of("macaddr", Draw::macaddr), of("macaddr8", Draw::macaddr8)],
    ),
    (
        "shapes",
        &[
            of("point", Draw::point),
            of("line", Draw::line),
            of("lseg", Draw::lseg),
            of("box", Draw::corners),
            of("path", Draw::path),
            of("polygon", Draw::polygon),
            of("circle", Draw::circle),
        ],
    ),
    (
        "ranges",
        &[
            of("int4range", Draw::int4range),
            of("int8range", Draw::int8range),
            of("numrange", Draw::numrange),
            of("daterange", Draw::daterange),
            of("tsrange", Draw::tsrange),
            of("tstzrange", Draw::tstzrange),
            of("textrange", Draw::textrange),
            of("int4multirange", Draw::int4multirange),
            of("nummultirange", Draw::nummultirange),
            of("tstzmultirange", Draw::tstzmultirange),
            of("textmultirange", Draw::textmultirange),
        ],
    ),
    (
        "identifiers",
        &[
            of("pg_lsn", Draw::pg_lsn),
            of("xid", Draw::oid),
            of("xid8", Draw::xid8),
            of("tid", Draw::tid),
            of("pg_snapshot", Draw::pg_snapshot),
        ],
    ),
    (
        "made",
        &[
            of("mood", Draw::mood),
            of("small", Draw::small),
            of("smallest", Draw::smallest),
            of("address", Draw::address),
            of("home", Draw::address),
            of("moods", |draw| draw.array(Draw::mood, false, ",")),
            of("shape", Draw::bytea),
        ],
    ),
    (
        "arrays",
        &[
            of("boolean[]", |draw| draw.array(Draw::boolean, true, ",")),
            of("integer[]", |draw| draw.array(Draw::int4, true, ",")),
            of("bigint[]", |draw| draw.array(Draw::int8, true, ",")),
            of("double precision[]", |draw| draw.array(Draw::float8, true, ",")),
            of("numeric[]", |draw| draw.array(Draw::numeric, true, ",")).forgets(ZEROS_AT_THE_END, "v"),
            of("numeric(12,4)[]", |draw| draw.array(Draw::numeric_12_4, true, ",")),
            of("text[]", |draw| draw.array(Draw::text, true, ",")),
            of("text[][][]", |draw| draw.array(Draw::text, true, ",")),
            of("bytea[]", |draw| draw.array(Draw::bytea, true, ",")),
            of("date[]", |draw| draw.array(Draw::date, true, ",")),
            of("time(2)[]", |draw| draw.array(Draw::time, true, ",")),
            of("timestamp[]", |draw| draw.array(Draw::timestamp, true, ",")),
            of("timestamptz[]", |draw| draw.array(Draw::timestamptz, true, ",")),
            of("interval[]", |draw| draw.array(Draw::interval, true, ",")).only_lossless(),
            of("uuid[]", |draw| draw.array(Draw::uuid, true, ",")),
        ],
    ),
    (
        "made_arrays",
        &[
            of("jsonb[]", |draw| draw.array(Draw::json, true, ",")),
            of("mood[]", |draw| draw.array(Draw::mood, false, ",")),
            of("point[]", |draw| draw.array(Draw::point, true, ",")),
            of("box[]", |draw| draw.array(Draw::corners, true, ";")),
            of("bit(9)[]", |draw| draw.array(Draw::bit_9, true, ",")),
            of("money[]", |draw| draw.array(Draw::money, true, ",")),
            of("int4range[]", |draw| draw.array(Draw::int4range, true, ",")),
            of("textmultirange[]", |draw| draw.array(Draw::textmultirange, true, ",")),
            of("inet[]", |draw| draw.array(Draw::inet, true, ",")),
            of("address[]", |draw| draw.array(Draw::address, true, ",")),
            of("small[]", |draw| draw.array(Draw::small, true, ",")),
            of("hstore[]", |draw| draw.array(Draw::hstore, true, ",")),
            of("tsvector[]", |draw| draw.array(Draw::tsvector, true, ",")),
            of("shape[]", |draw| draw.array(Draw::bytea, true, ",")),
        ],
    ),
];

/// The columns that this version of PostgreSQL can have; for the default forms without what they have no room for.
pub(super) fn tables(version: u32, is_default: bool, random: &mut Random) -> Vec<Table> {
    let mut column = |source: &Source| {
        let mut draw = Draw { random: random.fork(), version, is_default };
        let values: Vec<&'static str> = (0..VALUES).map(|_| &*(source.draw)(&mut draw).leak()).collect();
        Column {
            type_name: source.type_name,
            // They are needed until the test ends, and so as long as those of the other tests, which are constants.
            values: values.leak(),
            since: source.since,
            stops_by_default: source.only_lossless,
            forgets: source.forgets,
        }
    };
    let mut table = |(name, sources): &(&'static str, &[Source])| {
        let exists = |source: &&Source| source.since <= version && !(is_default && source.only_lossless);
        Table { name, columns: sources.iter().filter(exists).map(&mut column).collect() }
    };
    FAMILIES.iter().map(&mut table).collect()
}
