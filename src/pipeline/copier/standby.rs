//! Chunks that are read at a standby, to spare the primary.
//!
//! The steps are those of [`chunk`](super::chunk) but for how it is known what a chunk's snapshot sees, which positions of the log tell
//! ([`Windows`](crate::snapshot::Windows) has the argument). Their order is the argument's:
//!
//! 1. nothing that is below the fence runs at the primary any more, and then the end of its log is asked for;
//! 2. the standby has replayed that, and where the stream was when the window was opened: how far it has come is asked for over the connection that reads;
//! 3. the snapshot is taken there;
//! 4. the end of the primary's log is asked for, and whether the standby is one of this cluster still, on the timeline of the stream.
//!
//! Rows that are to be read again are read at the primary. There are few of them; and what is in doubt is always read again, which may be without end for a row
//! that is changed more often than the standby takes to replay it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pgoutput::Lsn;
use tokio::{sync::Mutex, time::sleep};
use tracing::debug;
use walreceiver::ConnectOptions;

use super::{
    Copier,
    chunk::{ENDED_POLL, ENDED_TIMEOUT, Waits},
    table::Copying,
};
use crate::{
    catalog::{
        Catalog, Cluster, Replayed, RowReader, SnapshotTable, StandbyIdentity, at_standby, is_same_order, unfit,
    },
    failure::{Code, Failure},
    snapshot::{Opened, ReplaySight, Sight},
};

/// How long a standby may take to come to where the stream was when a window was opened, and for how long it may stand still meanwhile.
const REPLAY_TIMEOUT: Duration = Duration::from_mins(5);
const STANDSTILL_TIMEOUT: Duration = Duration::from_secs(30);

/// The standby that rows are read from.
pub(in crate::pipeline) struct StandbyParts {
    pub(in crate::pipeline) connect: Arc<ConnectOptions>,
    /// What it has to be a standby of.
    pub(in crate::pipeline) cluster: Cluster,
}

/// The same as copies use it.
pub(super) struct Standby {
    connect: Arc<ConnectOptions>,
    cluster: Cluster,
    /// For questions that are answered at once.
    asking: Mutex<Catalog>,
    identity: Mutex<StandbyIdentity>,
}

/// A chunk's snapshot can be taken.
pub(super) enum Ready {
    /// At the server that the stream comes from, where nothing may run below this id.
    AtPrimary { fence: u64 },
    /// At a standby that has come so far, and shows nothing to be running below this id.
    AtStandby { fence: u64, replayed: Replayed },
}

/// A chunk's snapshot that was taken, and is good.
pub(super) struct Taken {
    pub(super) sight: Sight,
    /// An end of the primary's log that was asked for after that, and whether it was flushed.
    pub(super) until: Lsn,
    pub(super) is_flushed: bool,
    pub(super) at_unix_us: i64,
}

impl Standby {
    pub(super) fn new(StandbyParts { connect, cluster }: StandbyParts) -> Self {
        Self {
            asking: Mutex::new(Catalog::new(Arc::clone(&connect))),
            identity: Mutex::new(StandbyIdentity::new(Arc::clone(&connect))),
            connect,
            cluster,
        }
    }

    /// Gives up the connections that no reader has.
    pub(super) async fn disconnect(&self) {
        self.asking.lock().await.disconnect();
        self.identity.lock().await.disconnect();
    }
}

impl Copier {
    /// A connection that reads rows where most are read.
    pub(super) fn reader(&self) -> RowReader {
        self.reader_at(self.standby.as_ref())
    }

    fn reader_at(&self, standby: Option<&Standby>) -> RowReader {
        let timeout = self.settings.statement_timeout;
        match standby {
            Some(standby) => RowReader::at_standby(Arc::clone(&standby.connect), timeout),
            None => RowReader::new(Arc::clone(&self.connect), timeout),
        }
    }

    /// Goes over to the server at which the next rows are to be read.
    pub(super) fn choose_server(&self, copying: &mut Copying) {
        self.go_over_to(copying, copying.again.is_none());
    }

