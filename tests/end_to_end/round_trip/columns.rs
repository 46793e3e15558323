//! Columns of every type, and the values at the edges of each.

/// Tables of one kind of type each.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) columns: &'static [Column],
}

/// A column, which holds each of its values in a row.
#[derive(Clone, Copy)]
pub(super) struct Column {
    pub(super) type_name: &'static str,
    /// Values as PostgreSQL reads them.
    pub(super) values: &'static [&'static str],
    /// The first major version of PostgreSQL that has the type and the values.
    pub(super) since: u32,
    /// Whether the default form has no room for the values, so that they would stop the stream.
    pub(super) stops_by_default: bool,
    /// What the default form forgets.
    pub(super) forgets: Option<Forgets>,
}

/// An encoding that holds less than the column.
#[derive(Clone, Copy)]
pub(super) struct Forgets {
    /// The docs have it: docs/types.md, "What Debezium's encodings forget".
    pub(super) what: &'static str,
    /// What is equal all the same, as an expression over `v`.
    pub(super) kept: &'static str,
    /// Whether PostgreSQL's own text forgets it, and so every form.
    pub(super) always: bool,
}

const fn column(type_name: &'static str, values: &'static [&'static str]) -> Column {
    Column { type_name, values, since: 14, stops_by_default: false, forgets: None }
}

impl Column {
    const fn since(self, since: u32) -> Self {
        Self { since, ..self }
    }

    const fn stops_by_default(self) -> Self {
        Self { stops_by_default: true, ..self }
    }

    const fn forgets(self, what: &'static str, kept: &'static str) -> Self {
        Self { forgets: Some(Forgets { what, kept, always: false }), ..self }
    }

    const fn text_forgets(self, what: &'static str, kept: &'static str) -> Self {
        Self { forgets: Some(Forgets { what, kept, always: true }), ..self }
    }
}

/// Types that the columns below are of.
pub(super) const TYPES: &str = "
    create extension hstore; create extension citext; create extension ltree;
    create type mood as enum ('sad', 'o''k', 'very happy', 'ünï,\"x\"');
    create domain small as numeric(6,3);
    create domain smaller as small check (value < 100);
    create domain smallest as smaller not null default 1 check (value < 10);
    create domain moods as mood[];
    create type address_part as (number text, zip int);
    create type address as (street text, zip int, past address_part[]);
    create domain home as address;
    create type textrange as range (subtype = text, collation = \"C\", multirange_type_name = textmultirange);
    create type shape;
    create function shape_in(cstring) returns shape language internal immutable strict as 'byteain';
    create function shape_out(shape) returns cstring language internal immutable strict as 'byteaout';
    create type shape (input = shape_in, output = shape_out, like = bytea);";

/// A hundred digits.
macro_rules! hundred {
    () => {
        "1234567890987654321012345678909876543210123456789098765432101234567890987654321012345678909876543219"
    };
}

/// A thousand digits.
macro_rules! thousand {
    () => {
        concat!(
            hundred!(),
            hundred!(),
            hundred!(),
            hundred!(),
            hundred!(),
            hundred!(),
            hundred!(),
            hundred!(),
            hundred!(),
            hundred!()
        )
    };
}

/// What an interval is in seconds, as Debezium counts them.
pub(super) const SECONDS: &str =
    "(extract(year from v) * 12 + extract(month from v)) * 2629800 + extract(day from v) * 86400
    + extract(hour from v) * 3600 + extract(minute from v) * 60 + extract(second from v)";
pub(super) const ZEROS_AT_THE_END: &str = "how many zeros it ends in, which makes no other number of it";
pub(super) const MONTHS_AND_DAYS: &str = "a month is 30.4375 days, and a day 24 hours";

pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "numbers",
        columns: &[
            column("boolean", &["t", "f"]),
            column("smallint", &["-32768", "32767", "0"]),
            column("integer", &["-2147483648", "2147483647"]),
            column("bigint", &["-9223372036854775808", "9223372036854775807"]),
            column(
                "real",
                &["NaN", "Infinity", "-Infinity", "-0", "1e-45", "1.1754942e-38", "3.4028235e38", "0.1", "16777217"],
            ),
            column(
                "double precision",
                &[
                    "NaN",
                    "Infinity",
                    "-Infinity",
                    "-0",
                    "5e-324",
                    "2.2250738585072009e-308",
                    "1.7976931348623157e308",
                    "0.1",
                    "0.30000000000000004",
                ],
            ),
            column("numeric", &["0", "-0.0001", "1e50", "1e-1000", "123456789012345678901234567890.123456789"]),
            column("numeric", &["0.000", "1.50", "100"]).forgets(ZEROS_AT_THE_END, "v"),
            column("numeric", &[concat!("-", thousand!()), concat!(thousand!(), ".", thousand!())]),
            column("numeric", &["NaN", "Infinity", "-Infinity"]).stops_by_default(),
            column("numeric(12,4)", &["12345678.1234", "-0.0001", "0"]),
            column("numeric(12,4)", &["NaN"]).stops_by_default(),
            column("numeric(1000,300)", &["1e699", "-1e-300"]),
            column("numeric(3,-2)", &["12300", "-99900", "0"]).since(15),
            column("numeric(3,5)", &["0.00123", "-0.00999"]).since(15),
            column("money", &["-92233720368547758.08", "92233720368547758.07", "-0.01", "0"]),
            column("oid", &["4294967295", "0"]),
        ],
    },
    Family {
        name: "texts",
        columns: &[
            column("text", &["", " ", "é漢🎉", "quote' \"back\\slash\ttab\nnl\r", "NULL", "\\N", "\u{1}\u{7f}"]),
            column("varchar(20)", &["", "ends in blanks  "]),
            column("char(5)", &["", "ab", "é漢🎉"]),
            column("name", &["a name", ""]),
            column("\"char\"", &["c", "\\"]),
            column("citext", &["CiText", ""]),
            column("bytea", &["", "\\x00", "\\xdeadbeef00ff5c27"]),
            column("uuid", &["123e4567-e89b-12d3-a456-426614174000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]),
            column("json", &["{\"a\": 1,  \"a\":[1,2e400, null]}", "null", "\"\\u00e9\"", "1.10"]),
            column("jsonb", &["{\"b\":2,\"a\":null}", "null", "1e1000", "\"é\\\\\"", "1.10"]),
            column(
                "xml",
                &["<a>1</a>", "<a b=\"'\">&amp;é</a>", "text", "<?xml version=\"1.0\" standalone=\"yes\"?><a/>"],
            ),
            column("xml", &["<?xml version=\"1.0\"?><a/>"]).text_forgets(
                "a declaration that says no more than the version",
                "replace(v::text, '<?xml version=\"1.0\"?>', '')",
            ),
            column("jsonpath", &["$.a[*] ? (@ > 1)"]),
            column("tsvector", &["a fat cat", "'it''s':1A,2B 'back\\\\slash':3", ""]),
            column("tsquery", &["fat & (cat | !dog) <2> 'it''s':*A", ""]),
            column("hstore", &["a=>1,b=>NULL", "", "\"q\\\"uote\"=>\"back\\\\slash\", \"é\"=>\"\", \"\"=>\"NULL\""]),
            column("ltree", &["Top.Science", ""]),
            column("lquery", &["*.a|b{1,2}.!c"]),
            column("ltxtquery", &["a & b*"]),
        ],
    },
    Family {
        name: "times",
        columns: &[
            column(
                "date",
                &[
                    "2024-02-29",
                    "4714-11-24 BC",
                    "0001-12-31 BC",
                    "0001-01-01",
                    "5874897-12-31",
                    "infinity",
                    "-infinity",
                ],
            ),
            column("time", &["24:00:00", "00:00:00", "23:59:59.999999", "12:34:56.7"]),
            column("time(3)", &["24:00:00", "23:59:59.999"]),
            column("time(0)", &["24:00:00", "23:59:59"]),
            column(
                "timestamp",
                &[
                    "2024-02-29 12:34:56.789012",
                    "4714-11-24 00:00:00 BC",
                    "0001-12-31 23:59:59.999999 BC",
                    "1969-12-31 23:59:59.999999",
                    "294247-01-10 04:00:25.199999",
                    "infinity",
                    "-infinity",
                ],
            ),
            column("timestamp", &["294276-12-31 23:59:59.999999"]).stops_by_default(),
            column("timestamp(3)", &["294276-12-31 23:59:59.999", "4714-11-24 00:00:00 BC", "infinity", "-infinity"]),
            column("timestamp(0)", &["2024-02-29 12:34:57", "infinity"]),
            column(
                "timestamptz",
                &[
                    "2024-02-29 12:34:56.789012+02",
                    "4714-11-24 00:00:00+00 BC",
                    "0001-12-31 23:59:59.999999+00 BC",
                    "294276-12-31 23:59:59.999999+00",
                    "1600-01-01 00:00:00+00:00:20",
                    "infinity",
                    "-infinity",
                ],
            ),
            column("timestamptz(3)", &["2024-02-29 12:34:56.789+02", "infinity"]),
            column(
                "timetz",
                &[
                    "12:34:56.789012+02",
                    "24:00:00-08",
                    "00:00:00+15:59:59",
                    "23:59:59.999999-15:59:59",
                    "12:00:00+05:30",
                    "24:00:00+00",
                ],
            )
            .forgets("the zone", "((date '2000-01-01' + v) at time zone 'utc')::time"),
            column(
                "interval",
                &["1 year 2 mons 3 days 04:05:06.789", "-1 day +02:03:04", "-00:00:00.000001", "1 mon -31 days", "0"],
            )
            .forgets(MONTHS_AND_DAYS, SECONDS),
            column("interval", &["178956970 years 7 mons 2147483647 days"]).stops_by_default(),
            column("interval", &["-178956970 years -8 mons -2147483648 days 2562047788:00:54.775807"])
                .since(15)
                .stops_by_default(),
            column("interval", &["infinity", "-infinity"]).since(17).stops_by_default(),
            column("interval year to month", &["-178000000 years"]).stops_by_default(),
            column("interval second(3)", &["1.234", "-1.234"]),
        ],
    },
    Family {
        name: "bits",
        columns: &[
            column("bit", &["1", "0"]),
            column("bit(9)", &["101010101", "000000001", "000000000"]),
            column("bit(64)", &["1000000000000000000000000000000000000000000000000000000000000001"]),
            column("bit varying", &["1101", "0001", "0", "000000000"])
                .forgets("the zeros in front", "ltrim(v::text, '0')"),
            column("bit varying(16)", &["1101", "0000000000000001"])
                .forgets("the zeros in front", "ltrim(v::text, '0')"),
        ],
    },
    Family {
        name: "networks",
        columns: &[
            column("inet", &["192.168.1.5/24", "10.0.0.1", "::ffff:1.2.3.4/128", "2001:db8::1/64"]),
            column("cidr", &["10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"]),
            column("macaddr", &["08:00:2b:01:02:03"]),
            column("macaddr8", &["08:00:2b:01:02:03:04:05"]),
        ],
    },
    Family {
        name: "shapes",
        columns: &[
            column("point", &["(1,2)", "(-0,5e-324)", "(NaN,Infinity)", "(0.1,-1e300)"]),
            column("line", &["{1,2,3}", "{0.1,-0.3,1e-300}"]),
            column("lseg", &["[(0,0),(1,1)]"]),
            column("box", &["(1,1),(0,0)"]),
            column("path", &["[(0,0),(1,1),(2,0)]", "((0,0),(1,1))"]),
            column("polygon", &["((0,0),(1,1),(2,0))"]),
            column("circle", &["<(1,2),3>", "<(0,0),Infinity>"]),
        ],
    },
    Family {
        name: "ranges",
        columns: &[
            column("int4range", &["[1,5)", "empty", "(,)", "[1,]"]),
            column("int8range", &["[-9223372036854775808,9223372036854775807)"]),
            column("numrange", &["[1.50,2.5]", "(NaN,)", "[-Infinity,Infinity]"]),
            column("daterange", &["[2024-01-01,infinity]", "[4714-11-24 BC,)"]),
            column("tsrange", &["[2024-01-01 00:00,2024-01-02 00:00)", "[-infinity,infinity]"]),
            column("tstzrange", &["[2024-01-01 00:00+00,)"]),
            column("textrange", &["[a,b)", "[\"a,\\\"b\\\\\",\"c d\"]", "(,\"\"]"]),
            column("int4multirange", &["{[1,3),[5,7)}", "{}"]),
            column("nummultirange", &["{[1.50,2.5],(3,)}"]),
            column("datemultirange", &["{[2024-01-01,2024-02-01)}"]),
            column("tsmultirange", &["{[2024-01-01 00:00,)}"]),
            column("textmultirange", &["{[a,b),[\"c d\",\"e,f\")}"]),
        ],
    },
    Family {
        name: "identifiers",
        columns: &[
            column("pg_lsn", &["16/B374D848", "FFFFFFFF/FFFFFFFF", "0/0"]),
            column("xid", &["4294967295", "3"]),
            column("cid", &["4294967295"]),
            column("tid", &["(4294967295,65535)"]),
            column("xid8", &["18446744073709551615", "0"]),
            column("pg_snapshot", &["10:20:10,14,15"]),
            column("txid_snapshot", &["10:20:10,14,15"]),
            column("regclass", &["pg_catalog.pg_class", "-"]),
            column("regtype", &["timestamp with time zone", "int[]"]),
            column("regproc", &["now"]),
            column("regprocedure", &["abs(numeric)"]),
            column("regoper", &["||/"]),
            column("regoperator", &["+(integer,integer)"]),
            column("regrole", &["pg_monitor"]),
            column("regnamespace", &["pg_catalog"]),
            column("regconfig", &["english"]),
            column("regdictionary", &["simple"]),
            column("regcollation", &["\"C\""]),
            column("refcursor", &["<unnamed portal 1>"]),
            column("aclitem", &["pg_monitor=r*w/pg_monitor"]),
            column("int2vector", &["1 -2 3"]),
            column("oidvector", &["23 4294967295"]),
        ],
    },
    Family {
        name: "made",
        columns: &[
            column("mood", &["sad", "o'k", "very happy", "ünï,\"x\""]),
            column("small", &["123.456", "-0.001"]),
            column("smaller", &["99.999"]),
            column("smallest", &["9.999"]),
            column("address", &["(\"Main, St\",12345,)", "(,,)", "(\"q\"\"\\\\\",-1,\"{\"\"(a,1)\"\"}\")"]),
            column("home", &["(,1,)"]),
            column("moods", &["{sad,\"very happy\"}"]),
            column("shape", &["\\x0101000000000000000000f03f", "\\x"]),
        ],
    },
    Family {
        name: "arrays",
        columns: &[
            column("integer[]", &["{1,NULL,3}", "{}", "{NULL}", "{-2147483648}"]),
            column("integer[]", &["{{1,2},{3,NULL}}", "[0:1]={1,2}", "[-1:0][2:3]={{1,2},{3,4}}"]).stops_by_default(),
            column("integer[][]", &["{{1,2},{3,4}}", "{1}", "[5:5]={1}"]),
            column("boolean[]", &["{t,f,NULL}"]),
            column("bigint[]", &["{9223372036854775807}"]),
            column("real[]", &["{NaN,-0,1e-45}"]),
            column("double precision[]", &["{NaN,-Infinity,5e-324}"]),
            column("numeric[]", &["{1.1,-2.25,1e-20}"]),
            column("numeric[]", &["{1.10}"]).forgets(ZEROS_AT_THE_END, "v"),
            column("numeric(8,2)[]", &["{1.10,-2.25}"]),
            column("numeric[]", &["{NaN}"]).stops_by_default(),
            column("text[]", &["{a,\"b c\",\"NULL\",NULL,\"q\\\"q\",\"back\\\\slash\",\"\"}", "{é漢🎉}"]),
            column("bytea[]", &["{\"\\\\xdeadbeef\",\"\\\\x\"}"]),
            column("date[]", &["{2024-01-01,\"0044-03-15 BC\",infinity}"]),
            column("time[]", &["{24:00:00}"]),
            column("timestamp[]", &["{\"2024-01-01 00:00:00.000001\",-infinity}"]),
            column("timestamptz[]", &["{\"2024-01-01 00:00:00+00\"}"]),
            column("uuid[]", &["{123e4567-e89b-12d3-a456-426614174000}"]),
            column("jsonb[]", &["{\"{\\\"a\\\":1}\",null}"]),
            column("inet[]", &["{10.0.0.1}"]),
            column("mood[]", &["{sad,\"very happy\"}", "{}"]),
            column("mood[]", &["{sad,NULL}"]).stops_by_default(),
            column("point[]", &["{\"(1,2)\"}"]),
            column("box[]", &["{(1,1),(0,0);(2,2),(1,1)}"]),
            column("int4range[]", &["{\"[1,5)\",empty}"]),
            column("address[]", &["{\"(\\\"Main, St\\\",1,)\"}"]),
            column("small[]", &["{1.500}"]),
            column("smaller[]", &["{1.500,NULL}"]),
            column("citext[]", &["{A,b}"]),
            column("ltree[]", &["{a.b}"]),
            column("hstore[]", &["{\"a=>1\"}"]),
            column("shape[]", &["{\"\\\\x01\"}"]),
            column("money[]", &["{-0.01}"]),
            column("bit(3)[]", &["{101,001}"]),
            column("interval[]", &["{\"1 day\"}"])
                .forgets(MONTHS_AND_DAYS, "(select array_agg(extract(epoch from i)) from unnest(v) as i)"),
        ],
    },
];
