//! What is attached to a checkpoint, on a real Kafka: committed with it or not at all, and before it.

#[expect(dead_code, reason = "shared with the end-to-end tests, which end servers as well")]
#[path = "end_to_end/harness/stack.rs"]
mod stack;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use publisher::{
    Attachment, Checkpoint, CheckpointTopic, FORMAT_VERSION, Held, Isolation, KafkaSettings, LogReader, MemoryBudget,
    Producer, PublishError, TopicAdmin, Verdict,
};
use stack::{Lease, Stack};

/// A checkpoint topic of its own, and a stream that writes to it.
struct Case {
    settings: KafkaSettings,
    topic: CheckpointTopic,
    budget: Arc<MemoryBudget>,
    runtime: tokio::runtime::Runtime,
    _lease: Lease,
}

impl Case {
    fn new(label: &str) -> Self {
        let lease = Stack::shared();
        let settings = KafkaSettings {
            bootstrap_servers: lease.bootstrap_servers().to_owned(),
            name: format!("{label}_{}", std::process::id()),
            properties: BTreeMap::new(),
            memory_limit_bytes: 64 << 20,
            token_file: None,
            observer: publisher::ErrorObserver::default(),
        };
        let case = Self {
            topic: CheckpointTopic::new(format!("__checkpoints_{}", settings.name)),
            settings,
            // Far less than an attachment may have: the commit must not wait for room.
            budget: Arc::new(MemoryBudget::new(1)),
            runtime: tokio::runtime::Runtime::new().expect("a runtime"),
            _lease: lease,
        };
        let admin = TopicAdmin::new(&case.settings, case.runtime.handle().clone()).expect("a client");
        case.topic.ensure(&admin, 1).expect("a topic");
        case
    }

    fn producer(&self) -> Producer {
        Producer::connect(&self.settings, Arc::clone(&self.budget)).expect("a producer")
    }

    fn checkpoint(&self, end_lsn: u64) -> Checkpoint {
        Checkpoint {
            version: FORMAT_VERSION,
            name: self.settings.name.clone(),
            instance: "a".into(),
            system_identifier: 7,
            timeline: 1,
            database: "app".into(),
            slot: "shop".into(),
            publication: "shop".into(),
            end_lsn: end_lsn.into(),
            split: None,
            forced: false,
            slot_pending: false,
            written_at_ms: 0,
        }
    }

    fn commit(&self, producer: Producer, end_lsn: u64, attachments: &[Attachment]) -> Producer {
        let transaction = producer.begin().expect("a transaction");
        let prepared = transaction.prepare(self.topic.name(), &self.checkpoint(end_lsn), attachments);
        prepared.expect("it is written").commit().expect("it commits")
    }

    fn read(&self) -> Held {
        self.topic.read(&self.settings).expect("it is readable")
    }

    /// The keys behind the stream's name, in the log's order, and whether each has a value.
    fn keys(&self) -> Vec<(String, bool)> {
        let mut reader = LogReader::new(&self.settings, self.topic.name(), Isolation::Committed);
        let mut keys = Vec::new();
        let visit = |_, key: Option<&[u8]>, value: Option<&[u8]>| {
            let key = std::str::from_utf8(key.expect("a key")).expect("text");
            let suffix = key.strip_prefix(self.settings.name.as_str()).expect("a key of this stream");
            keys.push((suffix.to_owned(), value.is_some()));
        };
        reader.read_on(0, Duration::from_secs(20), visit).expect("the end is reached");
        keys
    }
}

fn put(suffix: &str, value: &str) -> Attachment {
    Attachment { suffix: suffix.into(), value: Some(value.into()) }
}

fn attachments(held: &Held) -> Vec<(&str, &str)> {
    let text = |value| std::str::from_utf8(value).expect("text");
    held.attachments.iter().map(|(suffix, value)| (suffix.as_str(), text(value.as_slice()))).collect()
}

#[test]
fn they_are_committed_with_the_checkpoint_and_before_it() {
    let case = Case::new("attached");
    let producer = case.commit(case.producer(), 10, &[put("a", "1"), put("b", "2")]);
    let producer = case.commit(producer, 20, &[]);
    let producer = case.commit(producer, 30, &[put("a", "3"), Attachment::removal("b")]);
    let held = case.read();
    assert_eq!(held.checkpoint, Some(case.checkpoint(30)));
    assert_eq!(attachments(&held), [("a", "3")]);
    let expect = [("/a", true), ("/b", true), ("", true), ("", true), ("/a", true), ("/b", false), ("", true)];
    assert_eq!(case.keys(), expect.map(|(key, has_value)| (key.to_owned(), has_value)));

    // What is written and not committed is not there, and the next producer has ended it.
    let transaction = producer.begin().expect("a transaction");
    let prepared = transaction.prepare(case.topic.name(), &case.checkpoint(40), &[put("a", "4"), put("c", "5")]);
    drop(prepared.expect("it is written"));
    let producer = case.producer();
    assert_eq!(case.read(), held);
    assert_eq!(case.budget.used_bytes(), 0, "what was charged was given back");
    drop(producer);
}

#[test]
fn one_that_is_too_large_is_refused_and_nothing_is_committed() {
    let case = Case::new("large");
    let largest = "x".repeat(Attachment::VALUE_LEN_MAX_BYTES);
    let producer = case.commit(case.producer(), 10, &[put("a", &largest)]);
    let transaction = producer.begin().expect("a transaction");
    let attachments = [put("b", "1"), put("a", &(largest.clone() + "x"))];
    let Err(error) = transaction.prepare(case.topic.name(), &case.checkpoint(20), &attachments) else {
        panic!("it is refused")
    };
    assert!(matches!(error, PublishError::AttachmentTooLarge { .. }), "{error}");
    assert_eq!(error.verdict(), Verdict::Stop);
    let producer = case.producer();
    let held = case.read();
    assert_eq!(held.checkpoint, Some(case.checkpoint(10)));
    assert_eq!(held.attachments.into_iter().collect::<Vec<_>>(), [("a".to_owned(), largest.into_bytes())]);
    drop(producer);
}
