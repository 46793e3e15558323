//! Everything that can stop or restart a stream: its stable code, what must happen, and what the operator can do.
//!
//! A [`Failure`] is made where an error is understood, and handled in one place, the
//! [supervisor](crate::pipeline::supervise). To add one, add a line to the table below, and an entry to docs/errors.md: the compiler and a test
//! ask for the rest.

use std::{error::Error, fmt, fmt::Write as _};

use pgoutput::Lsn;

/// What must happen after a [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// Drop the producer and the connection, wait a little, and start again from the checkpoint.
    Restart,
    /// Stop the program and tell: going on could lose or double a row, or cannot succeed.
    Stop,
}

macro_rules! codes {
    ($($variant:ident $code:literal $recovery:ident $exit:literal $meaning:literal, $fix:literal;)+) => {
        /// The stable code of a failure. It is printed in every message and labels `pgsluice_errors_total`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)+
        }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The code as it is printed.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// What must happen.
            pub const fn recovery(self) -> Recovery {
                match self { $(Self::$variant => Recovery::$recovery,)+ }
            }

            /// The exit code of the program when this failure stops it.
            pub const fn exit_code(self) -> u8 {
                match self { $(Self::$variant => $exit,)+ }
            }

            /// One sentence: what it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }

            /// One or more sentences: what the operator can do, of a stream and of a command that is over. Whether anything is tried again is for
            /// whoever does that to say.
            pub const fn fix(self) -> &'static str {
                match self { $(Self::$variant => $fix,)+ }
            }
        }
    };
}

