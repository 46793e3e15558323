use proptest::prelude::*;

use super::*;

const VALUE: &str = r#"{"op":"u","before":null,"after":{"id":7,"status":"paid","amount":12.50,"exact":"12.50","big":9007199254740993,
    "flag":true,"note":null,"a.b":1,"it's":"it's","date":"2026-11-24"},"source":{"lsn":30}}"#;

fn met(text: &str) -> bool {
    let predicate = Predicate::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let (key, value) = (parse_json(br#"{"id":7}"#).expect("JSON"), parse_json(VALUE.as_bytes()).expect("JSON"));
    let headers = [("__op", Some(&b"u"[..])), ("trace.id", Some(b"x")), ("none", None)];
    predicate.is_met(&Fields { key: &key, value: &value, headers: &headers })
}

#[test]
fn a_record_is_wanted_where_the_whole_is_true() {
    for (text, expect) in [
        ("after.status = 'paid' and op in (c,u)", true),
        ("after.status = 'paid' AND NOT op IN ('c', 'u')", false),
        ("op not in (d)", true),
        ("op = d or after.id >= 7", true),
        ("op = d or after.id > 7", false),
        ("(op = d or op = u) and after.id = 7.0", true),
        ("op = d or op = u and after.id = 8", false),
        ("not not op = u", true),
        ("after.amount = 12.5", true),
        ("after.amount > 12.499999999999999999999", true),
        ("after.amount < 9", false),
        ("after.exact = 12.5", true),
        ("after.exact = '12.5'", false),
        ("after.big = 9007199254740992", false),
        ("after.big > 9.007199254740992e15", true),
        ("after.flag = true", true),
        ("after.flag != true", false),
        ("after.flag <> 'false'", true),
        ("after.note is null", true),
        ("after.note is not null", false),
        ("after.note = 'x' or after.note != 'x'", false),
        ("not after.note = 'x'", false),
        ("before is null and before.id is null", true),
        ("before.id = 7", false),
        ("nothing is null", true),
        ("after.\"a.b\" = 1", true),
        ("after.\"it's\" = 'it''s'", true),
        ("after.date >= '2026-11-01' and after.date < '2026-12-01'", true),
        ("after.status > 5", false),
        ("not after.status > 5", false),
        ("after = 5", false),
        ("key.id = 7 and value.op = u and header.__op = u", true),
        ("header.trace.id = x", true),
        ("header.none is null and header.other is null", true),
        ("source.lsn = -30", false),
        ("source.lsn = +3e1", true),
    ] {
        assert_eq!(met(text), expect, "{text}");
    }
}

#[test]
fn an_error_says_what_is_wrong_and_where() {
    for (text, expect) in [
        ("", "the name of a field is expected at the end of \"\""),
        ("after.status =", "a value is expected at the end of \"after.status =\""),
        ("ä.b = and op = c", "a value is expected at character 7, before \"and op = c\""),
        ("a = 'x", "a quote that is not closed stands at character 5, before \"'x\""),
        ("a = \"x\"", "a value in single quotes is expected at character 5, before \"\\\"x\\\"\""),
        ("a = null", "nothing equals null: \"is null\" is expected at character 5, before \"null\""),
        ("a == 1", "a value is expected at character 4, before \"= 1\""),
        ("a = 1 b", "\"and\", \"or\" or the end is expected at character 7, before \"b\""),
        ("(a = 1", "\")\" is expected at the end of \"(a = 1\""),
        ("a = 1x2", "what is no number stands at character 5, before \"1x2\""),
        ("a in ()", "a value is expected at character 7, before \")\""),
        ("a in (1 2)", "\",\" or \")\" is expected at character 9, before \"2)\""),
        ("a & b", "something that means nothing stands at character 3, before \"& b\""),
        ("a is 1", "\"null\" is expected at character 6, before \"1\""),
        ("a not 1", "\"in\" is expected at character 7, before \"1\""),
        ("a. = 1", "the name of a field is expected at character 4, before \"= 1\""),
        ("a", "a comparison such as =, \"in\" or \"is\" is expected at the end of \"a\""),
    ] {
        assert_eq!(Predicate::parse(text).map(drop), Err(expect.to_owned()), "{text}");
    }
    assert!(Predicate::parse(&"(".repeat(100_000)).is_err());
    assert!(Predicate::parse(&"not ".repeat(100_000)).is_err());
}

#[test]
fn what_no_record_has_is_told() {
    let predicate = Predicate::parse("op = u or (afer.id = 7 and after.status = 5)").expect("it is one");
    let (key, value) = (Value::Null, parse_json(VALUE.as_bytes()).expect("JSON"));
    assert!(predicate.is_met(&Fields { key: &key, value: &value, headers: &[] }));
    let doubts = predicate.doubts();
    assert_eq!(
        doubts,
        ["no record has a field afer.id", "in some records after.status is of a type that does not compare"]
    );
}

#[test]
fn keys_are_compared_as_what_they_are() {
    let is = |filter: &str, key: &str| {
        KeyFilter::parse(filter).expect(filter).is_met(&parse_json(key.as_bytes()).expect("JSON"))
    };
    for (filter, key, expect) in [
        ("id=7", r#"{"id":7}"#, true),
        ("id=7", r#"{"id":"7"}"#, true),
        ("id=7", r#"{"id":70}"#, false),
        ("id=7", r#"{"id":7,"part":1}"#, true),
        ("id=7", "7", false),
        ("name=a=b", r#"{"name":"a=b"}"#, true),
        (r#"{"id":7}"#, r#"{"id":7.0}"#, true),
        (r#"{"id":7}"#, r#"{"id":7,"part":1}"#, false),
        (r#"{"part":1,"id":7}"#, r#"{"id":7,"part":1}"#, true),
        (r#"{"id":"7"}"#, r#"{"id":7}"#, false),
        ("7", "7", true),
        ("\"a\"", "\"a\"", true),
        ("null", "null", true),
    ] {
        assert_eq!(is(filter, key), expect, "{filter} {key}");
    }
    for text in ["", "id", "=7", "{\"id\":7", "{id=7}"] {
        assert!(KeyFilter::parse(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn any_text_is_an_expression_or_an_error(text in "[a-z.='\"()<>!, 0-9ä-]{0,40}|\\PC{0,40}") {
        if let Ok(predicate) = Predicate::parse(&text) {
            let value = parse_json(VALUE.as_bytes()).expect("JSON");
            predicate.is_met(&Fields { key: &value, value: &value, headers: &[] });
        }
    }
}
