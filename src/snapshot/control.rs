//! What an operator asks of copies while an instance runs, and what is answered.
//!
//! A question goes from the HTTP endpoint, which lives as long as the program, to the copier of the session that runs. What is asked for is
//! beside the checkpoint before it is answered, so that a crash takes nothing of it back.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::timeout,
};

use crate::{
    catalog::PublishedTable,
    failure::{Code, Failure},
};

/// How many questions may wait.
const WAITING_MAX: usize = 16;
/// How long an answer may take: as long as one chunk, in most cases.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Status,
    /// Copy tables from their first row on, or the rows that meet a condition.
    Start {
        tables: Vec<String>,
        condition: Option<String>,
        /// How many tables are copied at a time from here on, until nothing is left to copy.
        parallel: Option<u8>,
    },
    /// Leave tables as far as they are; all if none is named.
    Stop {
        tables: Vec<String>,
    },
    Pause,
    Resume,
}

/// A question, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Result<Status, Failure>>,
}

/// How far all copies are, after what was asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Whether nothing is read until somebody says so.
    pub(crate) paused: bool,
    /// How many tables are copied at a time, until nothing is left to copy, as somebody has asked; without it, as many as `snapshot.connections` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parallel: Option<u8>,
    /// Every table that is streamed, in the order of their names.
    pub(crate) tables: Vec<TableStatus>,
}

/// How far one table's copy is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TableStatus {
    /// `schema.table`
    pub(crate) table: String,
    /// The two apart, for the labels of metrics; none in what was read back.
    #[serde(skip)]
    pub(crate) name: Option<PublishedTable>,
    pub(crate) state: State,
    /// Rows that were written.
    pub(crate) rows: u64,
    /// The bytes of their records.
    pub(crate) bytes: u64,
    /// How many rows the table has, as its statistics say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows_estimated: Option<u64>,
    /// How many rows were written in a second, since this instance took the table up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rows_per_second: Option<f64>,
    /// How many connections share its rows, if it is more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<usize>,
    /// The condition that rows have to meet.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub(crate) condition: Option<String>,
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started_at_ms: Option<i64>,
    /// The same; of a copy that was stopped, when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ended_at_ms: Option<i64>,
    /// Why it does not get on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// What is being done with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Its rows of before are not asked for.
    NotCopied,
    /// It waits for a connection.
    Waiting,
    Copying,
    /// It could not be copied, and is tried again.
    PutOff,
    /// It cannot be copied as it is.
    Impossible,
    Stopped,
    Copied,
}

impl State {
    /// Each of them.
    pub(crate) const ALL: [Self; 7] =
        [Self::NotCopied, Self::Waiting, Self::Copying, Self::PutOff, Self::Impossible, Self::Stopped, Self::Copied];

    /// The state as JSON and the metrics have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NotCopied => "not_copied",
            Self::Waiting => "waiting",
            Self::Copying => "copying",
            Self::PutOff => "put_off",
            Self::Impossible => "impossible",
            Self::Stopped => "stopped",
            Self::Copied => "copied",
        }
    }

    /// Whether it changes by itself.
    pub(crate) fn is_going_on(self) -> bool {
        matches!(self, Self::Waiting | Self::Copying | Self::PutOff)
    }

    /// The state in words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::NotCopied => "not copied",
            Self::Waiting => "waiting",
            Self::Copying => "copying",
            Self::PutOff => "tried again later",
            Self::Impossible => "cannot be copied",
            Self::Stopped => "stopped",
            Self::Copied => "copied",
        }
    }
}

/// Where questions wait for the session that answers them.
#[derive(Debug)]
pub struct SnapshotControl {
    sender: mpsc::Sender<Asked>,
    receiver: Mutex<mpsc::Receiver<Asked>>,
}

impl Default for SnapshotControl {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        Self { sender, receiver: Mutex::new(receiver) }
    }
}

impl SnapshotControl {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// It is refused, or nobody answers.
    pub(crate) async fn ask(&self, command: Command) -> Result<Status, Failure> {
        let (answer, answered) = oneshot::channel();
        let asked = self.sender.try_send(Asked { command, answer });
        asked.map_err(|_| Failure::new(Code::ControlUnavailable, "too many commands wait already"))?;
        match timeout(ANSWER_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer,
            // The session has ended before it could answer.
            Ok(Err(_)) => Err(Failure::new(
                Code::ControlUnavailable,
                "the stream begins anew: ask for the status to see whether it was done",
            )),
            Err(_elapsed) => Err(Failure::new(
                Code::ControlUnavailable,
                "no answer within 30 s, since the stream does not run or is in the midst of a long transaction; if it was begun, it is \
                 finished: ask for the status",
            )),
        }
    }

    /// The next question that somebody still waits for. Cancel safe.
    pub(crate) async fn next(&self) -> Asked {
        let mut receiver = self.receiver.lock().await;
        loop {
            match receiver.recv().await {
                Some(asked) if asked.answer.is_closed() => {}
                Some(asked) => return asked,
                // The sender is beside it.
                None => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_has_one_name() {
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.name());
        }
    }

    #[tokio::test]
    async fn a_question_that_nobody_waits_for_is_not_answered() {
        let control = SnapshotControl::default();
        let (answer, answered) = oneshot::channel();
        control.sender.try_send(Asked { command: Command::Pause, answer }).expect("there is room");
        drop(answered);
        let (answer, _answered) = oneshot::channel();
        control.sender.try_send(Asked { command: Command::Resume, answer }).expect("there is room");
        assert_eq!(control.next().await.command, Command::Resume);
    }
}
