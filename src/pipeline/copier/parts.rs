//! How one table is copied by several connections: in [`Parts`], with the argument why that is right.
//!
//! A table has one worker whose turn it is, its lead, which does all that concerns the table: it describes it, decides to share it, reads again what has to
//! be, and ends the copy. Where a table is large, and workers have nothing to do, it cuts what is left of the table into parts, and copies one
//! after the other. Workers without a table of their own take parts too. They are helpers: whatever is not rows they leave to the lead. A
//! helper gives its part back, as far as it is, as soon as a table waits for a worker, the lead ends its turn, or something is wrong with
//! the table, which the lead finds for itself then. So a large table never keeps another one waiting, and what is stopped, altered, gone or put off is so by one
//! worker, after all others have let go of it.
//!
//! The lead does not end its turn while somebody else has a part: what the stream has of one may be written still.

use std::sync::Arc;

use tracing::{debug, info, warn};

use super::{
    Copier,
    range::place,
    state::Help,
    table::{Copying, Step},
};
use crate::{
    catalog::RowReader,
    failure::{Code, Failure},
    snapshot::{By, PARTS_MAX, Parts, Settles, Taken, cut, is_place},
};

/// How many blocks of a table are read to find where to cut it.
const BLOCKS_SAMPLED: u64 = 256;

/// A part that is being copied, and by whom.
pub(super) struct OfPart {
    pub(super) parts: Arc<Parts>,
    pub(super) taken: Taken,
    pub(super) by: By,
}

impl Copying {
    /// The key with which the part ends that is being copied, if it has an end.
    pub(super) fn up_to(&self) -> Option<&[String]> {
        self.part.as_ref().and_then(|part| part.taken.part.up_to())
    }

    /// Whether a part cannot be left at this place.
    pub(super) fn cannot_stop_at(&self, last: Option<&Vec<String>>) -> bool {
        self.part.is_some() && self.again.is_none() && last.is_some_and(|last| !is_place(last))
    }

    fn begin_part(&mut self, part: OfPart) {
        self.record = part.parts.record().without_parts();
        self.record.after = part.taken.part.after().cloned();
        self.part = Some(part);
        self.go_back();
    }
}

impl Copier {
    /// Copies a table that is read in the order of its key, in parts where there are some. Ends as [`copy_chunks`](Self::copy_chunks) does.
    pub(super) async fn copy_in_order(&self, copying: &mut Copying, is_resumed: bool) -> Result<Step, Failure> {
        loop {
            if !copying.record.parts.is_empty()
                && let Some(step) = self.copy_parts(copying).await?
            {
                return Ok(step);
            }
            match self.copy_chunks(copying, is_resumed).await? {
                Step::Split => {
                    if let Some(step) = self.land_all(copying).await? {
                        return Ok(step);
                    }
                    self.split(copying).await;
                }
                step => return Ok(step),
            }
        }
    }

    /// Whether workers that have nothing to do could share the table's rows.
    pub(super) fn may_split(&self, copying: &Copying) -> bool {
        let is_in_the_middle = copying.part.is_none()
            && !copying.is_read
            && copying.left.is_none()
            && copying.again.is_none()
            && copying.settles != Settles::AllBefore;
        copying.may_split && is_in_the_middle && self.state().has_idle_workers()
    }

    /// Cuts what is left of a table, where that is worth it. A table that cannot be cut is copied all the same.
    async fn split(&self, copying: &mut Copying) {
        // If not all that was read was written, it is for later.
        if copying.described.is_none() || copying.left.is_some() || copying.again.is_some() {
            return;
        }
        copying.may_split = false;
        let oid = copying.oid;
        let cuts = tokio::select! {
            cuts = self.find_cuts(copying) => Some(cuts),
            () = self.stopping(oid) => None,
        };
        let cuts = match cuts {
            Some(Ok(cuts)) => cuts,
            Some(Err(failure)) => {
                copying.reader.disconnect();
                let (schema, table) = (&copying.record.schema, &copying.record.table);
                info!(
                    schema,
                    table, "where to cut the table could not be found, so that one connection copies it: {failure}"
                );
                return;
            }
            None => return self.give_up(&mut copying.reader).await,
        };
        let Some(parts) = cut(copying.record.after.as_ref(), &cuts) else { return };
        info!(
            schema = copying.record.schema,
            table = copying.record.table,
            parts = parts.len(),
            "the table is large: connections that are free copy parts of it"
        );
        copying.record.parts = parts;
    }

