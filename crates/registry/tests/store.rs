//! The registry's state: read from records in Confluent's documented format, and from what it writes itself.

use proptest::prelude::*;
use registry::store::{AvroSchema, Ledger, Level, Malformed, Noted, Plan, Refused, Store, Version};
use registry::{Action, SchemaId};

const SUBJECT: &str = "shop.public.orders-value";

/// A record as text; an empty value is a tombstone.
type Record = (String, String);

fn ledger(records: &[(&str, &str)]) -> Ledger {
    let mut ledger = Ledger::default();
    for (offset, (key, value)) in (0..).zip(records) {
        commit(&mut ledger, offset, key, value);
    }
    ledger
}

fn commit(ledger: &mut Ledger, offset: i64, key: &str, value: &str) -> Option<Noted> {
    write(ledger, offset, key, value);
    ledger.read_committed(offset, Some(key.as_bytes()), (!value.is_empty()).then_some(value.as_bytes()))
}

/// A record that was written in a transaction which did not commit.
fn write(ledger: &mut Ledger, offset: i64, key: &str, value: &str) {
    ledger.read_uncommitted(offset, Some(key.as_bytes()), (!value.is_empty()).then_some(value.as_bytes()));
}

fn schema(text: &str) -> AvroSchema {
    AvroSchema::parse(text).expect("a schema")
}

