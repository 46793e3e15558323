//! The ids of findings. To add one, add a line to the table below: the compiler asks where it is used, and a test for its entry in
//! docs/errors.md.
//!
//! A finding that is what would stop the stream has the code of that failure as its id.

use serde::{Serialize, Serializer};

use super::report::{Severity, System};
use crate::failure::Code;

/// What a finding is about, as it is printed. It never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Id {
    /// What only `check` looks at.
    Check(CheckId),
    /// What would stop the stream, or make it wait.
    Failure(Code),
}

macro_rules! ids {
    ($($system:ident { $($variant:ident $id:literal [$($severity:ident)+] $meaning:literal;)+ })+) => {
        /// What only `check` looks at.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum CheckId {
            $($(#[doc = $meaning] $variant,)+)+
        }

        impl CheckId {
            /// All ids.
            pub(crate) const ALL: &'static [Self] = &[$($(Self::$variant,)+)+];

            /// The id as it is printed.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $($(Self::$variant => $id,)+)+ }
            }

            /// Where it is found.
            pub(crate) const fn system(self) -> System {
                match self { $($(Self::$variant => System::$system,)+)+ }
            }

            /// How bad it can be, from the least to the worst.
            pub(crate) const fn severities(self) -> &'static [Severity] {
                match self { $($(Self::$variant => &[$(Severity::$severity,)+],)+)+ }
            }

            /// One sentence: what is looked at, or what is wrong if it can be nothing else.
            pub(crate) const fn meaning(self) -> &'static str {
                match self { $($(Self::$variant => $meaning,)+)+ }
            }
        }
    };
}