// Exit codes: 1 unexpected, 2 usage or configuration, 3 refused for the data's sake, 4 another instance took over.
codes! {
    ConfigInvalid "config-invalid" Stop 2
        "The configuration cannot be used.",
        "Correct the named keys; `pgsluice config` prints a commented example.";
    CheckpointCorrupt "checkpoint-corrupt" Stop 3
        "A record in the checkpoint topic cannot be used, or checkpoints go backwards.",
        "Find out who wrote to the checkpoint topic. To begin anew from the slot's position, write a tombstone for this stream's key, have the topic compacted, and start with --adopt-slot.";
    CheckpointMismatch "checkpoint-mismatch" Stop 3
        "The checkpoint belongs to another server, database, slot or publication than the configured ones.",
        "If the configuration is wrong, correct it. If this is a new source, give the stream a new name.";
    ServerBehind "server-behind-checkpoint" Stop 3
        "The server's log ends before the checkpoint: it is a standby that was promoted too early, or a restored backup.",
        "Changes that are in Kafka are not on this server. Compare both, then give the stream a new name to stream from this server.";
    TimelineDiverged "timeline-diverged" Stop 3
        "The server's timeline branched off before the checkpoint.",
        "Changes that are in Kafka are not on this server. Compare both, then give the stream a new name to stream from this server.";
    SlotAhead "slot-ahead-of-checkpoint" Stop 3
        "The replication slot is past the checkpoint: changes between them can no longer be read. It was recreated or advanced.",
        "The changes in between are lost to the stream. To go on after the gap, start once with --accept-gap. Or set snapshot.mode = \"when_needed\", which copies every table anew.";
    SlotMissing "slot-missing" Stop 3
        "There is a checkpoint, but the replication slot is gone: changes since the checkpoint cannot be read.",
        "Find out who dropped it. To go on after the gap with a new slot, start once with --accept-gap. Without manage = true, create it first. Or set snapshot.mode = \"when_needed\", which copies every table anew.";
    SlotWithoutCheckpoint "slot-without-checkpoint" Stop 3
        "The replication slot exists, but Kafka holds no checkpoint for this stream.",
        "If the checkpoint topic was lost, restore it. To begin at the slot's position, start once with --adopt-slot; otherwise drop the slot.";
    SlotLost "slot-lost" Stop 3
        "The server has removed log that the replication slot needs, or has invalidated the slot.",
        "Changes since the checkpoint cannot be read. Drop the slot with pg_drop_replication_slot, raise `max_slot_wal_keep_size`, and start once with --accept-gap. Or set snapshot.mode = \"when_needed\", which copies every table anew.";
    SlotUnfit "slot-unfit" Stop 3
        "The replication slot is not a permanent pgoutput slot of this database.",
        "Name another slot in postgres.slot, or drop this one with pg_drop_replication_slot.";
    PublicationMissing "publication-missing" Stop 3
        "The publication does not exist, so the server would send nothing, or cannot decode what it has.",
        "Create it before the slot, or set postgres.manage = true. If it was dropped under a slot, changes since then cannot be read: drop the slot too, and start once with --accept-gap.";
    PublicationMismatch "publication-mismatch" Stop 3
        "The publication does not hold the configured tables.",
        "Alter it as the message says, or set postgres.manage = true.";
    TablesMissing "tables-missing" Stop 2
        "No table matches postgres.tables.",
        "Correct the patterns: they are schema.table, where * stands for any characters.";
    ReplicaIdentityMissing "replica-identity-missing" Stop 3
        "A table has no replica identity: once it is published, the application's own UPDATEs and DELETEs would fail.",
        "Add a primary key, or ALTER TABLE ... REPLICA IDENTITY FULL or USING INDEX, or leave the table out of postgres.tables.";
    PostgresSettings "postgres-settings" Stop 3
        "PostgreSQL is not set up for logical replication.",
        "Change the settings that the message names.";
    PostgresRefused "postgres-refused" Stop 3
        "PostgreSQL refuses the connection or the command.",
        "Check user, password, TLS settings and privileges: the role needs LOGIN and REPLICATION, and with manage = true it needs CREATE on the database and to own the tables, or be a member of their owner.";
    PostgresUntrusted "postgres-untrusted" Stop 3
        "What answers in PostgreSQL's place did not prove to be the right server: its certificate is not trusted, it has none, or authentication is not bound to it.",
        "Mend what the message names: the server's certificate, sslrootcert or the host in postgres.url. Do not weaken sslmode or channel_binding before it is known who answers.";
    PlaintextCredentials "plaintext-credentials" Stop 2
        "A password or token would leave this machine without TLS.",
        "Have the server offer TLS, and postgres.url ask for it (sslmode=verify-full); command an instance from its own machine, or through a tunnel. Where nobody else is on the network, allow_plaintext_credentials = true in the section of the configuration lets it go.";
    RowTooLarge "row-too-large" Stop 3
        "A change is larger than `memory_limit` allows.",
        "Raise `memory_limit`.";
    ValueUnrepresentable "value-unrepresentable" Stop 3
        "A row cannot be written in the table's Avro schema.",
        "Set the key of `[events]` whose form holds the value, as docs/types.md tells; or leave the column or table out.";
    SchemaUnrepresentable "schema-unrepresentable" Stop 3
        "A table cannot be written: its names clash or are none that Avro or Kafka has, its topic is another's, or it lacks the key that it is to have.",
        "Change what the message names: the table's columns, its key or its topic; or leave the table out.";
    ColumnRuleUnfit "column-rule-unfit" Stop 3
        "A rule of `[columns]` cannot be applied to a column.",
        "Change the rule for the column that the message names: a column of the key can be hashed and nothing else, and only a string can be truncated.";
    PartitionUnknown "partition-unknown" Stop 3
        "A partition was detached or dropped before its rows were decoded, and this process has not seen what it was a partition of: whether an entry of `[[tables]]` is for it cannot be told.",
        "Put an entry that names the partition itself before the others in `[[tables]]`: with the keys of the entry for what it was a partition of, or with none if there is no such entry.";
    KeyUncertain "key-uncertain" Stop 3
        "The key of a table with REPLICA IDENTITY FULL was changed, and nothing says whether some rows were written before that or after: which key they are to have cannot be told.",
        "Find out what those transactions did. Then set `on_uncertain_key` for the table in `[[tables]]`: \"before\" gives such rows the key of before, \"after\" the new one, \"likely\" the one that is suggested. Take it out again once they are written. With track_commit_timestamp = on at the server fewer rows are in doubt.";
    ProtocolViolation "protocol-violation" Stop 1
        "The server sent something that the replication protocol does not have.",
        "Report it with the message: this is a defect, or the server is none that is supported.";
    RegistryRefused "registry-refused" Stop 3
        "The schema registry refuses the request.",
        "Check its URL, credentials and rights. Of the built-in registry, mend the record that the message names.";
    RegistryUntrusted "registry-untrusted" Stop 3
        "What answers in the schema registry's place did not prove to be the right server: its certificate is not trusted.",
        "Mend what the message names: the registry's certificate, schema_registry.ca_certificate or the host in schema_registry.url.";
    RecordTooLarge "record-too-large" Stop 3
        "A record is larger than Kafka takes.",
        "Raise max.message.bytes of the topic and message.max.bytes in kafka.properties, or leave the column or table out.";
    TopicMissing "topic-missing" Stop 3
        "A topic that was written to is gone, or was deleted and created again.",
        "Find out who deleted it: its records are lost with it. Restarting creates it again, empty.";
    LettersMissing "letters-missing" Stop 3
        "Dead letters of a table in quarantine are gone that were not released: what they held is nowhere else.",
        "Find out who removed them, and bring their topic back if it can be. To give up all that wait of this table, stop the stream, and run `pgsluice release --discard` with the table: the others need nothing.";
    NotConfirmed "not-confirmed" Stop 2
        "Dead letters of a table in quarantine are to be given up, and nobody has said so for certain.",
        "Look at what waits, which is listed; if it may be lost, run the command that is given with it.";
    TopicUnfit "topic-unfit" Stop 3
        "A topic is not as it has to be.",
        "Change it as the message says.";
    KafkaDenied "kafka-denied" Stop 3
        "Kafka denies an operation.",
        "Check credentials and ACLs: WRITE and DESCRIBE on the topics, CREATE unless they exist, WRITE and DESCRIBE on the transactional id, READ on the checkpoint topic. The built-in schema registry needs all of that on its topic, and on the transactional id `pgsluice:schemas:` and the topic's name.";
    KafkaRefused "kafka-refused" Stop 3
        "Kafka or librdkafka refuses the configuration or a request.",
        "Change what the message names.";
    NotInQuarantine "not-in-quarantine" Stop 2
        "A table is to be released that is not in quarantine.",
        "`pgsluice check` names those that are; `pgsluice release --all` takes all of them.";
    QuarantineRerouted "quarantine-rerouted" Stop 3
        "Changes of a table in quarantine would go to another topic from here on, past the letters that wait.",
        "Route the table to the topic that the message names, and run `pgsluice release` before it gets another.";
    TableAmbiguous "table-ambiguous" Stop 2
        "Letters of one table wait for several topics.",
        "Name the topic that is meant in the place of the table.";
    NotReleased "not-released" Stop 3
        "Changes of a table in quarantine cannot be made into events.",
        "Mend what the message names, and run `pgsluice release` again: it goes on behind what is released already.";
    SnapshotRefused "snapshot-refused" Stop 2
        "What was asked of the copying of tables cannot be done.",
        "Change what the message names; `pgsluice snapshot status` shows every table that is streamed.";
    SnapshotIncomplete "snapshot-incomplete" Stop 3
        "With snapshot.mode = \"initial_only\", every table is copied but for some that cannot be.",
        "The log says why each of them cannot; or leave them out of postgres.tables; then start again, which copies what is missing. What was stopped is started by `pgsluice snapshot start` while an instance runs in another mode.";
    SnapshotImpossible "snapshot-impossible" Stop 3
        "The rows of a table from before it was streamed cannot be copied.",
        "Give the table a primary key. Without one it is copied in one piece, for which `events.skip` must have neither `truncate` nor `read`, the envelope must be Debezium's, and the topic must not be compacted.";
    SnapshotTableGone "snapshot-table-gone" Stop 3
        "A table was dropped, or taken out of the publication, before all of its rows were copied.",
        "Nothing, if that was meant: what was copied stays in its topic, as what was streamed does. Otherwise create it again, or put it back: all of its rows are copied then.";
    ControlDenied "control-denied" Stop 2
        "The running instance takes no commands from here.",
        "Set http.token for the instance and for the command.";
    ArgumentInvalid "argument-invalid" Stop 2
        "An argument of a command cannot be used.",
        "Correct what the message names; the command with `--help` tells how each is written.";
    TopicUnknown "topic-unknown" Stop 2
        "There is no topic of this name.",
        "Name one that there is.";
    RangeInvalid "range-invalid" Stop 2
        "A range is not in its topic, or is none.",
        "Choose one of what the message says there is.";
    RangeGone "range-gone" Stop 3
        "Records at the beginning of a range may be gone, by retention or compaction.",
        "Begin where the message says that something is left; or give --allow-gone to have what there is. A replay that was interrupted goes on with it too.";
    RecordUnreadable "record-unreadable" Stop 3
        "A record cannot be decoded, or does not say what is asked of it.",
        "See that `[schema_registry]` is the registry of whoever has written it. `pgsluice replay --raw` shows records without decoding them; by offset or time they are found without their LSN.";
    OutputFailed "output-failed" Stop 1
        "What a command shows could not be written.",
        "See why standard output takes no more: the disk may be full.";
    GroupActive "group-active" Stop 3
        "A consumer group has members, which would go on from where they are.",
        "Stop its consumers, and run the command again.";
    ReplayMismatch "replay-mismatch" Stop 3
        "A replay of this name was begun with other arguments, or its target has not what it has written any more.",
        "Run it again as it was begun; or begin another one, with another --name and another --to-topic.";
    Fenced "fenced" Stop 4
        "Another instance of this stream has taken over.",
        "Nothing, if that was meant. Otherwise give each stream a name of its own, and run each once.";
    Internal "internal" Stop 1
        "An invariant of pgsluice does not hold.",
        "Report it with the message: this is a defect. Nothing was confirmed that is not in Kafka.";
    ControlUnavailable "control-unavailable" Stop 1
        "The running instance does not answer a command.",
        "See that the instance runs, with `http.listen` as it is here, and what its /readyz says.";
    KeyFound "key-found" Restart 1
        "The key of a table was changed, and which key some rows had is in doubt.",
        "Nothing yet: the session begins again, to write down what was found, and then the stream stops with `key-uncertain`, if nothing has settled it.";
    SlotActive "slot-active" Restart 1
        "Another connection reads from the replication slot.",
        "If it does not go away by itself, see pg_replication_slots.active_pid.";
    PostgresUnavailable "postgres-unavailable" Restart 1
        "PostgreSQL cannot be reached, or ended the connection.",
        "Check the server and the network.";
    StandbyUnavailable "standby-unavailable" Restart 1
        "The standby that rows are copied from cannot be reached, or ended the connection.",
        "Check the standby and the network; or take snapshot.standby_host out and start again, to have them read from the server of postgres.url.";
    StandbyConflict "standby-conflict" Restart 1
        "The standby gave up reading rows, since that kept it from replaying the log.",
        "Set hot_standby_feedback = on at the standby, or raise its max_standby_streaming_delay.";
    StandbyBehind "standby-behind" Restart 1
        "The standby that rows are copied from does not come to where the stream is.",
        "See at the standby whether it receives log (pg_stat_wal_receiver) and replays it: SELECT pg_wal_replay_resume() ends a pause, and recovery_min_apply_delay has to be shorter than the wait.";
    StandbyUnfit "standby-unfit" Restart 1
        "Rows cannot be copied from the server in `snapshot.standby_host`: it is not a standby of the server that is streamed from, or is not like it.",
        "If it was promoted, point postgres.url at it, and snapshot.standby_host at a standby of it; otherwise mend what the message names, or take snapshot.standby_host out; then start again.";
    KafkaUnavailable "kafka-unavailable" Restart 1
        "Kafka cannot be reached, or could not take a transaction in time.",
        "Check the brokers and the network.";
    KafkaUntrusted "kafka-untrusted" Restart 1
        "No TLS with Kafka: a broker did not prove to be the right one, or does not accept this client's certificate.",
        "Mend what the message names: the broker's certificate, or \"ssl.ca.location\", \"ssl.certificate.location\" and the hosts in kafka.properties and kafka.bootstrap_servers.";
    ProducerTimedOut "producer-timed-out" Restart 1
        "The transaction coordinator gave up on this producer, after a pause longer than the transaction timeout.",
        "Find out what stopped the process for so long.";
    ProducerFenced "producer-fenced" Restart 1
        "Kafka refuses this producer, as it does when another instance has taken over, or when the coordinator gave up on a transaction.",
        "Nothing for once: if another instance has taken over, this one stops with `fenced` as soon as it sees that. Otherwise see that no other stream has this name.";
    RegistryUnavailable "registry-unavailable" Restart 1
        "The schema registry cannot be reached, or something that is none answers in its place.",
        "Check the registry, its URL and the network.";
    RegistryIncompatible "registry-incompatible" Restart 1
        "The schema registry does not accept the table's schema beside the subject's earlier ones.",
        "Lower the subject's compatibility level, or remove the version in the way: the stream waits until then. With schema_registry.on_incompatible = \"quarantine\" only this table waits.";
}

