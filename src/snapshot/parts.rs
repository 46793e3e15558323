//! One table that is copied in parts, by several connections.
//!
//! The range of a table's key is cut at some keys. A part is what lies behind one key, up to another and with it; the first part begins where the
//! copy stands, and the last one has no end. Keys are compared by the server alone, in the order by which rows are read, so that each key that
//! there is, or will be, lies in one part and in no other, wherever the cuts are. A bad cut costs time.
//!
//! Each part is copied as a table is: one chunk behind another, each through a [window](super::Windows) of its own, and written only if the one before it in
//! the same part was. The argument for a row is one of its key and of the chunk that has it, and asks for no order between chunks of different keys. So
//! parts may be written in any order. What is said of a table holds for all of its parts: what spoils its windows spoils those of each part, and the keys
//! that are [to be read again](super::MovedRows) are the table's.
//!
//! How far all parts are is one record, [`TableRecord`]. It is made when a chunk is *written*, by the stream, since no part knows before which chunks of
//! the others come first; and it goes into the Kafka transaction of that chunk's rows. So it never speaks of more than was written before it, nor of less:
//!
//! - `after` is the place of the first part that is not over. All that lies before it is copied, so that whoever knows no parts, as a build from
//!   before there were any, may go on there: he reads rows twice and misses none.
//! - `parts` are those that are not over, in order, each with its place; none where only the last one is left. A part that is over is not
//!   among them, and is not read again.
//! - That a table is cut stands in the first record that a part writes. Before that, nothing of a part is in Kafka.
//!
//! The last part has no end, and rows may come behind it for ever: it is never over. Once it has come to the end of what there was it waits for the others; when
//! it alone is left the table is one with one cursor again, and whatever has come since is read, with the keys that are to be read again, as
//! at the end of any other copy. So nothing but one chunk of a table without parts ends a copy, and none is read before every part is written.
//!
//! A record has [`PARTS_MAX`] parts at most. None is cut at a long key, and a part that comes to a place whose key is too long for that ends the
//! sharing: the table is gone on with from `after`, with one cursor. What later parts had copied is read once more then, which happens where keys of
//! more than 4 KiB are among short ones, and no row is lost by it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgoutput::Oid;
use publisher::Attachment;
use serde::{Deserialize, Serialize};

use super::{
    notice::{Happened, Notice},
    state::TableRecord,
};

/// How many parts a table has at most.
pub(crate) const PARTS_MAX: usize = 16;
/// How many bytes the values of a key have at which a table is cut, at most.
const CUT_BYTES_MAX: usize = 1 << 10;
/// The same of one that is a part's place: all of them have to fit into one record, escaped as JSON.
const PLACE_BYTES_MAX: usize = 4 << 10;

/// A part of a table that is not over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The key of the last row that is in Kafka, or at which the part begins; none for one that begins with the table's first row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<Vec<String>>,
    /// The key with which it ends; none for the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    up_to: Option<Vec<String>>,
}

/// Names a part among those of its table. A table without parts is the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct PartId(pub(crate) u8);

/// A part that somebody has begun to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) id: PartId,
    pub(crate) part: Part,
}

/// Who copies a part: whose turn at the table it is, or somebody who would be idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Lead,
    Helper,
}

/// The parts of a table that is being copied: as of what is written.
#[derive(Debug)]
pub(crate) struct Parts(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// What holds for the table. Where its parts are is in the slots.
    record: TableRecord,
    /// All that there were at first, in order. The last one has no end.
    slots: Vec<Slot>,
    /// Nobody is to copy any more.
    is_closed: bool,
    /// The lead has found nothing to do.
    lead_waits: bool,
    /// A part is to be the lead's.
    is_for_lead: bool,
}

#[derive(Debug)]
struct Slot {
    part: Part,
    is_taken: bool,
    is_over: bool,
}

/// What the checkpoint is to say of a copy once a chunk is written.
#[derive(Debug)]
pub(crate) enum Cursor {
    /// That of a table with one cursor, and what is told with it.
    Whole(Attachment, Notice),
    Part(Advance),
}

/// A part has come further.
#[derive(Debug)]
pub(crate) struct Advance {
    pub(crate) parts: Arc<Parts>,
    pub(crate) id: PartId,
    /// The last row of the chunk, if it has any that was not passed before.
    pub(crate) last: Option<Vec<String>>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// Whether nothing of the part comes behind it.
    pub(crate) is_end: bool,
}

impl Part {
    pub(crate) fn after(&self) -> Option<&Vec<String>> {
        self.after.as_ref()
    }

    pub(crate) fn up_to(&self) -> Option<&[String]> {
        self.up_to.as_deref()
    }
}

/// Whether a key may be the place of a part.
pub(crate) fn is_place(key: &[String]) -> bool {
    bytes(key) <= PLACE_BYTES_MAX
}

fn bytes(key: &[String]) -> usize {
    key.iter().map(String::len).sum()
}

/// Whether these can be the parts of a record whose place is `after`.
pub(super) fn are_parts(parts: &[Part], after: Option<&Vec<String>>) -> bool {
    match parts {
        [] => true,
        [first, between @ .., last] => {
            let have_ends = first.up_to.is_some() && between.iter().all(|part| part.up_to.is_some());
            let have_places = last.after.is_some() && between.iter().all(|part| part.after.is_some());
            parts.len() <= PARTS_MAX && have_ends && have_places && last.up_to.is_none() && first.after() == after
        }
        [_] => false,
    }
}

