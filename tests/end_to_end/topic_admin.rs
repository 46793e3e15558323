//! What is asked about topics: of those that are named, and of no others, with as few requests as there can be.

use std::collections::BTreeMap;

use publisher::{KafkaSettings, TopicAdmin, TopicSettings};

use crate::harness::stack::Stack;

#[test]
fn topics_are_asked_about_by_their_names() {
    let stack = Stack::shared();
    let settings = KafkaSettings {
        bootstrap_servers: stack.bootstrap_servers().to_owned(),
        token_file: None,
        observer: publisher::ErrorObserver::default(),
        name: format!("topic_admin_{}", std::process::id()),
        properties: BTreeMap::new(),
        memory_limit_bytes: 64 << 20,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let admin = TopicAdmin::new(&settings, runtime.handle().clone()).expect("a client");
    let topic = |number: i32| format!("{}-{number}", settings.name);
    // More than are asked about with one request.
    let numbers = || 1..=60;
    let wanted = |number: i32| TopicSettings {
        partitions: 1 + number / 60,
        replication_factor: 1,
        config: BTreeMap::from([("retention.ms".to_owned(), format!("{}", 1_000_000 + number))]),
    };
    let named: Vec<(String, TopicSettings)> = numbers().map(|number| (topic(number), wanted(number))).collect();
    let new: Vec<_> = named.iter().map(|(name, settings)| (name.as_str(), settings)).collect();
    for created in admin.create_all(&new).expect("the brokers answer") {
        assert!(created.expect("it is created"));
    }

    // Neither in the order in which they were created nor in that of their names.
    let asked: Vec<&str> = named.iter().rev().map(|(name, _)| name.as_str()).collect();
    let found = admin.configs(&asked).expect("the brokers answer");
    let found: Vec<_> = found.iter().map(|config| config["retention.ms"].clone()).collect();
    let expected: Vec<_> = numbers().rev().map(|number| format!("{}", 1_000_000 + number)).collect();
    assert_eq!(found, expected);
    let missing = topic(0);
    let found = admin.configs(&[&missing, asked[0]]).expect("the brokers answer");
    assert_eq!(
        found.iter().map(|config| config.get("retention.ms").map(String::as_str)).collect::<Vec<_>>(),
        [None, Some("1000060")]
    );

    assert_eq!([1, 60].map(|number| admin.partitions(&topic(number)).expect("an answer")), [Some(1), Some(2)]);
    assert_eq!(admin.partitions(&missing).expect("an answer"), None);
    let all = admin.partitions_by_topic().expect("the brokers answer");
    assert!(!all.contains_key(&missing), "it was asked for, and not created");
    assert_eq!(all.get(&topic(7)), Some(&1));
}