    /// Goes over to the standby, if there is one, or to the primary.
    pub(super) fn go_over_to(&self, copying: &mut Copying, standby: bool) {
        let standby = self.standby.as_ref().filter(|_| standby);
        if copying.reader.is_at_standby() != standby.is_some() {
            copying.reader.disconnect();
            copying.reader = self.reader_at(standby);
        }
    }

    /// Who answers questions at the server that a reader reads at.
    pub(super) fn asking_at(&self, reader: &RowReader) -> &Mutex<Catalog> {
        self.standby.as_ref().filter(|_| reader.is_at_standby()).map_or(&self.asking, |standby| &standby.asking)
    }

    /// Waits for some time until a snapshot can be taken that sees all that was streamed before the window was opened.
    pub(super) async fn await_ready(
        &self,
        copying: &mut Copying,
        opened: Opened,
    ) -> Result<Result<Ready, Waits>, Failure> {
        if !copying.reader.is_at_standby() {
            let ended = self.await_ended(copying, opened).await?;
            return Ok(ended.map(|fence| Ready::AtPrimary { fence }));
        }
        let Some(standby) = &self.standby else {
            return Err(Failure::new(Code::Internal, "there is no standby to read rows at"));
        };
        let fence = self.fence(opened.epoch, copying.look).await?;
        let passed = match self.await_passed(copying, fence).await? {
            Ok(passed) => passed,
            Err(waits) => return Ok(Err(waits)),
        };
        let needed = opened.horizon.replayed.max(passed);
        let (began, mut moved, mut is_pushed) = (Instant::now(), (Lsn::INVALID, Instant::now()), false);
        loop {
            let replayed = copying.reader.replayed().await?;
            let is_above = opened.horizon.highest.is_none_or(|highest| replayed.ceiling.is_above(highest));
            if replayed.lsn >= needed {
                if is_above && replayed.ceiling.is_above_id(fence) {
                    self.verify_text_order(copying, standby).await?;
                    return Ok(Ok(Ready::AtStandby { fence, replayed }));
                }
                // One that was started lately may not show the newest transactions before it hears of a later one.
                if !std::mem::replace(&mut is_pushed, true) {
                    self.asking.lock().await.assign_xid().await?;
                }
            }
            if replayed.lsn > moved.0 {
                moved = (replayed.lsn, Instant::now());
            }
            if began.elapsed() > REPLAY_TIMEOUT || moved.1.elapsed() > STANDSTILL_TIMEOUT {
                let found = format!(
                    "the standby at {} has replayed the log up to {}, and rows are needed as of {needed}, where the stream was {} s ago",
                    standby.connect.server(),
                    replayed.lsn,
                    began.elapsed().as_secs()
                );
                return Err(Failure::new(Code::StandbyBehind, found));
            }
            if self.must_pause(copying.oid) || self.must_yield(copying) {
                let why = "somebody has asked to pause or to stop, or another table waits".to_owned();
                return Ok(Err(Waits { why, snapshot: None }));
            }
            sleep(ENDED_POLL).await;
        }
    }

    /// An end of the primary's log that was asked for when nothing ran there any more below the fence.
    async fn await_passed(&self, copying: &mut Copying, fence: u64) -> Result<Result<Lsn, Waits>, Failure> {
        if let Some((of, passed)) = copying.passed
            && of == fence
        {
            return Ok(Ok(passed));
        }
        let began = Instant::now();
        loop {
            // Whatever has ended for this snapshot has written its record before the log's end is asked for.
            let snapshot = self.asking.lock().await.current_snapshot().await?;
            if snapshot.xmin() >= fence {
                break;
            }
            if began.elapsed() > ENDED_TIMEOUT {
                return Ok(Err(Waits::for_transactions(snapshot)));
            }
            sleep(ENDED_POLL).await;
        }
        let mut asking = self.asking.lock().await;
        let (passed, is_flushed) = asking.log_end().await?;
        if !is_flushed {
            // What is not flushed is not sent to a standby.
            asking.assign_xid().await?;
        }
        copying.passed = Some((fence, passed));
        Ok(Ok(passed))
    }

