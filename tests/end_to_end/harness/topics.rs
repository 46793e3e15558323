//! What an operator does to topics.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
};
use tokio::runtime::Runtime;

use super::wait_until;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// An administrative client.
pub(crate) struct Topics {
    client: AdminClient<DefaultClientContext>,
    runtime: Runtime,
}

impl Topics {
    /// A client of these brokers.
    pub(crate) fn of(bootstrap_servers: &str) -> Self {
        let client = ClientConfig::new().set("bootstrap.servers", bootstrap_servers).create().expect("a client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { client, runtime }
    }

    /// Creates a topic with as many partitions as the program would.
    pub(crate) fn create(&self, topic: &str) {
        self.create_with(topic, 3, &[]);
    }

    /// Creates a topic of so many partitions, with this configuration.
    pub(crate) fn create_with(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let new = config.iter().fold(new, |new, (key, value)| new.set(key, value));
        let created = self.runtime.block_on(self.client.create_topics([&new], &options())).expect("the broker answers");
        for outcome in created {
            outcome.expect("it is created");
        }
        self.await_existence(topic, true);
    }

    /// Deletes a topic.
    pub(crate) fn delete(&self, topic: &str) {
        let deleted =
            self.runtime.block_on(self.client.delete_topics(&[topic], &options())).expect("the broker answers");
        for outcome in deleted {
            outcome.expect("it is deleted");
        }
        self.await_existence(topic, false);
    }

    /// Removes all records of a topic of one partition, as its retention would.
    pub(crate) fn empty(&self, topic: &str) {
        self.remove(topic, Offset::End);
    }

    /// Removes the records before an offset of a topic of one partition.
    pub(crate) fn empty_before(&self, topic: &str, offset: i64) {
        self.remove(topic, Offset::Offset(offset));
    }

    fn remove(&self, topic: &str, before: Offset) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, 0, before).expect("an offset");
        self.runtime.block_on(self.client.delete_records(&offsets, &options())).expect("they are removed");
    }

    /// Sets a topic's only configuration key: all others go back to the broker's defaults.
    pub(crate) fn configure(&self, topic: &str, key: &str, value: &str) {
        let config = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
        let altered =
            self.runtime.block_on(self.client.alter_configs([&config], &options())).expect("the broker answers");
        for outcome in altered {
            outcome.expect("it is configured");
        }
    }

    /// The value of a topic's configuration key.
    pub(crate) fn config(&self, topic: &str, key: &str) -> Option<String> {
        let (specifier, options) = (ResourceSpecifier::Topic(topic), options());
        let described = self.client.describe_configs([&specifier], &options);
        let described = self.runtime.block_on(described).expect("the broker answers").pop().expect("one answer");
        described.expect("it exists").get(key).and_then(|entry| entry.value.clone())
    }

    fn await_existence(&self, topic: &str, expected: bool) {
        wait_until(REQUEST_TIMEOUT, "the topic is as it should be", || {
            let metadata = self.client.inner().fetch_metadata(None, REQUEST_TIMEOUT).ok()?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let led = found.is_some_and(|found| found.partitions().iter().all(|partition| partition.leader() >= 0));
            let is_there = found.is_some_and(|found| found.error().is_none());
            if expected { led && is_there } else { !is_there }.then_some(())
        });
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}
