//! Rows that are copied from tables beside the stream: the source's part of [`snapshot`](crate::snapshot).
//!
//! A copy asks through a channel, which is looked at between transactions, and where the stream waits for a copy at once; what it has read is written there too. The argument for where is
//! in [`Windows`].

use encoder::{Change, RecordBatch};
use pgoutput::{Begin, Lsn, Oid, OldTuple, Tuple, Value};
use publisher::Attachment;
use rustc_hash::FxHashMap;
use tokio::sync::{
    mpsc::{Receiver, error::TryRecvError},
    oneshot,
};

use super::Source;
use crate::{
    failure::Failure,
    pipeline::{
        relations::Known,
        work::{Copied, Work, cost_of},
    },
    snapshot::{
        AtOnce, Chunk, Closed, Emptied, Ending, Fate, MovedRows, Notice, Opened, Outcome, Request, RowKey, Spoilt,
        Streamed, TableRecord, WindowId, Windows,
    },
};

mod at_once;

use self::at_once::{Leaving, cost_of_emptied};

/// So many rows that have moved are read before the copy goes on.
const MOVED_ROWS_MUCH: usize = 1000;

/// What copies have asked for.
pub(super) struct Copies {
    requests: Option<Receiver<Request>>,
    windows: Windows<Box<Chunk>>,
    moved: MovedRows,
    at_once: AtOnce,
    /// Copies at once of which all rows are written.
    ending: FxHashMap<WindowId, (Ending, oneshot::Sender<Outcome>)>,
    /// Tables that are gone, and were owed one.
    leaving: FxHashMap<Oid, Leaving>,
    /// Kept for their memory.
    old_key: Vec<u8>,
    new_key: Vec<u8>,
}

impl Copies {
    pub(super) fn new() -> Self {
        Self {
            requests: None,
            windows: Windows::new(0),
            moved: MovedRows::new([], 0),
            at_once: AtOnce::default(),
            ending: FxHashMap::default(),
            leaving: FxHashMap::default(),
            old_key: Vec::new(),
            new_key: Vec::new(),
        }
    }

    /// The next request; never, once nobody asks.
    pub(super) async fn next(&mut self) -> Request {
        if let Some(requests) = &mut self.requests
            && let Some(request) = requests.recv().await
        {
            return request;
        }
        self.requests = None;
        std::future::pending().await
    }

    fn try_next(&mut self) -> Option<Request> {
        match self.requests.as_mut()?.try_recv() {
            Ok(request) => Some(request),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.requests = None;
                None
            }
        }
    }

    pub(super) fn begin(&mut self, begin: &Begin) {
        self.windows.transaction(Streamed { xid: begin.xid, commit: begin.commit_lsn });
    }

    pub(super) fn learn(&mut self, table: Oid, key: Option<&RowKey>) {
        self.windows.learn(table, key.map(RowKey::names));
    }

    #[inline]
    pub(super) fn watch(&self, table: Oid) -> bool {
        self.moved.watch(table)
    }

    /// Takes note of a change of a table that is being copied; its place is its transaction's commit LSN, and its number there. What the checkpoint is to
    /// say of it is to be committed with its events at the latest.
    pub(super) fn note(
        &mut self,
        table: Oid,
        change: Change<'_>,
        key: Option<&RowKey>,
        place: (Lsn, u64),
    ) -> Vec<Attachment> {
        let (old, new) = match change {
            Change::Insert(insert) => (None, Some(&insert.new)),
            Change::Update(update) => (
                match &update.old {
                    OldTuple::Absent => None,
                    OldTuple::Key(old) | OldTuple::Full(old) => Some(old),
                },
                Some(&update.new),
            ),
            Change::Delete(delete) => match &delete.old {
                OldTuple::Absent => (None, None),
                OldTuple::Key(old) | OldTuple::Full(old) => (Some(old), None),
            },
            Change::Truncate => {
                self.windows.spoil(table, Spoilt::Truncated);
                return Vec::new();
            }
        };
        let has_all = matches!(change, Change::Update(update) if matches!(update.old, OldTuple::Full(_)));
        let is_incomplete = !has_all && new.is_some_and(|new| new.iter().any(|value| value == Value::UnchangedToast));
        let (mut old_key, mut new_key) = (std::mem::take(&mut self.old_key), std::mem::take(&mut self.new_key));
        old_key.clear();
        new_key.clear();
        let write =
            |row: Option<&Tuple>, out: &mut Vec<u8>| row.is_none_or(|row| key.is_some_and(|key| key.write(row, out)));
        let is_known = write(old, &mut old_key) && write(new, &mut new_key) && (old.is_some() || new.is_some());
        let mut moved = Vec::new();
        if is_known {
            if old.is_some() && old_key != new_key {
                self.windows.note(table, &old_key, false);
            }
            if new.is_some() {
                self.windows.note(table, &new_key, is_incomplete);
                if is_incomplete && old.is_some() && old_key != new_key {
                    let keys = (RowKey::read(&old_key), RowKey::read(&new_key));
                    moved = self.moved.change_key(table, (&keys.0, keys.1), place);
                }
            }
        } else {
            self.windows.spoil(table, Spoilt::UnknownRow);
        }
        (self.old_key, self.new_key) = (old_key, new_key);
        moved
    }
}

