//! The statements that copy rows which are in a table already, as text.
//!
//! What is a name is quoted, and what is a value is a literal (`escape_literal`, which holds whatever `standard_conforming_strings` says). The
//! publication's row filter is the server's own text, deparsed where nothing but `pg_catalog` is in the search path, so that it names everything
//! else by its schema. Rows are copied from one table alone: what inherits from it is another table, and is published for itself.

use std::fmt::Write as _;

use pgoutput::{Relation, Tuple, Value};
use postgres_protocol::escape::{escape_identifier, escape_literal};

use super::{KeyColumn, ReadOrder};

/// What is copied, and from where.
#[derive(Debug, Clone, Copy)]
pub struct CopyStatement<'a> {
    /// The table as its rows are published: its columns, and the name that the filter may call it by.
    pub relation: &'a Relation,
    /// The condition of the publication.
    pub filter: Option<&'a str>,
    /// Where the rows are, schema and name: the table itself, or a leaf of it.
    pub source: (&'a str, &'a str),
    /// Whether the rows of its partitions are meant too, which are not asked for one by one.
    pub with_partitions: bool,
}

/// Rows in the order of a key.
#[derive(Debug, Clone, Copy)]
pub struct KeyRange<'a> {
    /// The key.
    pub key: &'a ReadOrder,
    /// The key of the last row before; none to begin with the first.
    pub after: Option<&'a Tuple>,
    /// The key of the last row that may be looked at; none to look at all until there are as many as are wanted.
    pub up_to: Option<&'a Tuple>,
    /// A condition that they have to meet besides, as somebody has written it.
    pub condition: Option<&'a str>,
    /// How many at most.
    pub rows_max: u64,
}

impl CopyStatement<'_> {
    /// The next rows by their key, each with the columns of the key before its own. None if `after` is no key of the table.
    ///
    /// Both the comparison and the order are those of the key's index: the operator is the one that its family has, whatever the search
    /// path, and the collation is the index's, since a constant has none that counts against it.
    pub fn of_keys(&self, range: &KeyRange<'_>) -> Option<String> {
        let collated = collated(range.key);
        let mut conditions = compared(range.key, &range.key.greater, range.after)?;
        conditions.extend(compared(range.key, &range.key.at_most, range.up_to)?);
        // A comment at its end is over with its line.
        conditions.extend(range.condition.map(|condition| format!("(\n{condition}\n)")));
        let order = format!(" ORDER BY {collated} LIMIT {}", range.rows_max);
        let statement = self.statement(&names(range.key), &self.columns(), &self.with_filter(conditions), &order);
        Some(copied(&statement))
    }

    /// The key of the n-th row of a range, whichever rows are wanted: no row if there are fewer. None if one of its ends is no key of the table.
    pub fn place(&self, key: &ReadOrder, after: Option<&Tuple>, up_to: Option<&Tuple>, n: u64) -> Option<String> {
        let collated = collated(key);
        let order = format!(" ORDER BY {collated} OFFSET {} LIMIT 1", n.saturating_sub(1));
        let mut conditions = compared(key, &key.greater, after)?;
        conditions.extend(compared(key, &key.at_most, up_to)?);
        Some(self.statement(&names(key), &[], &conditions, &order))
    }

    /// Keys that cut what lies behind a place into so many parts of about equal length, in order; each with how many rows of a sample lie there, and how
    /// many it has. No row if there are too few. `percent` of the blocks are read, whichever rows are wanted. None if `after` is no key of the table.
    ///
    /// Whole blocks are taken, by a number that the server draws for each: it looks at no others. They are sorted as the key's index has them.
    pub fn cuts(&self, key: &ReadOrder, after: Option<&Tuple>, percent: f64, parts: usize) -> Option<String> {
        let sample = self.statement(&names(key), &[], &[], &format!(" TABLESAMPLE SYSTEM ({percent})"));
        let behind = compared(key, &key.greater, after)?;
        let behind = if behind.is_empty() { "true".to_owned() } else { behind.join(" AND ") };
        // Names of its own, whatever the columns are called.
        let places: Vec<String> = (0..key.columns.len()).map(|position| format!("place{position}")).collect();
        let places = places.join(", ");
        let (columns, collated) = (names(key).join(", "), collated(key));
        Some(format!(
            "WITH sampled AS MATERIALIZED ({sample}),
             ranked ({places}, position, behind) AS (
                 SELECT {columns}, row_number() OVER (ORDER BY {collated}), count(*) OVER () FROM sampled WHERE {behind})
             SELECT {places}, behind, (SELECT count(*) FROM sampled) FROM ranked
             WHERE position < behind AND position * {parts} / behind > (position - 1) * {parts} / behind
             ORDER BY ranked.position"
        ))
    }

    /// The rows with these values of some columns, each with the columns of the key before its own.
    ///
    /// A literal without a type takes that of the column. Where the type's own operator is not in the search path, texts are compared: the
    /// values are such as the server has printed, so that they are equal then too.
    pub fn of_rows(&self, key: &ReadOrder, columns: &[String], rows: &[Vec<String>]) -> String {
        let columns: Vec<String> = columns.iter().map(|column| escape_identifier(column)).collect();
        let row = |row: &Vec<String>| {
            let values: Vec<String> = row.iter().map(|value| escape_literal(value).trim_start().to_owned()).collect();
            format!("({})", values.join(", "))
        };
        let rows: Vec<String> = rows.iter().map(row).collect();
        let condition = format!("({}) IN ({})", columns.join(", "), rows.join(", "));
        copied(&self.statement(&names(key), &self.columns(), &self.with_filter(vec![condition]), ""))
    }

    /// All rows, in any order.
    pub fn of_all(&self) -> String {
        copied(&self.statement(&[], &self.columns(), &self.with_filter(Vec::new()), ""))
    }

    fn columns(&self) -> Vec<String> {
        self.relation.columns.iter().map(|column| escape_identifier(&column.name)).collect()
    }

    fn with_filter(&self, mut conditions: Vec<String>) -> Vec<String> {
        conditions.extend(self.filter.map(|filter| format!("({filter})")));
        conditions
    }

    fn statement(&self, before: &[String], columns: &[String], conditions: &[String], order: &str) -> String {
        let columns: Vec<&str> = before.iter().chain(columns).map(String::as_str).collect();
        let only = if self.with_partitions { "" } else { "ONLY " };
        let mut statement = format!(
            "SELECT {} FROM {only}{}.{} AS {}",
            columns.join(", "),
            escape_identifier(self.source.0),
            escape_identifier(self.source.1),
            escape_identifier(&self.relation.name)
        );
        if !conditions.is_empty() {
            write!(statement, " WHERE {}", conditions.join(" AND ")).expect("a String takes all that is written to it");
        }
        statement + order
    }
}

