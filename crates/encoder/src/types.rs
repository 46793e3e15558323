//! The PostgreSQL types: what each is in Avro, and how its text output becomes Avro bytes.
//!
//! **To add a type**: write a [`Codec`] in the file of its family, and register it in one line: of [`BUILT_IN`] by its OID, or of
//! [`EXTENSIONS`] by its name. Its arrays, the domains over it and its row in the documentation follow from that line. A type that is in
//! neither is a plain string of its text, so nothing is dropped.
//!
//! The text is what PostgreSQL prints in a session with `DateStyle` ISO, `IntervalStyle` postgres, `TimeZone` UTC, `extra_float_digits` at
//! least 1 and `bytea_output` hex. Text that is not that is an error, never a guess.

mod array;
mod bits;
mod boolean;
mod bytea;
mod calendar;
mod date;
mod enumeration;
mod float;
mod hstore;
mod integer;
mod interval;
mod iso;
mod money;
mod numeric;
mod point;
mod text;
mod time;
mod timestamp;
mod timestamptz;
mod timetz;
mod uuid;

use std::fmt::Debug;

use pgoutput::RelationColumn;

use crate::{Arrays, ColumnFacts, ElementFacts, EncodeErrorKind, EncodeOptions, TypeKind, avro, schema::AvroType};

/// One type with its modifier and the options that concern it, such as `numeric(12,4)`.
pub(crate) trait Codec: Debug + Send + Sync {
    /// What it is in Avro.
    fn avro_type(&self) -> AvroType;

    /// Appends a value, given as PostgreSQL prints it. On error what was appended is to be taken back.
    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind>;

    /// Appends what stands in a column that cannot be null where the value is not known: in the `before` of a Delete of which only the
    /// key was sent. As in Debezium, it is used only where the column has no default.
    fn write_fallback(&self, out: &mut Vec<u8>);

    /// Whether a placeholder can stand in the place of a value: it is a `string`, or `bytes` that may be any.
    fn takes_placeholder(&self) -> bool {
        false
    }

    /// Appends what stands for a value that is stored out of line and was not sent.
    fn write_unavailable(&self, placeholder: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        if !self.takes_placeholder() {
            return Err(EncodeErrorKind::UnavailableValue);
        }
        avro::write_bytes(out, placeholder);
        Ok(())
    }

    /// Whether values that PostgreSQL tells apart stay different, so that they can be keys of different rows.
    fn keeps_apart(&self) -> bool {
        true
    }

    /// Which defaults Debezium puts into the schema.
    fn default_rule(&self) -> DefaultRule {
        DefaultRule::Never
    }
}

/// Which defaults of a type Debezium puts into the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefaultRule {
    /// None.
    Never,
    /// Those that are a value.
    Literal,
    /// These, and for one that is computed, such as `now()`, this text.
    Computed(&'static str),
}

/// What a codec is made of, besides the type.
pub(crate) struct TypeSpec<'a> {
    /// `atttypmod`, -1 for none.
    pub(crate) modifier: i32,
    pub(crate) options: &'a EncodeOptions,
}