ids! {
    Configuration {
        Configuration "configuration" [Ok Warning] "What the configuration comes to, and what in it may give a secret away.";
    }
    Postgres {
        PostgresReachable "postgres-reachable" [Ok] "Which server answered, and as whom.";
        PostgresUnreachable "postgres-unreachable" [Error] "No connection to PostgreSQL could be opened.";
        PostgresTls "postgres-tls" [Ok Warning Error] "Whether the connection to PostgreSQL is encrypted, and the server proved to be the right one.";
        PostgresHba "postgres-hba" [Error] "No line of `pg_hba.conf` lets the replication connection in.";
        PostgresAuthentication "postgres-authentication" [Error] "PostgreSQL does not accept the role or its password.";
        PostgresDatabase "postgres-database" [Error] "The database does not exist.";
        PostgresPrivilege "postgres-privilege" [Error] "The role may not connect to the database.";
        PostgresOrdinaryConnection "postgres-ordinary-connection" [Error] "The replication connection is let in, and the ordinary one is not.";
        PostgresIncomplete "postgres-incomplete" [Error] "PostgreSQL stopped answering before everything was looked at.";
        PostgresVersion "postgres-version" [Ok Warning Error] "The version of the server: 14 to 18 are supported.";
        PostgresTooOld "postgres-too-old" [Error] "The configuration asks for something that this version of the server does not have.";
        WalLevel "wal-level" [Ok Error] "Whether the server's log has what changes are decoded from.";
        ReplicationAttribute "replication-attribute" [Ok Error] "Whether the role may open a replication connection.";
        WalSenders "wal-senders" [Ok Error] "Whether the server has a connection left for replication.";
        Standby "standby" [Error] "The server is a standby.";
        StandbyReachable "standby-reachable" [Ok] "That rows can be copied from the standby in `snapshot.standby_host`.";
        StandbyTls "standby-tls" [Warning] "The connection to the standby is not encrypted, or the standby did not prove to be the right one.";
        StandbyFeedback "standby-feedback" [Ok Warning] "Whether the standby gives up reading rows as soon as that is in the way of replay.";
        StandbyLag "standby-lag" [Ok Warning] "How far the standby is behind.";
        WalSenderTimeout "wal-sender-timeout" [Ok Warning] "How long the server waits for a sign of life before it ends the connection.";
        ServerEncoding "server-encoding" [Ok Warning] "Whether all text in the database can be made into UTF-8.";
        MaxSlotWalKeepSize "max-slot-wal-keep-size" [Ok Warning] "How much log the server keeps for a stream that is down.";
        IdleReplicationSlotTimeout "idle-replication-slot-timeout" [Ok Warning] "Whether the server invalidates a slot that nobody reads from for a while.";
        ClockSkew "clock-skew" [Ok Warning] "How far the server's clock is from this machine's.";
        SessionTimeouts "session-timeouts" [Ok Warning] "Whether the server ends transactions of the role that take their time.";
        OtherSlots "other-slots" [Ok Warning] "Whether slots of others keep log, or dead rows, that the server cannot remove.";
        LogicalDecodingWorkMem "logical-decoding-work-mem" [Ok] "From which size on the server spills a transaction to its disk.";
        Failover "failover" [Ok Warning] "Whether the slot, and all that is in Kafka, would be on the server that takes over.";
        ReplicationSlots "replication-slots" [Ok Error] "Whether the server has room for the slot that is to be created.";
        SlotWal "slot-wal" [Ok Warning Error] "How much log is kept for the slot, and how near the slot is to being lost.";
        Slot "slot" [Ok] "How the next start would begin.";
        PatternUnmatched "pattern-unmatched" [Warning Error] "A pattern of the configuration matches no table, or no column.";
        Tables "tables" [Ok] "Which tables are asked for.";
        TablePrivileges "table-privileges" [Ok Warning] "Whether the role may read the rows that are there already.";
        ReplicaIdentity "replica-identity" [Ok] "That every table has a replica identity.";
        PublicationPrivilege "publication-privilege" [Error] "The role may not make the publication what is asked for.";
        PublicationOperations "publication-operations" [Warning] "The publication leaves out some kinds of changes.";
        Publication "publication" [Ok] "Whether the publication holds the tables, or what the next start would execute for that.";
        ColumnsAsText "columns-as-text" [Ok] "Columns that come as PostgreSQL's own text.";
        TableWithoutKey "table-without-key" [Warning] "Tables without a key, whose records have none.";
        TopicCollision "topic-collision" [Warning Error] "Two tables, or a table and something else, would write to one topic.";
        Schemas "schemas" [Ok] "How many tables can be written.";
    }
    Kafka {
        Librdkafka "librdkafka" [Ok Error] "Whether the Kafka library is new enough for transactions that lose nothing.";
        KafkaProperty "kafka-property" [Ok Error] "Whether the Kafka library takes what `kafka.properties` says.";
        KafkaTls "kafka-tls" [Warning] "Credentials and rows cross the network to Kafka unencrypted.";
        KafkaReachable "kafka-reachable" [Ok] "Which cluster answered.";
        KafkaUnreachable "kafka-unreachable" [Error] "No broker of Kafka answers.";
        KafkaAuthentication "kafka-authentication" [Error] "Kafka does not let this client in.";
        KafkaBrokerSettings "kafka-broker-settings" [Warning] "The brokers' settings may not be read.";
        KafkaTopicSettings "kafka-topic-settings" [Warning] "The settings of topics may not be read.";
        KafkaIncomplete "kafka-incomplete" [Warning Error] "Kafka could not be asked everything.";
        AutoCreateTopics "auto-create-topics" [Ok Warning] "Whether the brokers create a topic as soon as somebody mentions it.";
        TransactionTimeout "transaction-timeout" [Ok Error] "Whether the brokers allow transactions as long as configured.";
        TransactionStateLog "transaction-state-log" [Error] "The topic in which the brokers keep transactions cannot be created.";
        CheckpointTopic "checkpoint-topic" [Ok Error] "Whether the topic of checkpoints has one partition and is compacted.";
        SchemaTopic "schema-topic" [Ok Error] "Whether the built-in registry's topic has one partition and is compacted.";
        Checkpoint "checkpoint" [Ok] "The newest checkpoint that can be read, or that there is none yet.";
        CheckpointUnreadable "checkpoint-unreadable" [Warning Error] "The checkpoint could not be read.";
        Quarantine "quarantine" [Warning] "Tables whose changes go to dead letters, since the registry refuses their schemas.";
        LettersMaxBytes "letters-max-bytes" [Ok Warning] "How large a dead letter of a table in quarantine may be.";
        LettersRetention "letters-retention" [Error] "The topic of dead letters of a table in quarantine may remove them before they are released.";
        TopicPartitions "topic-partitions" [Warning] "A topic has another number of partitions than is configured.";
        TopicLeader "topic-leader" [Error] "Partitions of a topic have no leader.";
        TopicRights "topic-rights" [Ok Warning Error] "Whether the brokers let this client write to the topics that are there.";
        TopicMinInsyncReplicas "topic-min-insync-replicas" [Warning Error] "How many brokers have a record when it is acknowledged.";
        TopicReplicationFactor "topic-replication-factor" [Warning] "Topics have one replica only.";
        MessageMaxBytes "message-max-bytes" [Ok Warning] "How large a record may be, by the client and by the topics.";
        TopicCreation "topic-creation" [Error] "The brokers would not create a topic that is needed.";
        TopicsToCreate "topics-to-create" [Ok] "Which topics the next start creates.";
        Topics "topics" [Ok] "Which topics are there already.";
    }
    SchemaRegistry {
        SchemaRegistry "schema-registry" [Ok] "That no schema registry is needed.";
        RegistryReachable "registry-reachable" [Ok] "That the registry answered, and how fast.";
        RegistryUnreachable "registry-unreachable" [Error] "The registry does not answer, something else answers in its place, or its topic cannot be read.";
        RegistryTls "registry-tls" [Error] "The registry's certificate is not trusted.";
        RegistryAuthentication "registry-authentication" [Error] "The registry does not accept the credentials, or forbids the request.";
        RegistrySlow "registry-slow" [Warning] "The registry takes long to answer.";
        RegistryCompatibility "registry-compatibility" [Ok Warning] "What the registry's global level lets a changed table do.";
        RegistryBuiltIn "registry-built-in" [Ok] "What the built-in registry's topic holds.";
        RegistrySubjects "registry-subjects" [Ok] "How many schemas are registered, compatible or new.";
    }
}

impl Id {
    /// The id as it is printed.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Check(id) => id.as_str(),
            Self::Failure(code) => code.as_str(),
        }
    }

    /// Whether it is ever this bad. How bad a failure is depends on where it would happen.
    pub(super) fn can_be(self, severity: Severity) -> bool {
        match self {
            Self::Check(id) => id.severities().contains(&severity),
            Self::Failure(_) => true,
        }
    }
}

impl From<CheckId> for Id {
    fn from(id: CheckId) -> Self {
        Self::Check(id)
    }
}

impl From<Code> for Id {
    fn from(code: Code) -> Self {
        Self::Failure(code)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_distinct_readable_and_complete() {
        let mut seen: HashSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        for id in CheckId::ALL {
            let (text, meaning, severities) = (id.as_str(), id.meaning(), id.severities());
            assert!(seen.insert(text), "{text} is there twice");
            assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{text}");
            assert!(meaning.ends_with('.') && meaning.starts_with(char::is_uppercase), "{text}: {meaning}");
            assert!(severities.is_sorted_by(|one, other| one < other), "{text}");
        }
    }
}