fn record(fields: &str) -> AvroSchema {
    schema(&format!(r#"{{"type":"record","name":"Value","fields":[{fields}]}}"#))
}

fn id_of(plan: &Plan) -> u32 {
    match plan {
        Plan::Registered(id) | Plan::Write { id, .. } => id.get(),
    }
}

fn numbers<'a>(versions: impl Iterator<Item = &'a Version>) -> Vec<(u32, u32)> {
    versions.map(|version| (version.number, version.id)).collect()
}

/// A life of a registry, by the format of `_schemas`: keys with `keytype` first and `magic` last, values with `deleted` last, and no
/// `schemaType` for Avro.
const LOG: &[(&str, &str)] = &[
    (r#"{"keytype":"NOOP","magic":0}"#, ""),
    (r#"{"keytype":"CONFIG","subject":null,"magic":0}"#, r#"{"compatibilityLevel":"FULL"}"#),
    (
        r#"{"keytype":"SCHEMA","subject":"a-key","version":1,"magic":1}"#,
        r#"{"subject":"a-key","version":1,"id":1,"schema":"\"string\"","deleted":false}"#,
    ),
    (
        r#"{"keytype":"SCHEMA","subject":"b-key","version":1,"magic":1}"#,
        r#"{"subject":"b-key","version":1,"id":1,"schema":"\"string\"","deleted":false}"#,
    ),
    (
        r#"{"keytype":"SCHEMA","subject":"a-value","version":1,"magic":1}"#,
        r#"{"subject":"a-value","version":1,"id":2,"schema":"\"int\"","deleted":false}"#,
    ),
    (
        r#"{"keytype":"SCHEMA","subject":"a-value","version":2,"magic":1}"#,
        r#"{"subject":"a-value","version":2,"id":3,"schema":"\"long\"","deleted":false}"#,
    ),
    (
        r#"{"keytype":"SCHEMA","subject":"p-value","version":1,"magic":1}"#,
        r#"{"subject":"p-value","version":1,"id":4,"schemaType":"PROTOBUF","references":[{"name":"x.proto","subject":"x","version":1}],"schema":"syntax = \"proto3\";","deleted":false}"#,
    ),
    (r#"{"keytype":"CONFIG","subject":"a-value","magic":0}"#, r#"{"compatibilityLevel":"NONE"}"#),
    (r#"{"keytype":"MODE","subject":"b-key","magic":0}"#, r#"{"mode":"READONLY"}"#),
    (
        r#"{"keytype":"CONTEXT","tenant":"default","context":".lab","magic":0}"#,
        r#"{"tenant":"default","context":".lab"}"#,
    ),
    (
        r#"{"keytype":"SCHEMA","subject":":.lab:a-key","version":1,"magic":1}"#,
        r#"{"subject":":.lab:a-key","version":1,"id":1,"schema":"\"bytes\"","deleted":false}"#,
    ),
];

#[test]
fn the_log_of_a_registry_is_its_state() {
    let ledger = ledger(LOG);
    let store = ledger.committed();
    assert_eq!(store.malformed(), None);
    assert_eq!(store.subjects(false).collect::<Vec<_>>(), [":.lab:a-key", "a-key", "a-value", "b-key", "p-value"]);
    assert_eq!(numbers(store.versions("a-value", false)), [(1, 2), (2, 3)]);
    assert_eq!(store.uses(None, 1, false), [("a-key", 1), ("b-key", 1)]);
    assert_eq!(&*store.schema(None, 1).expect("it is there").text, "\"string\"");
    assert_eq!(&*store.schema(Some(":.lab:any"), 1).expect("each context has its own ids").text, "\"bytes\"");
    let protobuf = store.schema(None, 4).expect("it is there");
    assert_eq!(protobuf.schema_type.as_deref(), Some("PROTOBUF"));
    assert_eq!(protobuf.references.len(), 1);
    assert_eq!((store.level(None), store.effective_level("a-key")), (Some(Level::Full), Level::Full));
    assert_eq!((store.level(Some("a-value")), store.level(Some("a-key"))), (Some(Level::None), None));
    assert_eq!((store.mode(Some("b-key")), store.mode(None)), (Some("READONLY"), None));
    // What it would do next.
    assert_eq!(ledger.plan("a-value", &schema("\"int\"")), Ok(Plan::Registered(SchemaId::new(2))));
    assert_eq!(ledger.plan("b-key", &schema("\"int\"")), Err(Refused::ReadOnly));
    assert_eq!(
        id_of(&ledger.plan("c-value", &schema("\"long\"")).expect("it is planned")),
        3,
        "as under another subject"
    );
    assert_eq!(id_of(&ledger.plan("c-value", &schema("\"double\"")).expect("it is planned")), 5);
}

/// Word for word: the topic is compacted by the key's bytes, and other registries read the value.
#[test]
fn what_is_written_is_the_documented_format() {
    let ledger = ledger(LOG);
    let plan = ledger.plan("c-value", &schema(r#"{"type": "double"}"#)).expect("it is planned");
    let Plan::Write { id, version, key, value } = plan else { panic!("{plan:?}") };
    assert_eq!((id.get(), version), (5, 1));
    assert_eq!(
        String::from_utf8(key).expect("JSON is UTF-8"),
        r#"{"keytype":"SCHEMA","subject":"c-value","version":1,"magic":1}"#
    );
    assert_eq!(
        String::from_utf8(value).expect("JSON is UTF-8"),
        r#"{"subject":"c-value","version":1,"id":5,"schema":"\"double\"","deleted":false}"#
    );
}

#[test]
fn what_is_deleted_softly_is_served_by_its_id_and_comes_back_under_it() {
    let mut ledger = ledger(LOG);
    let delete = r#"{"keytype":"DELETE_SUBJECT","subject":"a-value","magic":0}"#;
    commit(&mut ledger, 20, delete, r#"{"subject":"a-value","version":2}"#);
    let store = ledger.committed();
    assert_eq!(store.versions("a-value", false).count(), 0);
    assert_eq!(numbers(store.versions("a-value", true)), [(1, 2), (2, 3)]);
    assert!(!store.subjects(false).any(|subject| subject == "a-value"));
    assert!(store.schema(None, 2).is_some());
    assert_eq!((store.uses(None, 2, false), store.uses(None, 2, true)), (vec![], vec![("a-value", 1)]));
    let plan = ledger.plan("a-value", &schema("\"int\"")).expect("it is planned");
    assert!(matches!(plan, Plan::Write { id, version: 3, .. } if id.get() == 2), "{plan:?}");
    // One version alone.
    let version = LOG[3];
    commit(&mut ledger, 21, version.0, &version.1.replace("\"deleted\":false", "\"deleted\":true"));
    assert_eq!(ledger.committed().uses(None, 1, false), [("a-key", 1)]);
}

#[test]
fn a_tombstone_removes_a_version_and_its_number_is_not_used_again() {
    let mut ledger = ledger(LOG);
    commit(&mut ledger, 20, LOG[5].0, "");
    assert!(ledger.committed().schema(None, 3).is_none());
    assert_eq!(numbers(ledger.committed().versions("a-value", true)), [(1, 2)]);
    let plan = ledger.plan("a-value", &schema("\"float\"")).expect("it is planned");
    assert!(matches!(plan, Plan::Write { id, version: 3, .. } if id.get() == 5), "{plan:?}");
    // The id goes with its last use only.
    commit(&mut ledger, 21, LOG[2].0, "");
    assert!(ledger.committed().schema(None, 1).is_some());
    commit(&mut ledger, 22, LOG[3].0, "");
    assert!(ledger.committed().schema(None, 1).is_none());
    commit(&mut ledger, 23, r#"{"keytype":"CLEAR_SUBJECT","subject":"a-value","magic":0}"#, r#"{"subject":"a-value"}"#);
    assert_eq!(ledger.committed().versions("a-value", true).count(), 0);
    // A level is taken back by a tombstone, too.
    assert_eq!(ledger.committed().level(Some("a-value")), Some(Level::None));
    commit(&mut ledger, 24, LOG[7].0, "");
    assert_eq!(ledger.committed().level(Some("a-value")), None);
}

#[test]
fn a_kind_from_the_future_is_left_alone_and_noted_once() {
    let mut ledger = ledger(LOG);
    let key = r#"{"keytype":"DEK","subject":"x","magic":0}"#;
    assert_eq!(commit(&mut ledger, 20, key, "{}"), Some(Noted::UnknownKind("DEK".to_owned())));
    assert_eq!(commit(&mut ledger, 21, key, "{}"), None);
    assert!(ledger.plan("new-value", &schema("\"int\"")).is_ok());
}

#[test]
fn beside_what_cannot_be_understood_nothing_is_registered_and_all_that_is_known_is_served() {
    let key = |subject: &str, version: u32| {
        format!(r#"{{"keytype":"SCHEMA","subject":"{subject}","version":{version},"magic":1}}"#)
    };
    let value = r#"{"subject":"x","version":1,"id":9,"schema":"\"int\"","deleted":false}"#;
    let cases: &[(String, &str, &str)] = &[
        ("nonsense".to_owned(), "", "offset 77: its key is no key of a schema registry"),
        (r#"{"magic":0}"#.to_owned(), "", "missing field `keytype`"),
        (r#"{"keytype":"SCHEMA","version":1,"magic":1}"#.to_owned(), "", "it has no subject"),
        (r#"{"keytype":"SCHEMA","subject":"x","magic":1}"#.to_owned(), "", "it has no version"),
        (key("x", 1), "{", "its value is no value of a SCHEMA record"),
        (key("x", 1), r#"{"subject":"x","version":1,"schema":"\"int\""}"#, "missing field `id`"),
        (key("x", 1), r#"{"subject":"x","version":1,"id":-1,"schema":"\"int\""}"#, "invalid value"),
        (key("x", 2), value, "its key and its value name different versions of subject x"),
        (key("y", 1), value, "its key and its value name different versions of subject y"),
        (key("x", 1), &value.replace("\"id\":9", "\"id\":1"), "the id 1 is that of another schema already"),
        (
            r#"{"keytype":"CONFIG","subject":null,"magic":0}"#.to_owned(),
            r#"{"compatibilityLevel":"SOME"}"#,
            "its level is unknown",
        ),
        (r#"{"keytype":"DELETE_SUBJECT","subject":"x","magic":0}"#.to_owned(), "{}", "missing field `version`"),
    ]
    .map(|(key, value, expect)| (key, Box::leak(value.to_owned().into_boxed_str()) as &str, expect));
    for (key, value, expect) in cases {
        let mut ledger = ledger(LOG);
        let noted = commit(&mut ledger, 77, key, value);
        let Some(Noted::Malformed(record)) = noted else { panic!("{key}: {noted:?}") };
        assert!(record.to_string().contains(expect), "{record} does not say {expect:?}");
        assert_eq!(record.offset, 77);
        let refused = ledger.plan("new-value", &schema("\"int\"")).expect_err("nothing is registered");
        assert_eq!(refused, Refused::Malformed(Some(record)));
        assert_eq!(refused.into_error("the topic _schemas", "new-value").action(), Action::Stop);
        assert_eq!(ledger.plan("a-value", &schema("\"int\"")), Ok(Plan::Registered(SchemaId::new(2))), "{key}");
        assert_eq!(&*ledger.committed().schema(None, 1).expect("it is served").text, "\"string\"", "{key}");
        // The way out: whatever it was, it is replaced.
        if key.contains("keytype") && !expect.contains("it has no") {
            commit(&mut ledger, 78, key, "");
            assert!(ledger.plan("new-value", &schema("\"int\"")).is_ok(), "{key}");
        }
    }
    assert_eq!(
        Malformed::IdTaken { id: 1 }.to_string(),
        "the id 1 is that of another schema already",
        "the typed reason says the same"
    );
}

const ID: &str = r#"{"name":"id","type":"int"}"#;

/// Each level with each way a table can change, and the versions that count.
#[test]
fn levels_decide_as_confluent_documents_them() {
    use Level::{Backward, BackwardTransitive, Forward, ForwardTransitive, Full, FullTransitive, None};
    let v1 = record(ID);
    let required = record(&format!(r#"{ID},{{"name":"n","type":"string"}}"#));
    let optional = record(&format!(r#"{ID},{{"name":"n","type":["null","string"],"default":null}}"#));
    let other = record(r#"{"name":"id","type":"string"}"#);
    let all = [None, Backward, BackwardTransitive, Forward, ForwardTransitive, Full, FullTransitive];
    let check = |name: &str, versions: &[&AvroSchema], new: &AvroSchema, accepted: &[Level]| {
        for level in all {
            let mut ledger = Ledger::default();
            for (offset, earlier) in (0..).zip(versions) {
                let mut free = Ledger::default();
                std::mem::swap(&mut free, &mut ledger);
                commit(
                    &mut free,
                    offset,
                    r#"{"keytype":"CONFIG","subject":null,"magic":0}"#,
                    r#"{"compatibilityLevel":"NONE"}"#,
                );
                take(&mut free, offset, SUBJECT, earlier);
                ledger = free;
            }
            let value = format!(r#"{{"compatibilityLevel":"{level}"}}"#);
            commit(&mut ledger, 50, r#"{"keytype":"CONFIG","subject":null,"magic":0}"#, &value);
            let plan = ledger.plan(SUBJECT, new);
            assert_eq!(plan.is_ok(), accepted.contains(&level), "{name} at {level}: {plan:?}");
            if let Err(refused) = plan {
                let error = refused.into_error("the topic _schemas", SUBJECT);
                assert_eq!(error.action(), Action::Incompatible);
                assert_eq!(error.status(), Some(409));
                assert!(error.to_string().contains(&format!("(compatibility level {level})")), "{error}");
            }
        }
    };
    check("the first version", &[], &other, &all);
    check("a new column that can be null", &[&v1], &optional, &all);
    check("a new column that cannot", &[&v1], &required, &[None, Forward, ForwardTransitive]);
    check("a column goes that could be null", &[&optional], &v1, &all);
    check("a column goes that could not", &[&required], &v1, &[None, Backward, BackwardTransitive]);
    check("another type", &[&v1], &other, &[None]);
    // The last version would allow it, the first does not.
    check("a type that comes back", &[&v1, &other], &other, &all);
    let wide = record(r#"{"name":"id","type":"long"}"#);
    let wider = record(r#"{"name":"id","type":"double"}"#);
    check("as the last but not the first", &[&other, &v1], &wide, &[None, Backward]);
    check("wider and wider", &[&v1, &wide], &wider, &[None, Backward, BackwardTransitive]);
}

#[test]
fn the_level_is_backward_unless_something_is_said() {
    let mut ledger = Ledger::default();
    take(&mut ledger, 0, SUBJECT, &record(ID));
    let refused = ledger.plan(SUBJECT, &record(r#"{"name":"id","type":"string"}"#)).expect_err("it is refused");
    assert_eq!(
        refused.into_error("built-in, topic _schemas", SUBJECT).to_string(),
        "schema registry built-in, topic _schemas: registering subject shop.public.orders-value: incompatible with version 1: /id: \
         int cannot be read as string (compatibility level BACKWARD); undo the change of the table, or relax the subject's \
         compatibility level until the new schema is registered: write a CONFIG record for it to the topic, or let a registry that has \
         taken the topic over do it"
    );
}

#[test]
fn what_was_given_up_is_taken_up_again_and_its_id_is_nobody_elses() {
    let mut ledger = ledger(LOG);
    let (double, float) = (schema("\"double\""), schema("\"float\""));
    let plan = ledger.plan("a-value", &double).expect("it is planned");
    let Plan::Write { key, value, .. } = &plan else { panic!("{plan:?}") };
    write(&mut ledger, 20, std::str::from_utf8(key).expect("UTF-8"), std::str::from_utf8(value).expect("UTF-8"));
    assert_eq!(ledger.committed().lookup("a-value", &double, true), None);
    assert_eq!(ledger.plan("a-value", &double), Ok(plan.clone()), "the same record again");
    assert_eq!(id_of(&ledger.plan("other", &double).expect("it is planned")), 5, "the same id under another subject");
    let next = ledger.plan("a-value", &float).expect("it is planned");
    assert!(matches!(next, Plan::Write { id, version: 4, .. } if id.get() == 6), "{next:?}");
    take(&mut ledger, 21, "a-value", &float);
    // The subject has gone on: what was given up keeps its id, and comes behind.
    let again = ledger.plan("a-value", &double).expect("it is planned");
    assert!(matches!(again, Plan::Write { id, version: 5, .. } if id.get() == 5), "{again:?}");
}

/// Registers as a writer does: the record is written and committed.
fn take(ledger: &mut Ledger, offset: i64, subject: &str, schema: &AvroSchema) -> (u32, Option<Record>) {
    let plan = ledger.plan(subject, schema).expect("it is planned");
    match plan {
        Plan::Registered(id) => (id.get(), None),
        Plan::Write { id, key, value, .. } => {
            let record = (String::from_utf8(key).expect("UTF-8"), String::from_utf8(value).expect("UTF-8"));
            assert_eq!(commit(ledger, offset, &record.0, &record.1), None);
            (id.get(), Some(record))
        }
    }
}

fn state(store: &Store) -> Vec<(String, Vec<Version>)> {
    let subjects: Vec<String> = store.subjects(true).map(str::to_owned).collect();
    subjects.into_iter().map(|name| (name.clone(), store.versions(&name, true).cloned().collect())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Any sequence of registrations, some of them given up: no id has two schemas, no schema two ids, and who reads the log, in either
    /// view and after compaction as well, comes to the same state.
    #[test]
    fn the_log_alone_makes_the_state(asks in prop::collection::vec((0..4_u8, 0..12_u8, prop::bool::weighted(0.3)), 0..60)) {
        let mut ledger = Ledger::default();
        let none = (r#"{"keytype":"CONFIG","subject":null,"magic":0}"#.to_owned(), r#"{"compatibilityLevel":"NONE"}"#.to_owned());
        commit(&mut ledger, 0, &none.0, &none.1);
        let mut log: Vec<(Record, bool)> = vec![(none, true)];
        let mut told = std::collections::HashMap::new();
        for (subject, schema, given_up) in asks {
            let (subject, of) = (format!("s{subject}"), record(&format!(r#"{{"name":"f{schema}","type":"int"}}"#)));
            let offset = i64::try_from(log.len()).expect("a short log");
            let plan = ledger.plan(&subject, &of).expect("it is planned");
            if let (Plan::Write { key, value, .. }, true) = (&plan, given_up) {
                let record = (String::from_utf8(key.clone()).expect("UTF-8"), String::from_utf8(value.clone()).expect("UTF-8"));
                write(&mut ledger, offset, &record.0, &record.1);
                log.push((record, false));
                continue;
            }
            let (id, record) = take(&mut ledger, offset, &subject, &of);
            log.extend(record.map(|record| (record, true)));
            prop_assert_eq!(*told.entry(schema).or_insert(id), id, "a schema has one id");
            prop_assert_eq!(ledger.plan(&subject, &of), Ok(Plan::Registered(SchemaId::new(id))));
            prop_assert_eq!(&*ledger.committed().schema(None, id).expect("it is served").text, of.text());
        }
        prop_assert_eq!(ledger.committed().malformed(), None);
        prop_assert_eq!(ledger.written().malformed(), None, "a reader that heeds no transaction finds no contradiction either");
        let mut ids: Vec<u32> = told.values().copied().collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), told.len(), "an id has one schema");

        let mut again = Ledger::default();
        for (offset, ((key, value), committed)) in (0..).zip(&log) {
            if *committed { commit(&mut again, offset, key, value); } else { write(&mut again, offset, key, value); }
        }
        prop_assert_eq!(state(again.committed()), state(ledger.committed()));
        prop_assert_eq!(state(again.written()), state(ledger.written()));

        // Compaction keeps the last committed record of each key, and drops what was given up.
        let mut compacted = Store::default();
        for (offset, ((key, value), committed)) in (0..).zip(&log) {
            let is_last = !log[usize::try_from(offset).expect("it is small") + 1..].iter().any(|(later, is_committed)| *is_committed && later.0 == *key);
            if *committed && is_last {
                compacted.apply(offset, Some(key.as_bytes()), Some(value.as_bytes()));
            }
        }
        prop_assert_eq!(state(&compacted), state(ledger.committed()));
    }

    #[test]
    fn no_record_makes_it_panic(key: Option<Vec<u8>>, value: Option<Vec<u8>>) {
        let mut store = Store::default();
        store.apply(0, key.as_deref(), value.as_deref());
    }

    #[test]
    fn no_text_makes_it_panic(text in "[\\[\\]{}\",:a-z \\\\]{0,60}") {
        let _ = AvroSchema::parse(&text);
    }
}
