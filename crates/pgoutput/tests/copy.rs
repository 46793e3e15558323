//! Rows of COPY: what comes back of a row, and what is refused. What a real server writes is looked at in
//! `tests/end_to_end/copy_rows.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use pgoutput::{CopyRows, Tuple, Value};
use proptest::{collection::vec, prelude::*, sample::Index};
use support::encode::encode_copy;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Several rows by one decoder, since they share its buffer.
    #[test]
    fn what_was_encoded_is_decoded(rows in rows()) {
        let mut decoder = CopyRows::new(u16::try_from(rows[0].len()).unwrap());
        let expected: Vec<Tuple> = rows.iter().map(|row| tuple(row)).collect();
        let found: Vec<Tuple> = expected.iter().map(|row| decoder.decode(&encode_copy(row)).unwrap()).collect();
        prop_assert_eq!(found, expected);
    }

    /// Of two columns at least: a row of one empty text is a row of no columns too.
    #[test]
    fn a_line_that_is_cut_or_lengthened_is_refused(row in row(2..6), cut: Index) {
        let columns = u16::try_from(row.len()).unwrap();
        let mut decoder = CopyRows::new(columns);
        let line = encode_copy(&tuple(&row));
        prop_assert!(decoder.decode(&line[..cut.index(line.len())]).is_err());
        prop_assert!(decoder.decode(&[&line[..], b"\n"].concat()).is_err());
        prop_assert!(CopyRows::new(columns + 1).decode(&line).is_err());
        prop_assert!(CopyRows::new(columns - 1).decode(&line).is_err());
        prop_assert_eq!(decoder.decode(&line), Ok(tuple(&row)));
    }

    /// What the server writes is written in one way, so that what is taken is not lost or made up.
    #[test]
    fn random_bytes_are_refused_or_taken_whole(columns in 0..4_u16, line in vec(byte(), 0..20)) {
        let line = [&line[..], b"\n"].concat();
        if let Ok(row) = CopyRows::new(columns).decode(&line) {
            prop_assert_eq!(row.len(), usize::from(columns));
            prop_assert_eq!(encode_copy(&row), line);
        }
    }

    #[test]
    fn a_row_is_split_where_it_is_said(row in row(0..6), at in 0..8_u16) {
        let whole = tuple(&row);
        match whole.split_at(at) {
            None => prop_assert!(usize::from(at) > row.len()),
            Some((first, rest)) => {
                prop_assert_eq!(first, tuple(&row[..usize::from(at)]));
                prop_assert_eq!(rest, tuple(&row[usize::from(at)..]));
            }
        }
    }
}

#[test]
fn a_value_is_empty_or_null_or_looks_like_null() {
    let row = CopyRows::new(6).decode(b"\t\\N\tN\t\\\\N\t\\\\.\t\n").unwrap();
    let text = Value::Text;
    assert!(row.iter().eq([text(b""), Value::Null, text(b"N"), text(b"\\N"), text(b"\\."), text(b"")]));
}

#[test]
fn a_table_without_columns_has_rows() {
    let row = CopyRows::new(0).decode(b"\n").unwrap();
    assert!(row.is_empty());
}

#[test]
fn a_row_of_all_columns_that_a_query_can_have() {
    let line = [&b"\\N\t".repeat(1_663)[..], b"x\n"].concat();
    let row = CopyRows::new(1_664).decode(&line).unwrap();
    assert_eq!(row.iter().last(), Some(Value::Text(b"x")));
}

#[test]
fn what_is_not_a_row() {
    let check = |columns, line: &[u8], expected: &str| {
        let error = CopyRows::new(columns).decode(line).unwrap_err();
        assert_eq!(error.to_string(), expected);
        error
    };
    for (columns, line) in [(1, &b""[..]), (1, b"secret"), (2, b"a\tsecret"), (2, b"a\t\\N"), (1, b"secret\\")] {
        let error = CopyRows::new(columns).decode(line).unwrap_err();
        assert!(error.is_truncated() || line.ends_with(b"N"), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "no row data in errors: {error:?}");
    }
    check(2, b"a\tb", "COPY row: value of column 1 at byte 2: no newline ends the line");
    check(2, b"a\n", "COPY row: end of value of column 0 at byte 1: the line does not have 2 columns");
    check(2, b"a\tb\tc\n", "COPY row: end of value of column 1 at byte 3: the line does not have 2 columns");
    check(0, b"a\n", "COPY row: end of value at byte 0: the line does not have 0 columns");
    check(0, b"\n\n", "COPY row: end of line at byte 1: 1 bytes follow the last field");
    check(1, b"a\nb\n", "COPY row: end of line at byte 2: 2 bytes follow the last field");
    check(1, b"a\\N\n", "COPY row: escape of column 0 at byte 1: COPY writes no backslash before 'N' (0x4e)");
    check(1, b"\\Na\n", "COPY row: escape of column 0 at byte 0: COPY writes no backslash before 'N' (0x4e)");
    check(1, b"\\.\n", "COPY row: escape of column 0 at byte 0: COPY writes no backslash before '.' (0x2e)");
    check(1, b"\\101\n", "COPY row: escape of column 0 at byte 0: COPY writes no backslash before '1' (0x31)");
    check(1, b"\\x41\n", "COPY row: escape of column 0 at byte 0: COPY writes no backslash before 'x' (0x78)");
    check(1, b"a\\", "COPY row: escape of column 0 at byte 1: no newline ends the line");
    let too_long = vec![0; 1 << 31];
    check(1, &too_long, "COPY row: line at byte 0: 2147483648 bytes are more than a message can hold");
}

#[test]
fn a_line_that_was_refused_leaves_nothing_behind() {
    let mut rows = CopyRows::new(2);
    rows.decode(b"first\tsecond\\!\n").unwrap_err();
    assert!(rows.decode(b"a\tb\n").unwrap().iter().eq([Value::Text(b"a"), Value::Text(b"b")]));
}

/// Bytes that mean something in a line, and some others.
fn byte() -> impl Strategy<Value = u8> {
    prop::sample::select(&b"\\\\\\\tNtnbvfr.x1a\0\x01\x7f\xc3\xa4"[..])
}

fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
    let any_byte = prop_oneof![byte(), prop::sample::select(&b"\n\r\t\x08\x0b\x0c"[..]), any::<u8>()];
    prop::option::weighted(0.8, vec(any_byte, 0..30))
}

fn row(columns: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Option<Vec<u8>>>> {
    vec(value(), columns)
}

fn rows() -> impl Strategy<Value = Vec<Vec<Option<Vec<u8>>>>> {
    (0..6_usize).prop_flat_map(|columns| vec(vec(value(), columns), 1..5))
}

fn tuple(row: &[Option<Vec<u8>>]) -> Tuple {
    Tuple::from_values(row.iter().map(|value| value.as_deref().map_or(Value::Null, Value::Text))).unwrap()
}