fn copied(statement: &str) -> String {
    format!("COPY ({statement}) TO STDOUT")
}

fn names(key: &ReadOrder) -> Vec<String> {
    key.columns.iter().map(|column| escape_identifier(&column.name)).collect()
}

/// The columns of a key as its index compares them.
fn collated(key: &ReadOrder) -> String {
    let collated = |column: &KeyColumn| match &column.collate {
        Some(collation) => format!("{} COLLATE {collation}", escape_identifier(&column.name)),
        None => escape_identifier(&column.name),
    };
    key.columns.iter().map(collated).collect::<Vec<_>>().join(", ")
}

/// The condition that rows compare so with a place, if there is one. None if that is no key of the table.
fn compared(key: &ReadOrder, operator: &str, place: Option<&Tuple>) -> Option<Vec<String>> {
    let compare = |place| Some(format!("({}) {operator} ({})", collated(key), literals(key, place)?.join(", ")));
    Some(match place {
        Some(place) => vec![compare(place)?],
        None => Vec::new(),
    })
}

/// The values of a key as constants of their types.
fn literals(key: &ReadOrder, values: &Tuple) -> Option<Vec<String>> {
    let literal = |(column, value): (&KeyColumn, Value<'_>)| match value {
        Value::Text(text) => {
            let text = std::str::from_utf8(text).ok()?;
            Some(format!("{}::{}", escape_literal(text).trim_start(), column.cast))
        }
        Value::Null | Value::UnchangedToast | Value::Binary(_) => None,
    };
    (values.len() == key.columns.len()).then(|| key.columns.iter().zip(values).map(literal).collect())?
}

#[cfg(test)]
mod tests {
    use pgoutput::{Oid, RelationColumn, ReplicaIdentity};

    use super::*;

    fn relation(columns: &[&str]) -> Relation {
        let column = |name: &&str| RelationColumn {
            is_key: false,
            name: (*name).to_owned(),
            type_oid: Oid::from(23),
            type_modifier: -1,
        };
        Relation {
            xid: None,
            id: Oid::from(1),
            schema: "public".into(),
            name: "ro\"ot".into(),
            replica_identity: ReplicaIdentity::Default,
            columns: columns.iter().map(column).collect(),
        }
    }

    fn key(columns: &[(&str, &str)]) -> ReadOrder {
        let column = |(name, cast): &(&str, &str)| KeyColumn {
            name: (*name).into(),
            type_oid: Oid::from(23),
            cast: (*cast).into(),
            collation: Oid::from(0),
            collate: None,
        };
        let (greater, at_most) = ("OPERATOR(pg_catalog.>)".into(), "OPERATOR(pg_catalog.<=)".into());
        ReadOrder { columns: columns.iter().map(column).collect(), greater, at_most }
    }

    fn tuple(values: &[&str]) -> Tuple {
        Tuple::from_values(values.iter().map(|value| Value::Text(value.as_bytes()))).expect("it is small")
    }