impl Code {
    /// Whether it is about rows that are copied and nothing else, so that no stream ends with it.
    pub const fn is_about_copies(self) -> bool {
        matches!(
            self,
            Self::SnapshotImpossible
                | Self::SnapshotTableGone
                | Self::StandbyUnavailable
                | Self::StandbyConflict
                | Self::StandbyBehind
                | Self::StandbyUnfit
        )
    }
}

/// The codes as a table in Markdown, for docs/errors.md: each leads to its entry.
pub fn reference_markdown() -> String {
    let mut text = String::from("| code | then | exit code | meaning | what to do |\n|---|---|---|---|---|\n");
    for code in Code::ALL {
        let (then, exit) = match code.recovery() {
            _ if code.is_about_copies() => ("the stream goes on", String::new()),
            Recovery::Stop => ("stops", code.exit_code().to_string()),
            Recovery::Restart => ("tries again", String::new()),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| [`{0}`](#{0}) | {then} | {exit} | {1} | {2} |",
            code.as_str(),
            code.meaning(),
            code.fix()
        );
    }
    text
}

/// A failure: its code, what was found, and where.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    found: String,
    place: Place,
    /// The topic and the key of a record that was not delivered, as it was sent: whoever has the schemas can make it readable.
    undelivered: Option<(String, Vec<u8>)>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// Where something failed, as far as it is known.
#[derive(Debug, Default)]
struct Place {
    /// `schema.table`.
    table: Option<String>,
    /// The row's key, as far as it could be made readable.
    key: Option<String>,
    /// The change's LSN.
    lsn: Option<Lsn>,
    /// The topic.
    topic: Option<String>,
    /// Kafka's brokers, as they are configured.
    brokers: Option<String>,
}

impl Failure {
    /// A failure with this code; `found` says what was found, without a full stop.
    pub fn new(code: Code, found: impl Into<String>) -> Self {
        Self { code, found: found.into(), place: Place::default(), undelivered: None, source: None }
    }

    /// A failure caused by an error, whose text is what was found.
    pub fn caused(code: Code, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let source = source.into();
        Self { code, found: source.to_string(), place: Place::default(), undelivered: None, source: Some(source) }
    }

    /// Says which table it was.
    #[must_use]
    pub fn in_table(mut self, schema: &str, table: &str) -> Self {
        self.place.table = Some(format!("{schema}.{table}"));
        self
    }

    /// Says which change it was.
    #[must_use]
    pub fn at(mut self, lsn: Lsn) -> Self {
        self.place.lsn = lsn.is_valid().then_some(lsn);
        self
    }

    /// Says which topic it was.
    #[must_use]
    pub fn for_topic(mut self, topic: impl Into<String>) -> Self {
        self.place.topic = Some(topic.into());
        self
    }

    /// Says which brokers it was.
    #[must_use]
    pub fn at_brokers(mut self, servers: impl Into<String>) -> Self {
        self.place.brokers = Some(servers.into());
        self
    }

    /// Says which record was not delivered.
    #[must_use]
    pub fn undelivered(mut self, topic: &str, key: Vec<u8>) -> Self {
        self.undelivered = Some((topic.to_owned(), key));
        self
    }

    /// The topic and the key of the record that was not delivered.
    pub fn take_undelivered(&mut self) -> Option<(String, Vec<u8>)> {
        self.undelivered.take()
    }

    /// Says which row it was.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.place.key = Some(key.into());
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What was found.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// What may be shown of it to whoever asks over HTTP.
    pub fn told(&self) -> Told {
        Told { code: self.code, text: format!("{}{}", self.found, self.place.words(false)) }
    }
}

impl Place {
    fn words(&self, with_key: bool) -> String {
        let Self { table, key, lsn, topic, brokers } = self;
        let places = [
            table.as_ref().map(|table| format!("table {table}")),
            key.as_ref().filter(|_| with_key).map(|key| format!("key {key}")),
            lsn.map(|lsn| format!("LSN {lsn}")),
            topic.as_ref().map(|topic| format!("topic {topic}")),
            brokers.as_ref().map(|brokers| format!("brokers {brokers}")),
        ];
        let places: Vec<_> = places.into_iter().flatten().collect();
        if places.is_empty() { String::new() } else { format!(" ({})", places.join(", ")) }
    }
}

/// A failure without the row's key, which is data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The code.
    pub code: Code,
    /// What was found, and where, without a full stop.
    pub text: String,
}