    /// Keys at which what is left of a table can be cut; none if it is not large.
    async fn find_cuts(&self, copying: &mut Copying) -> Result<Vec<Vec<String>>, Failure> {
        // A sample of some blocks, in which nothing need be known of what is seen: the primary is asked, wherever rows are read.
        self.go_over_to(copying, false);
        let Some(described) = &copying.described else { return Ok(Vec::new()) };
        let relation = &described.table.relation;
        let taken = copying.reader.begin(&relation.schema, &relation.name, copying.oid).await?;
        let (bytes, blocks) = copying.reader.size(copying.oid).await?;
        if taken.fingerprint != described.fingerprint || bytes < self.settings.split_above_bytes {
            copying.reader.end().await?;
            return Ok(Vec::new());
        }
        let after = copying.record.after.as_deref().map(place).transpose()?;
        #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let percent = (BLOCKS_SAMPLED as f64 / blocks.max(1) as f64 * 100.0).min(100.0);
        let query = described.table.copy().cuts(&described.order, after.as_ref(), percent, PARTS_MAX);
        let query = query.ok_or_else(super::range::no_key)?;
        let found = copying.reader.all_rows(&query).await?;
        copying.reader.end().await?;
        let columns = described.order.columns.len();
        let counted = |column: usize| found.first().and_then(|row| row.get(column)?.parse::<u64>().ok());
        let (behind, sampled) = (counted(columns).unwrap_or(0), counted(columns + 1).unwrap_or(0));
        // Of a table that is copied nearly to its end little is left to share.
        let is_large =
            u128::from(bytes) * u128::from(behind) >= u128::from(self.settings.split_above_bytes) * u128::from(sampled);
        let key = |mut row: Vec<String>| {
            row.truncate(columns);
            row
        };
        Ok(if is_large { found.into_iter().map(key).collect() } else { Vec::new() })
    }

    /// Copies the parts of a table together with whoever helps. None if nothing is left but what comes behind the last of them, or all that is behind one
    /// place.
    async fn copy_parts(&self, copying: &mut Copying) -> Result<Option<Step>, Failure> {
        let oid = copying.oid;
        let parts = Arc::new(Parts::new(copying.record.clone()));
        self.state().share(oid, copying.look, Arc::clone(&parts));
        self.work.notify_waiters();
        let ended = self.lead(copying, &parts).await;
        self.state().withdraw(oid);
        parts.close();
        self.changed.notify_waiters();
        loop {
            let changed = self.changed.notified();
            if parts.taken() == 0 {
                break;
            }
            changed.await;
        }
        let step = ended?;
        copying.part = None;
        copying.record = parts.record();
        if matches!(step, Some(Step::Dissolve)) {
            copying.record = copying.record.without_parts();
        }
        copying.go_back();
        (copying.left, copying.again, copying.settles) = (None, None, Settles::Rows(Vec::new()));
        self.state().progress.tables.insert(oid.into(), copying.record.clone());
        match step {
            Some(Step::Dissolve) => {
                // But for one with another key, which begins anew and may be shared then: `go_by` says so.
                copying.may_split = false;
                let (schema, table) = (&copying.record.schema, &copying.record.table);
                info!(
                    schema,
                    table, "the table is not copied in parts any more, for it has another key, or a long one"
                );
                Ok(None)
            }
            Some(step) => Ok(Some(step)),
            None => {
                // What has come behind the last part may be much.
                copying.may_split = true;
                Ok(None)
            }
        }
    }