impl Source {
    /// Takes the requests of copies from a channel from now on; some have begun in an earlier life. Windows may note so many bytes of keys.
    pub(in crate::pipeline) fn copying(
        mut self,
        requests: Receiver<Request>,
        moved: MovedRows,
        owed: Vec<Oid>,
        noted_bytes_max: usize,
    ) -> Self {
        self.copies.requests = Some(requests);
        self.copies.windows = Windows::new(noted_bytes_max);
        self.copies.moved = moved;
        for table in owed {
            self.copies.at_once.owe(table);
        }
        self
    }

    /// Serves what was asked for, and writes what can be written: between transactions.
    pub(super) async fn serve_copies(&mut self) -> Result<(), Failure> {
        while let Some(request) = self.copies.try_next() {
            self.serve_copy(request).await?;
        }
        self.write_copies().await
    }

    pub(super) async fn serve_copy(&mut self, request: Request) -> Result<(), Failure> {
        match request {
            Request::Open { window, table, part, key, is_anew, behind, opened } => {
                self.copies.moved.begin(table, is_anew);
                let why = match self.relations.known.get(table) {
                    Some(Known::Watched(known)) if known.plan.holds_back() => Some(Spoilt::HeldBack),
                    Some(Known::Watched(known)) if known.row_key.as_ref().map(RowKey::names) != Some(&key) => {
                        Some(Spoilt::Altered)
                    }
                    _ => None,
                };
                // What is left out is not noted.
                let why = why.or_else(|| self.copies.owes(table).then_some(Spoilt::Altered));
                let (epoch, unnoted, horizon) =
                    self.copies.windows.open(window, (table, part), key, behind, self.end_lsn);
                if let Some(why) = why {
                    self.copies.windows.spoil(table, why);
                }
                if opened.send(Opened { epoch, unnoted, horizon }).is_err() {
                    self.copies.windows.abandon(window, None);
                }
                Ok(())
            }
            Request::Load { window, chunk, sight, until } => {
                self.copies.windows.load(window, chunk, sight, until);
                self.write_copies().await
            }
            Request::Empty { table, emptied, record, is_emptied } => {
                self.empty(table, emptied, record, is_emptied).await
            }
            Request::Owe { table, record, committed } => self.owe(table, record, committed).await,
            Request::Take { window, table, opened } => {
                self.take(window, table, opened);
                Ok(())
            }
            Request::Taken { window, snapshot, until, accepted } => {
                self.taken(window, snapshot, until, accepted);
                Ok(())
            }
            Request::Rows { window, rows } => self.write_rows(window, *rows).await,
            Request::Abandon { window, snapshot } => {
                self.copies.windows.abandon(window, snapshot.as_ref());
                self.copies.at_once.abandon(window);
                self.copies.ending.remove(&window);
                Ok(())
            }
            Request::Record { mut attachments, notices, ended, committed } => {
                for table in &ended {
                    self.copies.at_once.forgive(*table);
                }
                attachments.extend(ended.into_iter().flat_map(|table| self.copies.moved.end(table)));
                self.record(attachments, notices, Some(committed)).await
            }
            Request::Forget { table, instead, told } => {
                // Whoever reads it still notes nothing any more.
                self.copies.windows.spoil(table, Spoilt::Altered);
                self.copies.at_once.forgive(table);
                let mut attachments = self.copies.moved.end(table);
                attachments.push(instead.unwrap_or_else(|| TableRecord::removal(table)));
                self.record(attachments, told.into_iter().collect(), None).await
            }
            Request::Leave { table, until, emptied, told, left } => {
                self.copies.at_once.leave(table, until);
                self.copies.leaving.insert(table, Leaving { emptied, told, left });
                self.end_copies().await
            }
        }
    }