    #[test]
    fn keys() {
        let (relation, source) = (relation(&["v", "a"]), ("s", "t"));
        let statement = CopyStatement { relation: &relation, filter: None, source, with_partitions: true };
        let key = key(&[("a", "integer"), ("b\"b", "text")]);
        let range = KeyRange { key: &key, after: None, up_to: None, condition: None, rows_max: 100 };
        let first =
            r#"COPY (SELECT "a", "b""b", "v", "a" FROM "s"."t" AS "ro""ot" ORDER BY "a", "b""b" LIMIT 100) TO STDOUT"#;
        assert_eq!(statement.of_keys(&range).as_deref(), Some(first));
        let after = tuple(&["7", r"it's \ a"]);
        let next = r#"COPY (SELECT "a", "b""b", "v", "a" FROM ONLY "s"."t" AS "ro""ot" WHERE ("a", "b""b") OPERATOR(pg_catalog.>) ('7'::integer, E'it''s \\ a'::text) AND (
a < 9 -- all
) AND (v IS NULL) ORDER BY "a", "b""b" LIMIT 100) TO STDOUT"#;
        let filtered = CopyStatement { filter: Some("v IS NULL"), with_partitions: false, ..statement };
        let range = KeyRange { after: Some(&after), condition: Some("a < 9 -- all"), ..range };
        assert_eq!(filtered.of_keys(&range).as_deref(), Some(next));
        let up_to = tuple(&["8", "z"]);
        let range = KeyRange { after: None, up_to: Some(&up_to), condition: None, ..range };
        let bounded = r#"COPY (SELECT "a", "b""b", "v", "a" FROM ONLY "s"."t" AS "ro""ot" WHERE ("a", "b""b") OPERATOR(pg_catalog.<=) ('8'::integer, 'z'::text) AND (v IS NULL) ORDER BY "a", "b""b" LIMIT 100) TO STDOUT"#;
        assert_eq!(filtered.of_keys(&range).as_deref(), Some(bounded));
        // Whatever the filter, it is a place among all rows.
        let place = r#"SELECT "a", "b""b" FROM ONLY "s"."t" AS "ro""ot" WHERE ("a", "b""b") OPERATOR(pg_catalog.>) ('8'::integer, 'z'::text) ORDER BY "a", "b""b" OFFSET 99 LIMIT 1"#;
        assert_eq!(filtered.place(&key, Some(&up_to), None, 100).as_deref(), Some(place));
        let in_range = filtered.place(&key, Some(&after), Some(&up_to), 100).expect("they are keys");
        assert!(in_range.contains("OPERATOR(pg_catalog.<=) ('8'::integer, 'z'::text) ORDER BY"), "{in_range}");
        let cuts = filtered.cuts(&key, Some(&after), 0.000_002, 16).expect("it is a key");
        assert!(cuts.contains(r#"FROM ONLY "s"."t" AS "ro""ot" TABLESAMPLE SYSTEM (0.000002))"#), "{cuts}");
    }

    #[test]
    fn rows() {
        let (relation, source) = (relation(&["v", "a"]), ("s", "t"));
        let statement = CopyStatement { relation: &relation, filter: Some("v > 0"), source, with_partitions: false };
        let rows = [vec!["7".to_owned(), r"it's \ a".to_owned()], vec!["8".to_owned(), String::new()]];
        assert_eq!(
            statement.of_rows(&key(&[("a", "integer")]), &["a".to_owned(), "Ω".to_owned()], &rows),
            r#"COPY (SELECT "a", "v", "a" FROM ONLY "s"."t" AS "ro""ot" WHERE ("a", "Ω") IN (('7', E'it''s \\ a'), ('8', '')) AND (v > 0)) TO STDOUT"#
        );
    }

    #[test]
    fn all() {
        let (relation, source) = (relation(&["v", "a"]), ("s", "t"));
        let statement = CopyStatement { relation: &relation, filter: Some("v > 0"), source, with_partitions: true };
        let expected = r#"COPY (SELECT "v", "a" FROM "s"."t" AS "ro""ot" WHERE (v > 0)) TO STDOUT"#;
        assert_eq!(statement.of_all(), expected);
    }

    #[test]
    fn what_is_no_key() {
        let (relation, source) = (relation(&["a"]), ("s", "t"));
        let statement = CopyStatement { relation: &relation, filter: None, source, with_partitions: false };
        let key = key(&[("a", "integer")]);
        let null = Tuple::from_values([Value::Null]).expect("it is small");
        let not_utf8 = Tuple::from_values([Value::Text(b"\xff")]).expect("it is small");
        for after in [&tuple(&[]), &tuple(&["1", "2"]), &null, &not_utf8] {
            let range = KeyRange { key: &key, after: Some(after), up_to: None, condition: None, rows_max: 1 };
            assert_eq!(statement.of_keys(&range), None, "{after:?}");
            assert_eq!(statement.of_keys(&KeyRange { after: None, up_to: Some(after), ..range }), None, "{after:?}");
            assert_eq!(statement.place(&key, Some(after), None, 1), None, "{after:?}");
            assert_eq!(statement.cuts(&key, Some(after), 1.0, 2), None, "{after:?}");
        }
    }
}
