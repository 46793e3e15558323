//! The Avro library for Java as the oracle, which Confluent's registry is built on: what it prints, and what it takes for compatible.
//!
//! `java_texts.jsonl` holds texts, some of them Debezium's schemas with their attributes shuffled, and what `Schema.toString()` of
//! Avro 1.11.4 makes of each. `java_compatibility.jsonl` holds schemas, and for each as the reader which of all of them
//! `SchemaCompatibility` finds it can read, in their order.

use registry::store::{AvroSchema, Definition, Level, Version, why_incompatible};
use serde::Deserialize;

fn lines<T: for<'a> Deserialize<'a>>(text: &str) -> Vec<T> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[test]
fn texts_are_those_of_the_java_library() {
    #[derive(Deserialize)]
    struct Case {
        text: String,
        java: String,
    }
    let cases: Vec<Case> = lines(include_str!("java_texts.jsonl"));
    assert!(cases.len() > 20);
    for Case { text, java } in cases {
        let schema = AvroSchema::parse(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(schema.text(), java, "{text}");
    }
}

#[test]
fn verdicts_are_those_of_the_java_library() {
    #[derive(Deserialize)]
    struct Case {
        schema: String,
        reads: String,
    }
    let cases: Vec<Case> = lines(include_str!("java_compatibility.jsonl"));
    let schemas: Vec<AvroSchema> =
        cases.iter().map(|case| AvroSchema::parse(&case.schema).expect("it is a schema")).collect();
    let mut compared = 0;
    for (reader, case) in schemas.iter().zip(&cases) {
        assert_eq!(case.reads.len(), cases.len());
        for (writer, verdict) in cases.iter().zip(case.reads.chars()) {
            let version = Version {
                number: 1,
                id: 1,
                deleted: false,
                definition: std::sync::Arc::new(Definition::avro(&writer.schema)),
            };
            let reasons = why_incompatible(Level::Backward, reader, [&version].into_iter());
            assert_eq!(reasons.is_empty(), verdict == '1', "{} reads {}: {reasons:?}", case.schema, writer.schema);
            compared += 1;
        }
    }
    assert!(compared > 1_500, "{compared}");
}
