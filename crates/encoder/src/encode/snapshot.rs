//! A row that was there before the stream: an event with `op` `r`, and otherwise what an insert of the row would be.
//!
//! It belongs to no transaction, and so has no place in one. What it says of its source is what the snapshot says.
//!
//! Whoever copies rows while the stream runs has to know which of them a change speaks of: [`BoundPlan::key_of`] has the key of a row, and
//! [`BoundPlan::keys_of`] those of a change, whether it has records or is skipped, or is a dead letter.

use pgoutput::{Lsn, OldTuple, Tuple};

use super::{BoundPlan, Dead, Encoded, Encoder, Row};
use crate::{Change, EncodeError, EncodeErrorKind, EventContext, Operation, RecordBatch, SnapshotContext};

impl BoundPlan {
    /// Appends the record of a row that was read in a snapshot, an event with `op` `r`. On error the batch is not touched.
    ///
    /// With [`Envelope::Upsert`](crate::Envelope::Upsert) it is the row, like that of any change. What cannot be written, and what is
    /// [skipped](crate::EncodeOptions::skipped), is as with [`encode`](Self::encode), but there is no order to count in.
    ///
    /// `processed_unix_ns` as in [`EventContext`].
    pub fn encode_read(
        &self,
        row: &Tuple,
        snapshot: &SnapshotContext,
        processed_unix_ns: i64,
        batch: &mut RecordBatch,
    ) -> Result<Encoded, EncodeError> {
        let context = EventContext { transaction: &snapshot.source, lsn: snapshot.lsn, processed_unix_ns };
        match batch.append(|batch| self.encoder(&context, None, batch).read(row)) {
            Ok(()) => Ok(Encoded::Events),
            Err(error) => self.bury(&Dead::read(row), &context, None, error, batch),
        }
    }

    /// Appends the key of a row, and returns whether the table has one.
    ///
    /// Two keys are the same exactly if their bytes are. These are the key's fields in Avro, whatever the format of
    /// the records, and without the schema's id, which may change while the key does not. `lsn` is for the error.
    pub fn key_of(&self, row: &Tuple, lsn: Lsn, out: &mut Vec<u8>) -> Result<bool, EncodeError> {
        self.plan.write_key(row, None, lsn, out)?;
        Ok(self.plan.has_key())
    }

    /// Shows each key that a change touches, as [`key_of`](Self::key_of) has it: the old row's and the new one's, which are mostly the same.
    /// A truncation touches all, and shows none; nor does a change of a table without a key.
    ///
    /// `scratch` is where a key is put together; what it held is gone.
    pub fn keys_of(
        &self,
        change: Change<'_>,
        lsn: Lsn,
        scratch: &mut Vec<u8>,
        mut show: impl FnMut(&[u8]),
    ) -> Result<(), EncodeError> {
        let (old, new) = match change {
            Change::Insert(insert) => (&OldTuple::Absent, Some(&insert.new)),
            Change::Update(update) => (&update.old, Some(&update.new)),
            Change::Delete(delete) => (&delete.old, None),
            Change::Truncate => return Ok(()),
        };
        if !self.plan.has_key() {
            return Ok(());
        }
        let old = match old {
            OldTuple::Key(old) | OldTuple::Full(old) => Some(old),
            OldTuple::Absent if new.is_none() => {
                return Err(self.plan.error(EncodeErrorKind::MissingOldRow, None, lsn));
            }
            OldTuple::Absent => None,
        };
        let rows = [old.map(|row| (row, None)), new.map(|row| (row, old))];
        for (row, old) in rows.into_iter().flatten() {
            scratch.clear();
            self.plan.write_key(row, old, lsn, scratch)?;
            show(scratch);
        }
        Ok(())
    }
}

impl Encoder<'_> {
    fn read(&mut self, row: &Tuple) -> Result<(), EncodeError> {
        if self.skips(Operation::Read) {
            return Ok(());
        }
        let key = self.key(row, None)?;
        self.event(key, Operation::Read, Row::Null, Row::Full(row, None))
    }
}