type Make = fn(&TypeSpec<'_>) -> Box<dyn Codec>;

/// A type that comes with PostgreSQL.
pub(crate) struct BuiltIn {
    pub(crate) oid: u32,
    /// Of the type of its arrays.
    array_oid: u32,
    /// As it is written in SQL.
    pub(crate) name: &'static str,
    /// A value, for the documentation.
    pub(crate) example: &'static str,
    pub(crate) make: Make,
}

const fn built_in(oid: u32, array_oid: u32, name: &'static str, example: &'static str, make: Make) -> BuiltIn {
    BuiltIn { oid, array_oid, name, example, make }
}

/// Text without a name in Kafka Connect: what Debezium has for some types, and what others have that it leaves out.
const TEXT: Make = |_| Box::new(text::Text::OTHER);

/// The built-in types, whose OIDs are the same in every database (`pg_type.dat`).
#[rustfmt::skip]
pub(crate) static BUILT_IN: &[BuiltIn] = &[
    built_in(16, 1000, "boolean", "t", |_| Box::new(boolean::Boolean)),
    built_in(17, 1001, "bytea", r"\xdeadbeef", bytea::make),
    built_in(18, 1002, "\"char\"", "c", TEXT),
    built_in(19, 1003, "name", "pg_class", TEXT),
    built_in(20, 1016, "bigint", "-9223372036854775808", |_| Box::new(integer::Int8)),
    built_in(21, 1005, "smallint", "-32768", |_| Box::new(integer::Int2)),
    built_in(22, 1006, "int2vector", "1 2 3", TEXT),
    built_in(23, 1007, "integer", "2147483647", |_| Box::new(integer::Int4)),
    built_in(24, 1008, "regproc", "now", TEXT),
    built_in(25, 1009, "text", "any text", |_| Box::new(text::Text::TEXT)),
    built_in(26, 1028, "oid", "4294967295", |_| Box::new(integer::Oid)),
    built_in(27, 1010, "tid", "(0,1)", TEXT),
    built_in(28, 1011, "xid", "750", TEXT),
    built_in(29, 1012, "cid", "0", TEXT),
    built_in(30, 1013, "oidvector", "23 25", TEXT),
    built_in(114, 199, "json", r#"{"a": 1}"#, |_| Box::new(text::Text::JSON)),
    built_in(142, 143, "xml", "<a>1</a>", |_| Box::new(text::Text::XML)),
    built_in(600, 1017, "point", "(1,2)", |_| Box::new(point::Point)),
    built_in(601, 1018, "lseg", "[(0,0),(1,1)]", TEXT),
    built_in(602, 1019, "path", "[(0,0),(1,1),(2,0)]", TEXT),
    built_in(603, 1020, "box", "(1,1),(0,0)", TEXT),
    built_in(604, 1027, "polygon", "((0,0),(1,1),(2,0))", TEXT),
    built_in(628, 629, "line", "{1,2,3}", TEXT),
    built_in(650, 651, "cidr", "10.0.0.0/8", TEXT),
    built_in(700, 1021, "real", "1.5", |_| Box::new(float::Float4)),
    built_in(701, 1022, "double precision", "2.718281828459045", |_| Box::new(float::Float8)),
    built_in(718, 719, "circle", "<(1,2),3>", TEXT),
    built_in(774, 775, "macaddr8", "08:00:2b:01:02:03:04:05", TEXT),
    built_in(790, 791, "money", "-$1,234.56", money::make),
    built_in(829, 1040, "macaddr", "08:00:2b:01:02:03", TEXT),
    built_in(869, 1041, "inet", "192.168.1.5/24", TEXT),
    built_in(1033, 1034, "aclitem", "postgres=r/postgres", TEXT),
    built_in(1042, 1014, "character(n)", "ab   ", |_| Box::new(text::Text::TEXT)),
    built_in(1043, 1015, "character varying", "any text", |_| Box::new(text::Text::TEXT)),
    built_in(1082, 1182, "date", "2024-02-29", date::make),
    built_in(1083, 1183, "time", "12:34:56.789012", time::make),
    built_in(1114, 1115, "timestamp", "2024-02-29 12:34:56.789012", timestamp::make),
    built_in(1184, 1185, "timestamptz", "2024-02-29 10:34:56.789012+00", timestamptz::make),
    built_in(1186, 1187, "interval", "1 year 2 mons 3 days 04:05:06.789", interval::make),
    built_in(1266, 1270, "timetz", "12:34:56.789012+02", timetz::make),
    built_in(1560, 1561, "bit", "1", bits::make_fixed),
    built_in(1562, 1563, "bit varying", "01101", bits::make_varying),
    built_in(1700, 1231, "numeric", "-123.450", numeric::make),
    built_in(1790, 2201, "refcursor", "<unnamed portal 1>", TEXT),
    built_in(2202, 2207, "regprocedure", "now()", TEXT),
    built_in(2203, 2208, "regoper", "||/", TEXT),
    built_in(2204, 2209, "regoperator", "+(integer,integer)", TEXT),
    built_in(2205, 2210, "regclass", "orders", TEXT),
    built_in(2206, 2211, "regtype", "integer", TEXT),
    built_in(2950, 2951, "uuid", "123e4567-e89b-12d3-a456-426614174000", |_| Box::new(uuid::Uuid)),
    built_in(2970, 2949, "txid_snapshot", "10:20:10,14,15", TEXT),
    built_in(3220, 3221, "pg_lsn", "16/B374D848", TEXT),
    built_in(3614, 3643, "tsvector", "'a':1 'cat':3", |_| Box::new(text::Text::TSVECTOR)),
    built_in(3615, 3645, "tsquery", "'fat' & 'cat'", TEXT),
    built_in(3734, 3735, "regconfig", "english", TEXT),
    built_in(3769, 3770, "regdictionary", "simple", TEXT),
    built_in(3802, 3807, "jsonb", r#"{"a": null, "b": 2}"#, |_| Box::new(text::Text::JSON)),
    built_in(3904, 3905, "int4range", "[1,5)", TEXT),
    built_in(3906, 3907, "numrange", "[1.5,2.5]", TEXT),
    built_in(3908, 3909, "tsrange", r#"["2024-01-01 00:00:00","2024-01-02 00:00:00")"#, TEXT),
    built_in(3910, 3911, "tstzrange", r#"["2024-01-01 00:00:00+00",)"#, TEXT),
    built_in(3912, 3913, "daterange", "[2024-01-01,2024-02-01)", TEXT),
    built_in(3926, 3927, "int8range", "empty", TEXT),
    built_in(4072, 4073, "jsonpath", "$.\"a\"[*]", TEXT),
    built_in(4089, 4090, "regnamespace", "public", TEXT),
    built_in(4096, 4097, "regrole", "postgres", TEXT),
    built_in(4191, 4192, "regcollation", "\"C\"", TEXT),
    built_in(4451, 6150, "int4multirange", "{[1,3),[5,7)}", TEXT),
    built_in(4532, 6151, "nummultirange", "{[1.5,2.5]}", TEXT),
    built_in(4533, 6152, "tsmultirange", r#"{["2024-01-01 00:00:00",)}"#, TEXT),
    built_in(4534, 6153, "tstzmultirange", r#"{["2024-01-01 00:00:00+00",)}"#, TEXT),
    built_in(4535, 6155, "datemultirange", "{[2024-01-01,2024-02-01)}", TEXT),
    built_in(4536, 6157, "int8multirange", "{}", TEXT),
    built_in(5038, 5039, "pg_snapshot", "10:20:10,14,15", TEXT),
    built_in(5069, 271, "xid8", "18446744073709551615", TEXT),
];

/// A type that an extension brings.
pub(crate) struct Extension {
    /// `typname`, since its OID differs from database to database.
    pub(crate) name: &'static str,
    /// A value, for the documentation.
    pub(crate) example: &'static str,
    pub(crate) make: Make,
}

/// The types of extensions that are more than text.
#[rustfmt::skip]
pub(crate) static EXTENSIONS: &[Extension] = &[
    Extension { name: "citext", example: "Any Text", make: TEXT },
    Extension { name: "hstore", example: r#""a"=>"1", "b"=>NULL"#, make: hstore::make },
    Extension { name: "ltree", example: "Top.Science", make: |_| Box::new(text::Text::LTREE) },
];

/// `box`, the only built-in type whose arrays have another delimiter.
const BOX_OID: u32 = 603;

/// A type of which it is known what it comes down to.
struct Resolved<'a> {
    oid: u32,
    name: Option<&'a str>,
    kind: TypeKind,
    modifier: i32,
    labels: &'a [String],
    element: Option<&'a ElementFacts>,
}

/// Finds the codec of a column. `facts` are used only where they speak of the type that the stream has.
pub(crate) fn resolve(column: &RelationColumn, facts: Option<&ColumnFacts>, options: &EncodeOptions) -> Box<dyn Codec> {
    let facts = facts.filter(|facts| facts.type_oid == column.type_oid);
    let Some(facts) = facts else {
        let resolved = Resolved {
            oid: column.type_oid.into(),
            name: None,
            kind: TypeKind::Base,
            modifier: column.type_modifier,
            labels: &[],
            element: None,
        };
        return codec(&resolved, 0, options);
    };
    let (oid, modifier) = match facts.type_kind {
        TypeKind::Domain => (facts.base_type_oid, facts.base_type_modifier),
        _ => (column.type_oid, column.type_modifier),
    };
    let resolved = Resolved {
        oid: oid.into(),
        name: Some(&facts.type_name),
        kind: facts.base_type_kind,
        modifier,
        labels: &facts.labels,
        element: facts.element.as_ref(),
    };
    codec(&resolved, facts.dimensions, options)
}

fn codec(resolved: &Resolved<'_>, dimensions: i32, options: &EncodeOptions) -> Box<dyn Codec> {
    let Some((element, delimiter)) = element(resolved) else { return scalar(resolved, options) };
    // What is declared with more dimensions than one is expected to hold such values, for which Debezium's array has no room.
    if options.arrays == Arrays::Text || dimensions > 1 {
        return Box::new(text::Text::OTHER);
    }
    Box::new(array::Array::new(scalar(&element, options), delimiter, element.kind != TypeKind::Enum))
}

/// What the elements of an array are, and what stands between them.
fn element<'a>(array: &Resolved<'a>) -> Option<(Resolved<'a>, u8)> {
    if let Some(built_in) = BUILT_IN.iter().find(|built_in| built_in.array_oid == array.oid) {
        let delimiter = if built_in.oid == BOX_OID { b';' } else { b',' };
        let element = Resolved { oid: built_in.oid, name: None, kind: TypeKind::Base, ..*array };
        return Some((element, delimiter));
    }
    let facts = array.element?;
    let element = Resolved {
        oid: facts.type_oid.into(),
        name: Some(&facts.type_name),
        kind: facts.type_kind,
        modifier: if facts.type_modifier == -1 { array.modifier } else { facts.type_modifier },
        labels: &facts.labels,
        element: None,
    };
    Some((element, facts.delimiter))
}

/// The codec of a type that is no array.
fn scalar(resolved: &Resolved<'_>, options: &EncodeOptions) -> Box<dyn Codec> {
    let make = match resolved.kind {
        TypeKind::Enum => return Box::new(enumeration::Enumeration::new(resolved.labels)),
        TypeKind::Base => {
            let built_in = BUILT_IN.iter().find(|built_in| built_in.oid == resolved.oid).map(|built_in| built_in.make);
            let extension = || EXTENSIONS.iter().find(|extension| Some(extension.name) == resolved.name);
            built_in.or_else(|| extension().map(|extension| extension.make))
        }
        // A domain is never what a type comes down to.
        TypeKind::Composite | TypeKind::Domain | TypeKind::Pseudo | TypeKind::Range | TypeKind::Multirange => None,
    };
    make.unwrap_or(TEXT)(&TypeSpec { modifier: resolved.modifier, options })
}
