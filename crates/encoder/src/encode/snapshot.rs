//! A row that was there before the stream: an event with `op` `r`, and otherwise what an insert of the row would be.
//!
//! It belongs to no transaction, and so has no place in one. What it says of its source is what the snapshot says. So it is with the event that
//! says, before such rows, that there was none.

use pgoutput::Tuple;

use super::{BoundPlan, Dead, Encoded, Encoder, Row};
use crate::{EncodeError, EventContext, Operation, RecordBatch, SnapshotContext};

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
        if self.plan.unfit.is_some() {
            return self.bury_unfit(&Dead::read(row), &context, None, batch);
        }
        let records = batch.len();
        match batch.append(|batch| self.encoder(&context, None, batch).read(row)) {
            Ok(()) if batch.len() == records => Ok(Encoded::Skipped),
            Ok(()) => Ok(Encoded::Events),
            Err(error) => self.bury(&Dead::read(row), &context, None, error, batch),
        }
    }

    /// Appends the record that the table was emptied, an event with `op` `t`, for rows of a snapshot to be all that there is behind it. On error the
    /// batch is not touched, and where there is no such record ([`TablePlan::can_empty`](crate::TablePlan::can_empty)) nothing is appended.
    ///
    /// `processed_unix_ns` as in [`EventContext`].
    pub fn encode_emptied(
        &self,
        snapshot: &SnapshotContext,
        processed_unix_ns: i64,
        batch: &mut RecordBatch,
    ) -> Result<(), EncodeError> {
        if self.plan.unfit.is_some() {
            return Ok(());
        }
        let context = EventContext { transaction: &snapshot.source, lsn: snapshot.lsn, processed_unix_ns };
        batch.append(|batch| self.encoder(&context, None, batch).truncate())
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