    /// Has what was found of keys stand beside the checkpoint, although nothing else may be written for long.
    pub(super) async fn keep_keys(&mut self) -> Result<(), Failure> {
        if !self.relations.has_found_keys() {
            return Ok(());
        }
        let attachments = self.relations.unkept_keys();
        self.record(attachments, Vec::new(), None).await
    }

    async fn record(
        &mut self,
        attachments: Vec<Attachment>,
        notices: Vec<Notice>,
        committed: Option<oneshot::Sender<()>>,
    ) -> Result<(), Failure> {
        self.record_and_empty(None, attachments, notices, committed).await
    }

    /// The same, behind what takes out of a topic what was there before.
    async fn record_and_empty(
        &mut self,
        emptied: Option<Emptied>,
        attachments: Vec<Attachment>,
        notices: Vec<Notice>,
        committed: Option<oneshot::Sender<()>>,
    ) -> Result<(), Failure> {
        // What was streamed before may have attachments that these end.
        self.flush(false).await?;
        // As with chunks: it must not wait for room that only the stream makes.
        self.budget.charge(emptied.as_ref().map_or(0, cost_of_emptied));
        let attachments = self.behind_pending(attachments);
        let batch = RecordBatch::new();
        self.send(Work::Copied(Box::new(Copied { emptied, batch, attachments, notices, committed }))).await
    }

    async fn write_copies(&mut self) -> Result<(), Failure> {
        while !self.copies.windows.is_empty()
            && let Some(closed) = self.copies.windows.close_due(self.end_lsn)
        {
            // What was streamed before is written before.
            self.flush(false).await?;
            self.write_copy(closed).await?;
        }
        self.end_copies().await
    }

    async fn write_copy(&mut self, closed: Closed<Box<Chunk>>) -> Result<(), Failure> {
        let Closed { table, chunk, fates } = closed;
        let Chunk { mut batch, keys, cursor, end, settles, charge, outcome } = *chunk;
        let come_to = match fates {
            Err(why) => Outcome::Spoilt(why),
            Ok(fates) => {
                let mut superseded = 0;
                let mut attachments = self.copies.moved.settle(table, &settles);
                if !fates.are_all_written() {
                    let decided: Vec<Fate> = keys.iter().map(|key| fates.of(key)).collect();
                    superseded = decided.iter().filter(|fate| **fate == Fate::Superseded).count() as u64;
                    for (key, _) in keys.iter().zip(&decided).filter(|(_, fate)| **fate == Fate::ReadAgain) {
                        attachments.extend(self.copies.moved.remember(table, RowKey::read(key), (fates.until, 0)));
                    }
                    batch.retain(|position| decided.get(position) == Some(&Fate::Write));
                }
                let is_much = self.copies.moved.len(table) > MOVED_ROWS_MUCH;
                let left = self.copies.moved.left(table).filter(|_| end.is_some() || is_much);
                if end.is_some() {
                    self.copies.moved.reach_end(table);
                }
                let (cursor, told) = cursor.written(table);
                let mut notices = Vec::new();
                match end {
                    Some(end) if left.is_none() => {
                        attachments.extend(self.copies.moved.end(table));
                        attachments.push(end.record);
                        // Of a table that is one chunk it is told that it began, too.
                        notices.extend(told.is_first().then_some(told).into_iter().chain([end.told]));
                    }
                    _ => {
                        attachments.push(cursor);
                        notices.push(told);
                    }
                }
                // What waits for the stream must not wait for room too: the stream may be waiting for the same.
                self.budget.charge(batch.iter().map(|record| cost_of(&record)).sum());
                drop(charge);
                let copied = Copied { emptied: None, batch, attachments, notices, committed: None };
                self.send(Work::Copied(Box::new(copied))).await?;
                Outcome::Written { superseded, left }
            }
        };
        // Who has asked may be gone, as at the end of a session.
        let _nobody_waits_any_more = outcome.send(come_to);
        Ok(())
    }
}