    /// Copies one part after another, and waits for those that others copy. None once all are over.
    async fn lead(&self, copying: &mut Copying, parts: &Arc<Parts>) -> Result<Option<Step>, Failure> {
        loop {
            let changed = self.changed.notified();
            if let Some(taken) = parts.take(By::Lead) {
                let part = OfPart { parts: Arc::clone(parts), taken, by: By::Lead };
                match self.copy_part(copying, part).await? {
                    Step::PartOver => continue,
                    step => return Ok(Some(step)),
                }
            }
            if parts.are_over() {
                return Ok(None);
            }
            {
                let state = self.state();
                if state.stopping.contains(&copying.oid.into()) {
                    return Ok(Some(Step::Stopped));
                }
                if state.is_beyond(copying.worker) {
                    return Ok(Some(Step::Again(Self::FEWER.to_owned())));
                }
            }
            changed.await;
        }
    }

    /// Copies a part, to its end or until something else is to be done. The stream has nothing of it afterwards, unless the session is over.
    async fn copy_part(&self, copying: &mut Copying, part: OfPart) -> Result<Step, Failure> {
        let (parts, id) = (Arc::clone(&part.parts), part.taken.id);
        copying.begin_part(part);
        let ended = self.copy_chunks(copying, true).await;
        let ended = self.let_go(copying, ended).await;
        parts.give_back(id);
        self.changed.notify_waiters();
        self.work.notify_waiters();
        ended
    }

    /// Hears what became of all that the stream has of a part, or of a table, which may have been the last of it.
    pub(super) async fn let_go(&self, copying: &mut Copying, ended: Result<Step, Failure>) -> Result<Step, Failure> {
        // Who waits for the worker is not to wait for a stream that is behind.
        if matches!(ended, Ok(Step::Stopped | Step::Yielded)) {
            self.abandon(copying).await?;
        }
        // What the stream has may be written still, and where the next turn begins has to be true.
        Ok(match self.land_all(copying).await? {
            Some(over) => over,
            None => ended?,
        })
    }

    /// Copies a part of a table that another worker leads.
    pub(super) async fn help(&self, help: Help, worker: usize, reader: &mut RowReader) -> Result<(), Failure> {
        let Help { oid, look, parts, taken } = help;
        let record = parts.record();
        let (schema, table) = (record.schema.clone(), record.table.clone());
        debug!(schema, table, part = taken.id.0, worker, "a part of the table is copied over another connection");
        let mut copying = Copying::new(self, oid, (worker, look), reader, record);
        let ended = self.copy_part(&mut copying, OfPart { parts, taken, by: By::Helper }).await;
        *reader = copying.reader;
        match ended {
            Ok(Step::PartOver | Step::Yielded | Step::Stopped) => {}
            Ok(_) => self.state().rest_from_helping(oid),
            Err(failure) if failure.code() == Code::Internal => return Err(failure),
            Err(failure) => {
                self.metrics.copy_failed(&failure);
                let code = failure.code().as_str();
                let failure = failure.in_table(&schema, &table);
                warn!(code, "a connection that helps to copy a table leaves it to others for now: {failure}");
                self.state().rest_from_helping(oid);
            }
        }
        Ok(())
    }

    /// Whether a helper is to give its part back.
    pub(super) fn must_yield(&self, copying: &Copying) -> bool {
        let Some(OfPart { parts, by: By::Helper, .. }) = &copying.part else { return false };
        let state = self.state();
        state.do_tables_wait() || state.is_beyond(copying.worker) || parts.are_wanted_back()
    }

    /// A chunk was written: how far the table is.
    pub(super) fn keep_record(&self, copying: &Copying) {
        let state = &mut *self.state();
        // Made here, so that none that is newer was kept before.
        let record = copying.part.as_ref().map_or_else(|| copying.record.clone(), |part| part.parts.record());
        state.progress.tables.insert(copying.oid.into(), record);
    }
}
