//! Commands that come as records of a Kafka topic.
//!
//! How far the topic was read is beside the checkpoint, in the Kafka transaction that says what was asked for; so a signal is carried out once,
//! whatever is killed. What was written before the stream knew of the topic is for nobody.

use std::{ops::ControlFlow, time::Duration};

use publisher::{Isolation, KafkaSettings, LogReader, PublishError};
use tokio::{task::spawn_blocking, time::sleep};
use tracing::{info, warn};

use super::Copier;
use crate::{
    failure::{Code, Failure},
    fault,
    pipeline::publish::failure_of,
    snapshot::{Signal, SignalsRecord, control::Command},
};

/// How often the topic is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// After so many looks in a row at a topic that ends before what was read it is believed: a new leader may not know the end at once.
const SHORTER_MAX: u32 = 20;
/// So many records are read at a time.
const RECORDS_MAX: usize = 100;

/// Where signals come from.
pub(in crate::pipeline) struct SignalSource {
    pub(in crate::pipeline) topic: String,
    pub(in crate::pipeline) kafka: KafkaSettings,
}

/// A record of the topic.
struct Found {
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    /// The offset behind it.
    behind: i64,
}

impl Copier {
    /// Reads signals for as long as the session runs.
    pub(super) async fn keep_hearing(&self, source: Option<SignalSource>) {
        let Some(SignalSource { topic, kafka }) = source else { return std::future::pending().await };
        let held = self.state().progress.signals.clone().filter(|held| held.topic == topic);
        let mut next = held.map(|held| held.offset);
        let mut seen_shorter = 0;
        let mut reader = LogReader::new(&kafka, topic.clone(), Isolation::Committed);
        loop {
            let from = next;
            let read = spawn_blocking(move || {
                let read = read(&mut reader, from);
                (reader, read)
            });
            // It does not panic; and if it does, so does this.
            let Ok((kept, read)) = read.await else { return };
            reader = kept;
            let heard = match read.map_err(|error| failure_of(&error, Duration::ZERO, Duration::MAX)) {
                Ok((found, end)) if next.is_some_and(|next| end < next) => {
                    debug_assert!(found.is_empty(), "nothing is read then");
                    seen_shorter += 1;
                    if seen_shorter == SHORTER_MAX {
                        warn!(topic, end, "the topic of signals was made anew: it is read from its beginning");
                        (next, seen_shorter) = (Some(0), 0);
                    }
                    Ok(())
                }
                Ok((found, end)) => {
                    seen_shorter = 0;
                    self.hear(&topic, &kafka.name, found, end, &mut next).await
                }
                Err(failure) => Err(failure),
            };
            if let Err(failure) = heard {
                let code = failure.code().as_str();
                warn!(code, topic, "signals could not be read, which is tried again: {failure}");
                self.metrics.copy_failed(&failure);
            }
            sleep(INTERVAL).await;
        }
    }

    /// Carries out what was found, up to `end`; `next` is behind what is over.
    async fn hear(
        &self,
        topic: &str,
        name: &str,
        found: Vec<Found>,
        end: i64,
        next: &mut Option<i64>,
    ) -> Result<(), Failure> {
        for Found { key, value, behind } in found {
            if key.as_deref() == Some(name.as_bytes()) {
                self.obey(topic, behind, &value).await?;
            }
            *next = Some(behind);
        }
        if next.is_none() {
            // From here on they are for this stream.
            self.record(vec![SignalsRecord::new(topic, end).attachment()]).await?;
            info!(topic, offset = end, "signals are read from here on");
        }
        *next = Some(end);
        Ok(())
    }

    async fn obey(&self, topic: &str, offset: i64, value: &[u8]) -> Result<(), Failure> {
        // A table may have been added since the last look.
        self.look(&mut self.catalog()).await?;
        let published: Vec<String> = self.state().published.values().map(ToString::to_string).collect();
        let refused = match Signal::read(value, &published) {
            Ok(Signal::Commands(commands)) => {
                let mut is_written = false;
                let mut begun = self.begun_by_signal(topic, offset - 1);
                let mut commands = without(commands, &begun).into_iter().peekable();
                while let Some(command) = commands.next() {
                    info!(topic, ?command, "a signal asks for this");
                    begun.extend(tables_of(&command));
                    let is_last = commands.peek().is_none();
                    // If it ends between two of them, it goes on behind the first: what that has started may be over by then.
                    let record = if is_last {
                        SignalsRecord::new(topic, offset)
                    } else {
                        SignalsRecord::within(topic, offset - 1, begun.clone())
                    };
                    match self.carry_out(command, vec![record.attachment()]).await {
                        Ok(_) => {
                            is_written = is_last;
                            self.state().progress.signals = Some(record);
                            if !is_last {
                                fault::point(fault::Point::WithinSignal);
                            }
                        }
                        Err(failure) if failure.code() == Code::SnapshotRefused => {
                            tell_refused(topic, offset, &failure.to_string());
                        }
                        Err(failure) => return Err(failure),
                    }
                }
                if is_written {
                    return Ok(());
                }
                None
            }
            Ok(Signal::Log(message)) => {
                info!(topic, message, "a signal says this");
                None
            }
            Err(why) => Some(why),
        };
        if let Some(why) = refused {
            tell_refused(topic, offset, &why);
        }
        self.record(vec![SignalsRecord::new(topic, offset).attachment()]).await
    }

    /// The tables that the signal at an offset has begun before the process, or the session, ended.
    fn begun_by_signal(&self, topic: &str, offset: i64) -> Vec<String> {
        let held = self.state().progress.signals.clone();
        held.filter(|held| held.topic == topic && held.offset == offset).map(|held| held.begun).unwrap_or_default()
    }
}

fn tables_of(command: &Command) -> Vec<String> {
    match command {
        Command::Start { tables, .. } => tables.clone(),
        _ => Vec::new(),
    }
}

/// What is left of a signal's commands.
fn without(commands: Vec<Command>, begun: &[String]) -> Vec<Command> {
    let left = |command| match command {
        Command::Start { mut tables, condition, parallel } => {
            tables.retain(|table| !begun.contains(table));
            (!tables.is_empty()).then_some(Command::Start { tables, condition, parallel })
        }
        other => Some(other),
    };
    commands.into_iter().filter_map(left).collect()
}

fn tell_refused(topic: &str, behind: i64, why: &str) {
    let (code, offset) = (Code::SnapshotRefused.as_str(), behind - 1);
    warn!(code, topic, offset, "a signal is not carried out, and not tried again: {why}");
}

/// The next records, and the offset behind all that were looked at.
fn read(reader: &mut LogReader, from: Option<i64>) -> Result<(Vec<Found>, i64), PublishError> {
    let (beginning, end) = reader.bounds()?;
    let Some(from) = from else { return Ok((Vec::new(), end)) };
    let mut found: Vec<Found> = Vec::new();
    if end <= from {
        return Ok((found, end));
    }
    reader.seek(from.max(beginning));
    reader.read_while(0, Duration::ZERO, |offset, key, value| {
        let (key, value) = (key.map(<[u8]>::to_vec), value.unwrap_or_default().to_vec());
        found.push(Found { key, value, behind: offset + 1 });
        if found.len() < RECORDS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    // Behind the last of them there may be marks of transactions.
    let behind = reader.next();
    Ok((found, behind))
}
