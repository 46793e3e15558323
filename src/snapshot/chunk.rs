//! What goes from a copy to the stream, and back.

use encoder::RecordBatch;
use pgoutput::{Lsn, Oid, Xid};
use publisher::{Attachment, Charge};
use tokio::sync::oneshot;

use super::{
    moved::{Left, Settles},
    notice::Notice,
    parts::{Cursor, PartId},
    sight::{Horizon, Sight},
    visibility::Visibility,
    window::{Epoch, Spoilt, WindowId},
};

/// What a copy asks of the stream. Everything is done between transactions, or where one waits for a copy at once.
#[derive(Debug)]
pub(crate) enum Request {
    /// Opens a window on a table, by the names of the columns of its [row key](super::RowKey).
    Open {
        window: WindowId,
        table: Oid,
        part: PartId,
        key: Vec<String>,
        /// Whether the copy begins with the first row of the table.
        is_anew: bool,
        /// The chunk before it in its part, if it is not known yet what became of that.
        behind: Option<WindowId>,
        opened: oneshot::Sender<Opened>,
    },
    /// The chunk of the window was read in a snapshot that sees this; `until` is an end of the log that was asked for after it was taken.
    Load { window: WindowId, chunk: Box<Chunk>, sight: Sight, until: Lsn },
    /// The table's topic is to be emptied, if there is anything in it, and the checkpoint is to say that it was.
    /// `is_emptied` is told whether it is: one in quarantine gets nothing.
    Empty { table: Oid, emptied: Option<Emptied>, record: Attachment, is_emptied: oneshot::Sender<bool> },
    /// The table is owed a copy [at once](super::AtOnce) from here on, as the checkpoint is to say. It is told once it does.
    Owe { table: Oid, record: Attachment, committed: oneshot::Sender<()> },
    /// The snapshot of such a copy is about to be taken. It is told what has to have ended then, since which epoch.
    Take { window: WindowId, table: Oid, opened: oneshot::Sender<(Epoch, Vec<Xid>)> },
    /// It was taken; `until` is an end of the log that was asked for after that.
    Taken { window: WindowId, snapshot: Visibility, until: Lsn, accepted: oneshot::Sender<Result<(), Spoilt>> },
    /// Rows that were read in it.
    Rows { window: WindowId, rows: Box<Rows> },
    /// There will be no chunk, or no more rows.
    Abandon { window: WindowId, snapshot: Option<Visibility> },
    /// The checkpoint is to say this. It is told once it does.
    Record {
        attachments: Vec<Attachment>,
        notices: Vec<Notice>,
        /// Tables that are not copied any more, for now.
        ended: Vec<Oid>,
        committed: oneshot::Sender<()>,
    },
    /// The table is not copied any more, and what is known of its copy is to be forgotten, or to be this instead; whoever reads notifications is told this.
    Forget { table: Oid, instead: Option<Attachment>, told: Option<Notice> },
    /// A table that is owed a copy at once is gone, and was so before the log had come to `until`. Once the stream has, its topic is to be emptied, if
    /// that can be, and what is known of its copy forgotten. `left` is told then.
    Leave { table: Oid, until: Lsn, emptied: Option<Emptied>, told: Notice, left: oneshot::Sender<()> },
}

/// A window is open.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) epoch: Epoch,
    /// Transactions that have to end before the chunk's snapshot is taken.
    pub(crate) unnoted: Vec<Xid>,
    /// What a snapshot of a standby has to see in their place.
    pub(crate) horizon: Horizon,
}

/// Rows that were read and encoded. Their cost is charged to the memory budget once they are written, and until then to that of chunks.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// A record for each row.
    pub(crate) batch: RecordBatch,
    /// The row key of each record.
    pub(crate) keys: Keys,
    /// What the checkpoint is to say in the Kafka transaction that holds them, and what is told.
    pub(crate) cursor: Cursor,
    /// What it is to say instead if they are the last ones, and nothing else is left to read.
    pub(crate) end: Option<Ending>,
    /// Which of the rows that have moved it settles.
    pub(crate) settles: Settles,
    /// What it costs until it is written or thrown away.
    pub(crate) charge: Charge,
    /// Where the outcome is told.
    pub(crate) outcome: oneshot::Sender<Outcome>,
}

/// Rows of a copy at once, with costs as those of a [`Chunk`].
#[derive(Debug)]
pub(crate) struct Rows {
    /// What takes out of the topic what was there before.
    pub(crate) emptied: Option<Emptied>,
    /// A record for each row.
    pub(crate) batch: RecordBatch,
    /// What the checkpoint is to say in the Kafka transaction that holds them.
    pub(crate) cursor: Attachment,
    /// What is told with that.
    pub(crate) told: Notice,
    /// If they are the last ones.
    pub(crate) end: Option<Ending>,
    /// What they cost until they are written or thrown away.
    pub(crate) charge: Charge,
    /// Where the outcome is told: of the last ones once the copy is over.
    pub(crate) outcome: oneshot::Sender<Outcome>,
}

/// What the checkpoint is to say once a copy is over, and what is told with that.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) record: Attachment,
    pub(crate) told: Notice,
}

/// Says that a table is empty, in each partition of its topic.
#[derive(Debug)]
pub(crate) struct Emptied {
    /// The record.
    pub(crate) batch: RecordBatch,
}

/// What became of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its rows are on their way to Kafka, or superseded by what is, and its cursor with them.
    Written {
        /// How many rows were superseded.
        superseded: u64,
        /// What is left to read before the copy is over; of a chunk without an end only if it is much.
        left: Option<Left>,
    },
    /// Nothing of it was written.
    Spoilt(Spoilt),
}

/// Row keys, in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    /// Adds one.
    pub(crate) fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    /// Them all, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        self.ends.iter().zip(starts).map(|(end, start)| &self.bytes[start..*end])
    }

    /// What they cost in memory.
    pub(crate) fn cost_bytes(&self) -> usize {
        self.bytes.len() + self.ends.len() * size_of::<usize>()
    }
}