impl fmt::Display for Told {
    /// As the failure, `[code] what was found (where). The fix.`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}. {}", self.code.as_str(), self.text, self.code.fix())
    }
}

impl fmt::Display for Failure {
    /// `[code] what was found (where). The fix.` And, of one that stops, where more is said: on one line, whatever reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place.words(true);
        write!(f, "[{}] {}{place}. {}", self.code.as_str(), self.found, self.code.fix())?;
        match self.code.recovery() {
            Recovery::Stop => write!(f, " (pgsluice explain {})", self.code.as_str()),
            Recovery::Restart => Ok(()),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The cause's text is in ours already; whoever prints a chain wants what lies below it.
        self.source.as_ref().and_then(|source| source.source())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_distinct_readable_and_complete() {
        let mut seen = HashSet::new();
        for code in Code::ALL {
            let text = code.as_str();
            assert!(seen.insert(text), "{text} is there twice");
            assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{text}");
            for sentence in [code.meaning(), code.fix()] {
                assert!(
                    sentence.ends_with('.') && sentence.starts_with(|first: char| first.is_uppercase() || first == '`'),
                    "{text}: {sentence}"
                );
                // Most commands are over with their first failure.
                assert!(!sentence.contains("tried again"), "{text}: {sentence}");
            }
            assert!((1..=4).contains(&code.exit_code()), "{text}");
        }
    }

    #[test]
    fn a_message_says_what_where_and_what_to_do() {
        let failure = Failure::new(Code::RecordTooLarge, "a record of 2000000 bytes was not delivered")
            .in_table("public", "orders")
            .with_key("{\"id\":7}")
            .at(Lsn::from(0x10))
            .for_topic("shop.public.orders");
        assert_eq!(
            failure.to_string(),
            "[record-too-large] a record of 2000000 bytes was not delivered (table public.orders, key {\"id\":7}, \
             LSN 0/10, topic shop.public.orders). Raise max.message.bytes of the topic and message.max.bytes in \
             kafka.properties, or leave the column or table out. (pgsluice explain record-too-large)"
        );
        let told = failure.told().to_string();
        assert!(
            !told.contains("key") && told.contains("(table public.orders, LSN 0/10, topic shop.public.orders)"),
            "{told}"
        );
    }
}