/// What of a table with one cursor is not copied yet, cut at these keys, which are in order and lie behind it. None if there is nothing to cut, or
/// a key is too long.
pub(crate) fn cut(after: Option<&Vec<String>>, cuts: &[Vec<String>]) -> Option<Vec<Part>> {
    let is_fit = !cuts.is_empty() && cuts.len() < PARTS_MAX;
    if !is_fit || cuts.iter().any(|key| bytes(key) > CUT_BYTES_MAX) || after.is_some_and(|after| !is_place(after)) {
        return None;
    }
    let places = std::iter::once(after.cloned()).chain(cuts.iter().cloned().map(Some));
    let ends = cuts.iter().cloned().map(Some).chain([None]);
    Some(places.zip(ends).map(|(after, up_to)| Part { after, up_to }).collect())
}

impl Parts {
    /// Those of a table, as its record has them.
    pub(crate) fn new(record: TableRecord) -> Self {
        let slot = |part: Part| Slot { part, is_taken: false, is_over: false };
        let slots = record.parts.iter().cloned().map(slot).collect();
        Self(Mutex::new(Inner { record, slots, is_closed: false, lead_waits: false, is_for_lead: false }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // It is whole after every statement, so that a panic elsewhere leaves nothing broken.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next part that nobody copies, if there is one.
    pub(crate) fn take(&self, by: By) -> Option<Taken> {
        let inner = &mut *self.lock();
        if inner.is_closed || by == By::Helper && inner.is_for_lead {
            return None;
        }
        let position = inner.slots.iter().position(|slot| !slot.is_taken && !slot.is_over);
        if by == By::Lead {
            inner.lead_waits = position.is_none();
            // Until it has one.
            inner.is_for_lead &= inner.lead_waits;
        }
        let slot = inner.slots.get_mut(position?)?;
        slot.is_taken = true;
        Some(Taken { id: PartId(u8::try_from(position?).ok()?), part: slot.part.clone() })
    }

    /// Nobody copies the part any more, and the stream has nothing of it.
    pub(crate) fn give_back(&self, PartId(id): PartId) {
        if let Some(slot) = self.lock().slots.get_mut(usize::from(id)) {
            slot.is_taken = false;
        }
    }

    /// How many parts are being copied.
    pub(crate) fn taken(&self) -> usize {
        self.lock().slots.iter().filter(|slot| slot.is_taken).count()
    }

    /// Whether all have come to their ends.
    pub(crate) fn are_over(&self) -> bool {
        self.lock().slots.iter().all(|slot| slot.is_over)
    }

    /// Nobody is to begin a part, and who copies one is to give it back.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
    }

    /// A helper has heard of keys that are to be read again before the copy goes on. That is for the lead: if it waits, the helper's part is to be its.
    pub(crate) fn have_moved_rows(&self) {
        let inner = &mut *self.lock();
        inner.is_for_lead |= inner.lead_waits;
    }

    /// Whether a helper is to give its part back.
    pub(crate) fn are_wanted_back(&self) -> bool {
        let inner = self.lock();
        inner.is_closed || inner.is_for_lead
    }

    /// Whether nobody is to copy any more.
    pub(crate) fn are_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Under which name the table was found last.
    pub(crate) fn name(&self, schema: &str, table: &str) {
        let record = &mut self.lock().record;
        schema.clone_into(&mut record.schema);
        table.clone_into(&mut record.table);
    }

    /// As of what is written.
    pub(crate) fn record(&self) -> TableRecord {
        self.lock().composed()
    }
}

impl Inner {
    fn composed(&self) -> TableRecord {
        let last = self.slots.len().saturating_sub(1);
        let is_left = |(position, slot): &(usize, &Slot)| !slot.is_over || *position == last;
        let mut left: Vec<Part> =
            self.slots.iter().enumerate().filter(is_left).map(|(_, slot)| slot.part.clone()).collect();
        let after = left.first().and_then(|part| part.after.clone());
        if left.len() == 1 {
            left.clear();
        }
        self.record.at(after, left)
    }
}

impl Advance {
    /// It is written; the record is how far all parts are.
    fn written(self) -> TableRecord {
        let inner = &mut *self.parts.lock();
        if let Some(slot) = inner.slots.get_mut(usize::from(self.id.0)) {
            slot.part.after = self.last.or_else(|| slot.part.after.take());
            slot.is_over |= self.is_end;
        }
        inner.record.rows += self.rows;
        inner.record.bytes += self.bytes;
        inner.composed()
    }
}

impl Cursor {
    /// The chunk is written: what the checkpoint is to say with it, and what is told.
    pub(crate) fn written(self, table: Oid) -> (Attachment, Notice) {
        match self {
            Self::Whole(attachment, notice) => (attachment, notice),
            Self::Part(advance) => {
                let record = advance.written();
                (record.attachment(table), Notice::of_table(Happened::InProgress, &record))
            }
        }
    }
}

#[cfg(test)]
mod tests;
