//! A consumer group goes on from a point, if nobody is in it and somebody has said yes.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use super::{ended, records, replay};
use crate::harness::wait_until;

#[test]
fn a_group_is_reset_when_it_is_said_twice() {
    let stream = ended("replay_group", &[]);
    let (topic, group) = (stream.topic("item"), format!("group-of-{}", stream.name));
    let member = || -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", &stream.bootstrap_servers)
            .set("group.id", &group)
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer")
    };
    let partitions = || {
        let mut partitions = TopicPartitionList::new();
        for partition in 0..3 {
            partitions.add_partition(&topic, partition);
        }
        partitions
    };
    let committed = || -> Vec<Offset> {
        let found = member().committed_offsets(partitions(), Duration::from_secs(30)).expect("offsets");
        found.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::offset).collect()
    };
    let mut far = TopicPartitionList::new();
    for partition in 0..3 {
        far.add_partition_offset(&topic, partition, Offset::Offset(9)).expect("an offset");
    }
    member().commit(&far, CommitMode::Sync).expect("it is committed");

    // The middle of what was committed in PostgreSQL.
    let records = records(&stream);
    let mut commits: Vec<u64> = records.values().flatten().filter_map(super::commit_lsn).collect();
    commits.sort_unstable();
    let lsn = commits[commits.len() / 2];
    let first = |partition: i32| {
        let found =
            records[&partition].iter().find(|record| super::commit_lsn(record).is_some_and(|commit| commit >= lsn));
        found.expect("each partition has one").offset
    };
    let text = pgoutput::Lsn::from(lsn).to_string();
    let arguments = [topic.as_str(), "--from-lsn", &text, "--reset-group", &group];
    let (table, said) = replay(&stream, &arguments, 0);
    assert!(said.contains("nothing was changed"), "{said}");
    for partition in 0..3 {
        let wanted = [topic.clone(), partition.to_string(), "9".to_owned(), first(partition).to_string()];
        assert!(
            table.lines().any(|line| line.split_whitespace().take(4).eq(wanted.iter().map(String::as_str))),
            "{table}"
        );
    }
    assert_eq!(committed(), [Offset::Offset(9); 3]);

    let consumer = member();
    consumer.subscribe(&[&topic]).expect("it subscribes");
    wait_until(Duration::from_mins(1), "it is a member", || {
        consumer.poll(Duration::from_millis(100));
        (consumer.assignment().expect("an assignment").count() == 3).then_some(())
    });
    for more in [&[][..], &["--yes"]] {
        let (_, said) = replay(&stream, &[&arguments[..], more].concat(), 3);
        assert!(said.contains("[group-active]") && said.contains("has members: rdkafka"), "{said}");
    }
    drop(consumer);
    assert_eq!(committed(), [Offset::Offset(9); 3]);

    replay(&stream, &[&arguments[..], &["--yes"]].concat(), 0);
    assert_eq!(committed(), [0, 1, 2].map(|partition| Offset::Offset(first(partition))));
    replay(&stream, &[topic.as_str(), "--from-beginning", "--reset-group", &group, "--yes"], 0);
    assert_eq!(committed(), [Offset::Offset(0); 3]);
    replay(&stream, &[topic.as_str(), "--from-end", "--partition", "1", "--reset-group", &group, "--yes"], 0);
    assert!(
        matches!(committed()[..], [Offset::Offset(0), Offset::Offset(10..), Offset::Offset(0)]),
        "{:?}",
        committed()
    );
}
