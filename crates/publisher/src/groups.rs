//! The offsets of a consumer group, seen and set from outside of it.
//!
//! They are set as a consumer without a subscription sets them, in no generation: brokers take that only while the group has no member, and check it in the
//! moment in which they write. So a member that joins between a look and the change is never overruled.

use std::time::Duration;

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    error::KafkaError,
    groups::GroupInfo,
    types::RDKafkaErrorCode as Code,
};

use crate::{
    error::{PublishError, code_of},
    log_reader::Isolation,
    reader::Reader,
    settings::KafkaSettings,
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// A consumer group, by its name.
pub struct ConsumerGroup {
    name: String,
    consumer: Reader,
}

/// A partition's offset in a group: that of the next record to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOffset {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// None if the group has none.
    pub offset: Option<i64>,
}

impl ConsumerGroup {
    /// The group of this name. Nothing is asked yet.
    ///
    /// # Errors
    /// librdkafka refuses a property.
    pub fn connect(settings: &KafkaSettings, name: &str) -> Result<Self, PublishError> {
        let mut config = settings.consumer(Isolation::Committed.level());
        config.set("group.id", name);
        let consumer = settings.reader(&config, "creating a consumer")?;
        Ok(Self { name: name.to_owned(), consumer })
    }

    /// Who is in it, as far as it can be told: of groups with the newer protocol (KIP-848) librdkafka tells none. That they are there shows when
    /// their offsets are [set](Self::set).
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it.
    pub fn members(&self) -> Result<Vec<String>, PublishError> {
        let groups = self.consumer.fetch_group_list(Some(&self.name), REQUEST_TIMEOUT);
        let groups = groups.map_err(PublishError::kafka("asking for a group's members"))?;
        let members = groups.groups().iter().filter(|group| group.name() == self.name).flat_map(GroupInfo::members);
        Ok(members.map(|member| format!("{} at {}", member.client_id(), member.client_host())).collect())
    }

    /// The offsets that it has in these partitions.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it.
    pub fn offsets(&self, partitions: &[(String, i32)]) -> Result<Vec<GroupOffset>, PublishError> {
        let failed = || PublishError::kafka("asking for a group's offsets");
        let mut wanted = TopicPartitionList::new();
        for (topic, partition) in partitions {
            wanted.add_partition(topic, *partition);
        }
        let found = self.consumer.committed_offsets(wanted, REQUEST_TIMEOUT).map_err(failed())?;
        partitions
            .iter()
            .map(|(topic, partition)| {
                let found = found.find_partition(topic, *partition);
                let found = found.ok_or(KafkaError::OffsetFetch(Code::UnknownPartition)).map_err(failed())?;
                found.error().map_err(failed())?;
                let offset = match found.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                };
                Ok(GroupOffset { topic: topic.clone(), partition: *partition, offset })
            })
            .collect()
    }

    /// Sets offsets. `Ok(false)` says that the group has members, and that nothing was changed.
    ///
    /// librdkafka calls a commit a success if brokers have taken any partition's offset: so they are asked for again, and compared.
    ///
    /// # Errors
    /// The brokers cannot be reached, or deny it, or have not taken the offsets of all partitions, which are named.
    pub fn set(&self, offsets: &[(String, i32, i64)]) -> Result<bool, PublishError> {
        let failed = || PublishError::kafka("setting a group's offsets");
        let mut wanted = TopicPartitionList::new();
        for (topic, partition, offset) in offsets {
            wanted.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(failed())?;
        }
        match self.consumer.commit(&wanted, CommitMode::Sync) {
            Ok(()) => self.confirm(offsets).map(|()| true),
            Err(error) if code_of(&error).is_some_and(has_members) => Ok(false),
            Err(error) => Err(failed()(error)),
        }
    }

    fn confirm(&self, offsets: &[(String, i32, i64)]) -> Result<(), PublishError> {
        let partitions: Vec<_> = offsets.iter().map(|(topic, partition, _)| (topic.clone(), *partition)).collect();
        let Some(differing) = differing(offsets, &self.offsets(&partitions)?) else { return Ok(()) };
        let set = if differing.is_all { "none" } else { "only some" };
        Err(PublishError::Kafka {
            doing: "setting a group's offsets",
            error: KafkaError::ConsumerCommit(Code::Fail),
            reason: Some(format!("{set} of the group {} were set: {}", self.name, differing.partitions)),
        })
    }
}

struct Differing {
    is_all: bool,
    /// In words.
    partitions: String,
}

/// What a group has otherwise than it was set; none if nothing.
fn differing(wanted: &[(String, i32, i64)], found: &[GroupOffset]) -> Option<Differing> {
    let differs = |(topic, partition, offset): &&(String, i32, i64)| {
        let found = found.iter().find(|found| found.topic == *topic && found.partition == *partition);
        found.and_then(|found| found.offset) != Some(*offset)
    };
    let differing: Vec<_> = wanted.iter().filter(differs).collect();
    if differing.is_empty() {
        return None;
    }
    let word = |(topic, partition, offset): &&(String, i32, i64)| {
        let found = found.iter().find(|found| found.topic == *topic && found.partition == *partition);
        let has = found.and_then(|found| found.offset).map_or_else(|| "none".to_owned(), |offset| offset.to_string());
        format!("{topic} partition {partition} has {has} and not {offset}")
    };
    let words: Vec<_> = differing.iter().map(word).collect();
    Some(Differing { is_all: differing.len() == wanted.len(), partitions: words.join(", ") })
}

/// Whether this is what brokers answer who is no member of a group that has some.
const fn has_members(code: Code) -> bool {
    matches!(code, Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress | Code::StaleMemberEpoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_that_were_not_set_are_named() {
        let wanted = [("a".to_owned(), 0, 7), ("a".to_owned(), 1, 9), ("b".to_owned(), 0, 0)];
        let found = |offsets: [Option<i64>; 3]| -> Vec<_> {
            let found = wanted.iter().zip(offsets);
            found
                .map(|((topic, partition, _), offset)| GroupOffset {
                    topic: topic.clone(),
                    partition: *partition,
                    offset,
                })
                .collect()
        };
        assert!(differing(&wanted, &found([Some(7), Some(9), Some(0)])).is_none());
        let some = differing(&wanted, &found([Some(7), Some(8), None])).expect("two differ");
        assert_eq!(some.partitions, "a partition 1 has 8 and not 9, b partition 0 has none and not 0");
        assert!(!some.is_all);
        assert!(differing(&wanted, &found([None, None, Some(5)])).expect("all differ").is_all);
        assert!(differing(&wanted, &[]).expect("all differ").is_all);
    }
}
