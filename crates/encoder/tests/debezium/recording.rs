//! Debezium's records beside ours, and how they may differ: only in what a list names, and each of its entries must occur.

#![allow(dead_code, clippy::unwrap_used)] // Each test uses its own part.

use std::collections::BTreeMap;

use serde_json::Value;

/// One record, decoded, with its schemas.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) key_schema: Option<Value>,
    pub(crate) key: Value,
    pub(crate) value_schema: Option<Value>,
    /// The envelope; null in a tombstone.
    pub(crate) value: Value,
    pub(crate) headers: Vec<(String, String)>,
}

/// The records of each topic, in their order.
pub(crate) type Topics = BTreeMap<String, Vec<Record>>;

/// A difference that is meant, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permitted {
    /// How the topics' names end; all topics if nothing.
    pub(crate) topic: &'static str,
    pub(crate) what: Difference,
    pub(crate) because: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    /// Debezium has such a topic.
    Topic,
    /// Here are records with this operation, and Debezium has none of it.
    Operation(&'static str),
    /// Debezium's event is of its snapshot, and here it is one of the stream.
    Snapshot,
    /// Debezium's envelope and ours have another value at this pointer, of the same kind.
    Run(&'static str),
    /// The same, and where one of both is the same in two records, so is the other.
    Renamed(&'static str),
    /// Debezium's row has no such field.
    OursAlone(&'static str),
    /// Debezium's row has such a field in its snapshot, and ours has not.
    SnapshotsAlone(&'static str),
    /// The field has another type, and so another value.
    Type(&'static str),
    /// Debezium's key and ours have another value at this pointer, of the same kind.
    Key(&'static str),
    /// At this pointer Debezium has a value, and here is null.
    Absent(&'static str),
    /// At this pointer Debezium has the first value, and here is the second.
    Instead(&'static str, &'static str, &'static str),
    /// The field is the same, and Debezium's value is this.
    Value(&'static str, &'static str),
}

const fn run(what: Difference, because: &'static str) -> Permitted {
    Permitted { topic: "", what, because }
}

/// What differs from run to run.
pub(crate) const RUNS: [Permitted; 11] = [
    run(Difference::Run("/ts_ms"), "a clock"),
    run(Difference::Run("/ts_us"), "a clock"),
    run(Difference::Run("/ts_ns"), "a clock"),
    run(Difference::Run("/source/ts_ms"), "the server's clock"),
    run(Difference::Run("/source/ts_us"), "the server's clock"),
    run(Difference::Run("/source/ts_ns"), "the server's clock"),
    run(Difference::Run("/source/version"), "who wrote it"),
    run(Difference::Renamed("/source/txId"), "the server's count of its transactions"),
    run(Difference::Run("/source/lsn"), "where the server's log was"),
    run(Difference::Run("/source/sequence"), "where the server's log was"),
    run(
        Difference::Run("/transaction/id"),
        "where the server's log was; and Debezium's id is another for each event of a transaction, where ours names its commit",
    ),
];

const fn left_out(column: &'static str) -> Permitted {
    let because = "Debezium leaves the column out, since it does not know the type; here it is PostgreSQL's text";
    Permitted { topic: ".scalars", what: Difference::OursAlone(column), because }
}

/// What is not the same in rows.
pub(crate) const COLUMNS: [Permitted; 13] = [
    left_out("ln"),
    left_out("ls"),
    left_out("bx"),
    left_out("pth"),
    left_out("pol"),
    left_out("cir"),
    left_out("mr"),
    left_out("lsn"),
    left_out("tsq"),
    left_out("addr"),
    Permitted {
        topic: ".scalars",
        what: Difference::Value("nm", "null"),
        because: "while streaming, Debezium loses values of type name",
    },
    Permitted {
        topic: ".scalars",
        what: Difference::Value("ts", "-9223372036853775810"),
        because: "294276-12-31 does not fit; Debezium wrote a number that had wrapped around, and here it is an error",
    },
    Permitted {
        topic: ".arrays",
        what: Difference::Type("a2"),
        because: "Debezium writes nulls for the elements of an array of two dimensions; here the column is PostgreSQL's text",
    },
];

/// What is not the same in rows that Debezium found in the tables.
pub(crate) const SNAPSHOT_ROWS: [Permitted; 4] = [
    Permitted {
        topic: ".gen",
        what: Difference::SnapshotsAlone("twice"),
        because: "Debezium's snapshot reads stored generated columns, which its stream, and so ours, does not have",
    },
    Permitted {
        topic: ".scalars",
        what: Difference::Value("d", "-622191234"),
        because: "Debezium's snapshot has another number for the date infinity than its stream, and so ours",
    },
    Permitted {
        topic: ".scalars",
        what: Difference::Value("d", "-703383"),
        because: "Debezium's snapshot takes a date before Christ for one after, as its stream, and so ours, does not",
    },
    Permitted {
        topic: ".public.parts",
        what: Difference::Topic,
        because: "Debezium's snapshot doubles the rows of a partitioned table into a topic of the root, where no change ever follows",
    },
];

/// What Debezium wrote, of one of the recordings.
pub(crate) fn debezium(records: &str) -> Topics {
    let schemas: BTreeMap<u64, Value> = lines(include_str!("schemas.jsonl"))
        .map(|line| (line["id"].as_u64().unwrap(), line["schema"].clone()))
        .collect();
    let schema = |part: &Value| part["schema_id"].as_u64().map(|id| schemas[&id].clone());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let mut topics = Topics::new();
    for line in lines(records) {
        let headers = line["headers"].as_array().unwrap();
        topics.entry(text(&line["topic"])).or_default().push(Record {
            key_schema: schema(&line["key"]),
            key: line["key"]["data"].clone(),
            value_schema: schema(&line["value"]),
            value: line["value"]["data"].clone(),
            headers: headers.iter().map(|header| (text(&header[0]), text(&header[1]))).collect(),
        });
    }
    topics
}

/// The values of a file that has one in each line.
pub(crate) fn lines(file: &str) -> impl Iterator<Item = Value> {
    file.lines().map(|line| serde_json::from_str(line).unwrap())
}

/// Fails unless every record is what Debezium wrote, but for what is permitted, all of which must occur.
pub(crate) fn compare(mut expected: Topics, mut found: Topics, permitted: &[Permitted]) {
    let mut occurred = vec![false; permitted.len()];
    for (permitted, occurred) in permitted.iter().zip(&mut occurred) {
        *occurred |= permitted.apply_to_topics(&mut expected, &mut found);
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let mut names = Names::default();
    for (topic, expected) in expected {
        let found = found.remove(&topic).unwrap();
        assert_eq!(found.len(), expected.len(), "records in {topic}");
        for (position, (mut expected, mut found)) in expected.into_iter().zip(found).enumerate() {
            let place = format!("{topic}, record {position}");
            for (permitted, occurred) in permitted.iter().zip(&mut occurred) {
                if topic.ends_with(permitted.topic) {
                    *occurred |= permitted.apply(&mut expected, &mut found, &mut names, &place);
                }
            }
            // As text, since the order of fields counts.
            let text = |schema: &Option<Value>| schema.as_ref().map(Value::to_string);
            assert_eq!(text(&found.key_schema), text(&expected.key_schema), "{place}");
            assert_eq!(found.key, expected.key, "{place}");
            assert_eq!(found.headers, expected.headers, "{place}");
            assert_eq!(text(&found.value_schema), text(&expected.value_schema), "{place}");
            assert_eq!(found.value, expected.value, "{place}");
        }
    }
    for (permitted, occurred) in permitted.iter().zip(occurred) {
        let Permitted { topic, what, because } = permitted;
        assert!(
            occurred,
            "this does not differ any more, and has to be taken from the list: {topic} {what:?}: {because}"
        );
    }
}

/// What each of Debezium's values is called here, and the other way round, by pointer.
#[derive(Default)]
struct Names {
    ours: BTreeMap<(&'static str, String), String>,
    theirs: BTreeMap<(&'static str, String), String>,
}

impl Permitted {
    /// Takes whole topics and records out, and returns whether there were any.
    fn apply_to_topics(&self, expected: &mut Topics, found: &mut Topics) -> bool {
        match self.what {
            Difference::Topic => {
                let count = expected.len();
                expected.retain(|topic, _| !topic.ends_with(self.topic) || found.contains_key(topic));
                expected.len() != count
            }
            Difference::Operation(operation) => {
                let is_it = |record: &Record| record.value["op"] == operation;
                let topics = expected.iter().filter(|(topic, _)| topic.ends_with(self.topic));
                assert!(
                    topics.flat_map(|(_, records)| records).all(|record| !is_it(record)),
                    "Debezium has {operation} too"
                );
                let mut occurred = false;
                for (_, records) in found.iter_mut().filter(|(topic, _)| topic.ends_with(self.topic)) {
                    let count = records.len();
                    records.retain(|record| !is_it(record));
                    occurred |= records.len() != count;
                }
                occurred
            }
            _ => false,
        }
    }

    /// Takes what may differ out of both, and returns whether it did differ.
    fn apply(&self, expected: &mut Record, found: &mut Record, names: &mut Names, place: &str) -> bool {
        match self.what {
            Difference::Topic | Difference::Operation(_) => false,
            Difference::Snapshot => {
                if expected.value["op"] != "r" {
                    return false;
                }
                assert_eq!(found.value["op"], "c", "{place}");
                assert!(expected.value["transaction"].is_null() && found.value["transaction"].is_object(), "{place}");
                assert_ne!(expected.value["source"]["snapshot"], found.value["source"]["snapshot"], "{place}");
                for pointer in ["/op", "/transaction", "/source/snapshot", "/source/txId"] {
                    *expected.value.pointer_mut(pointer).unwrap() = found.value.pointer(pointer).unwrap().clone();
                }
                true
            }
            Difference::Run(pointer) | Difference::Renamed(pointer) => {
                // A tombstone has none.
                let (Some(theirs), Some(ours)) = (expected.value.pointer_mut(pointer), found.value.pointer(pointer))
                else {
                    return false;
                };
                assert_eq!(std::mem::discriminant(theirs), std::mem::discriminant(ours), "{place}: {pointer}");
                if theirs == ours {
                    return false;
                }
                if let Difference::Renamed(_) = self.what {
                    let (their_name, our_name) = (theirs.to_string(), ours.to_string());
                    let known = names.ours.entry((pointer, their_name.clone())).or_insert_with(|| our_name.clone());
                    assert_eq!(*known, our_name, "{place}: {pointer}, which is {their_name} in Debezium's");
                    let known = names.theirs.entry((pointer, our_name.clone())).or_insert_with(|| their_name.clone());
                    assert_eq!(*known, their_name, "{place}: {pointer}, which is {our_name} here");
                }
                *theirs = ours.clone();
                true
            }
            Difference::Key(pointer) => {
                let (Some(theirs), Some(ours)) = (expected.key.pointer_mut(pointer), found.key.pointer(pointer)) else {
                    return false;
                };
                assert_eq!(std::mem::discriminant(theirs), std::mem::discriminant(ours), "{place}: {pointer}");
                let differed = theirs != ours;
                *theirs = ours.clone();
                differed
            }
            Difference::Absent(pointer) => {
                let (Some(theirs), Some(ours)) = (expected.value.pointer_mut(pointer), found.value.pointer(pointer))
                else {
                    return false;
                };
                assert!(ours.is_null(), "{place}: {pointer}");
                !std::mem::take(theirs).is_null()
            }
            Difference::Instead(pointer, debeziums, here) => {
                let parsed = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
                let (Some(theirs), Some(ours)) = (expected.value.pointer_mut(pointer), found.value.pointer(pointer))
                else {
                    return false;
                };
                let differs = *theirs == parsed(debeziums) && *ours == parsed(here);
                if differs {
                    *theirs = ours.clone();
                }
                differs
            }
            Difference::OursAlone(column) => {
                let (theirs, ours) = (take_column(expected, column), take_column(found, column));
                assert!(theirs.is_none() && ours.is_some() == found.value_schema.is_some(), "{place}: {column}");
                ours.is_some()
            }
            Difference::SnapshotsAlone(column) => {
                let theirs = take_column(expected, column);
                assert!(field(&mut found.value_schema, column).is_none(), "{place}: {column}");
                theirs.is_some()
            }
            Difference::Type(column) => {
                let (theirs, ours) = (take_column(expected, column), take_column(found, column));
                assert!(theirs.is_some() == ours.is_some(), "{place}: {column}");
                theirs != ours
            }
            Difference::Value(column, debeziums) => {
                let debeziums: Value = serde_json::from_str(debeziums).unwrap();
                let mut differed = false;
                for part in ["before", "after"] {
                    let pointer = format!("/{part}/{column}");
                    let (Some(theirs), Some(ours)) =
                        (expected.value.pointer_mut(&pointer), found.value.pointer(&pointer))
                    else {
                        continue;
                    };
                    if *theirs == debeziums && theirs != ours {
                        differed = true;
                        *theirs = ours.clone();
                    }
                }
                differed
            }
        }
    }
}

/// Takes a column out of the schema of rows and out of both rows, and returns what its schema was.
fn take_column(record: &mut Record, column: &str) -> Option<Value> {
    for part in ["before", "after"] {
        if let Some(Value::Object(row)) = record.value.get_mut(part) {
            row.shift_remove(column);
        }
    }
    let (fields, position) = field(&mut record.value_schema, column)?;
    Some(fields.remove(position))
}

fn field<'a>(schema: &'a mut Option<Value>, column: &str) -> Option<(&'a mut Vec<Value>, usize)> {
    let fields = schema.as_mut()?["fields"][0]["type"][1]["fields"].as_array_mut().unwrap();
    let position = fields.iter().position(|field| field["name"] == column)?;
    Some((fields, position))
}