    /// Takes the lock and the snapshot; or says why that has to wait.
    pub(super) async fn take(
        &self,
        copying: &mut Copying,
        (table, fingerprint): (&SnapshotTable, &str),
        ready: Ready,
    ) -> Result<Result<Taken, Waits>, Failure> {
        let (schema, name) = (&table.relation.schema, &table.relation.name);
        let altered = |snapshot| Ok(Err(Waits { why: "the table was altered".to_owned(), snapshot }));
        let (fence, replayed) = match ready {
            Ready::AtStandby { fence, replayed } => (fence, replayed),
            Ready::AtPrimary { fence } => {
                let taken = copying.reader.begin(schema, name, copying.oid).await?;
                if taken.fingerprint != fingerprint {
                    return altered(Some(taken.visibility));
                }
                if taken.visibility.xmin() < fence {
                    return Ok(Err(Waits::for_transactions(taken.visibility)));
                }
                copying.xmin = taken.visibility.xmin();
                return Ok(Ok(Taken {
                    sight: Sight::ById(taken.visibility),
                    until: taken.insert_lsn,
                    is_flushed: taken.is_flushed,
                    at_unix_us: taken.taken_unix_us,
                }));
            }
        };
        let Some(standby) = &self.standby else {
            return Err(Failure::new(Code::Internal, "there is no standby to read rows at"));
        };
        let taken = copying.reader.begin_at_standby(schema, name, copying.oid).await?;
        if taken.fingerprint != fingerprint {
            // It has yet to replay what the primary's catalog says, or the table was altered since that was asked.
            return altered(None);
        }
        let primary = async { self.asking.lock().await.primary_look().await };
        let identity = async { standby.identity.lock().await.verify(&taken.session, standby.cluster).await };
        let (primary, ()) = tokio::try_join!(primary, identity)?;
        if primary.timeline != standby.cluster.timeline {
            let found = format!(
                "the server of postgres.url is on timeline {}, and the stream comes from timeline {}",
                primary.timeline, standby.cluster.timeline
            );
            return Err(Failure::new(Code::PostgresUnavailable, found));
        }
        if taken.replayed_after > primary.log_end {
            let found = format!(
                "has replayed log that the primary does not have: up to {}, and the primary's ends at {}",
                taken.replayed_after, primary.log_end
            );
            return Err(unfit(&standby.connect, &found));
        }
        if !taken.ceiling.is_above_id(fence) {
            return Ok(Err(Waits::for_transactions(primary.visibility)));
        }
        debug!(table = %format_args!("{schema}.{name}"), replayed = %replayed.lsn, until = %primary.log_end, "reading at the standby");
        let sight = ReplaySight { replayed: replayed.lsn, ceiling: taken.ceiling, primary: primary.visibility };
        Ok(Ok(Taken {
            sight: Sight::ByReplay(sight),
            until: primary.log_end,
            is_flushed: primary.is_flushed,
            at_unix_us: taken.taken_unix_us,
        }))
    }

    /// A standby has the primary's indexes. Where its libraries order text otherwise, a search in them passes by what is there; and where it prints a key otherwise,
    /// the key is not known for that of a change which streams by.
    async fn verify_text_order(&self, copying: &mut Copying, standby: &Standby) -> Result<(), Failure> {
        let Some(there) = copying.reader.text_order_once().await? else { return Ok(()) };
        // Now, since an index may have come that has another collation than those before.
        let here = self.asking.lock().await.text_order().await?;
        if is_same_order(&there, &here) {
            copying.reader.text_order_is_verified();
            return Ok(());
        }
        let found = format!(
            "orders text by other versions of its libraries than the primary, so that rows are not found by its indexes, or prints values otherwise: {there}; and at the primary {here}"
        );
        Err(unfit(&standby.connect, &found))
    }

    /// What a failure means at the server that a reader reads at.
    pub(super) fn failed_at(&self, reader: &RowReader, failure: Failure) -> Failure {
        match &self.standby {
            Some(standby) if reader.is_at_standby() => at_standby(&failure, &standby.connect),
            _ => failure,
        }
    }
}
