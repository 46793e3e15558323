//! What the two halves of a stream share, and how a stream starts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use pgoutput::Lsn;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use crate::{
    Feedback, ServerError, WalReader, feedback::FeedbackTask, frames::FrameBuffer, reader::Parts, socket::Socket,
};

/// Limits and times of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSettings {
    /// The largest message that is taken, in bytes; a larger one is
    /// [`Error::FrameTooLarge`](crate::Error::FrameTooLarge). PostgreSQL's own limit is 1 GiB.
    pub frame_bytes_max: usize,
    /// The server hears of the positions at least this often. A third of its `wal_sender_timeout` is used if that is
    /// less.
    pub status_interval: Duration,
    /// Silence after which the server is asked for a sign of life, and again after as long; half of the idle timeout if that is less.
    pub question_after: Duration,
    /// The session's `wal_sender_timeout` is brought down to this where it is longer or off, so that a server notices soon that a client is gone and gives
    /// its slot to another. What somebody has chosen for the connection, the role or the database stays.
    pub sender_timeout_max: Option<Duration>,
    /// Silence after which the server is given up.
    ///
    /// `None` for two thirds of its `wal_sender_timeout` (40 s where that is off), as it is before it is brought down, so that a black hole is noticed
    /// before the server gives up, and not before it can have answered: while it decodes a large transaction of which
    /// nothing is to be sent, it looks at what the client says only each `wal_sender_timeout` / 2 (pg `walsender.c`,
    /// `WalSndUpdateProgress`).
    pub idle_timeout: Option<Duration>,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            frame_bytes_max: 64 << 20,
            status_interval: Duration::from_secs(10),
            question_after: Duration::from_secs(4),
            sender_timeout_max: None,
            idle_timeout: None,
        }
    }
}

/// The times that follow from the settings and from what the server has configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) status_interval: Duration,
    pub(crate) question_after: Duration,
    pub(crate) idle_timeout: Duration,
}

/// The server's `wal_sender_timeout`, none where it is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SenderTimeout {
    /// As it is configured.
    pub(crate) configured: Option<Duration>,
    /// As the session has it.
    pub(crate) in_force: Option<Duration>,
}

impl Times {
    fn new(settings: &StreamSettings, sender_timeout: SenderTimeout) -> Self {
        let derived = sender_timeout.configured.map_or(Duration::from_secs(40), |limit| limit * 2 / 3);
        let idle_timeout = settings.idle_timeout.unwrap_or(derived).max(Duration::from_millis(100));
        Self {
            status_interval: sender_timeout
                .in_force
                .map_or(settings.status_interval, |limit| settings.status_interval.min(limit / 3)),
            question_after: settings.question_after.min(idle_timeout / 2),
            idle_timeout,
        }
    }
}

/// What the reader, the feedback task and the caller's handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) server: Arc<str>,
    /// Wakes the feedback task.
    pub(crate) wake: Notify,
    received: AtomicU64,
    confirmed: AtomicU64,
    sent_written: AtomicU64,
    sent_flushed: AtomicU64,
    reply_requested: AtomicBool,
    stop: AtomicU8,
    started: Instant,
    heard_after_ms: AtomicU64,
}

/// Whether the feedback task shall go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    No,
    /// Say the positions and `CopyDone`, and leave the rest to the reader.
    Finish,
    /// The reader is gone: say the positions and goodbye.
    Abandon,
}

impl Shared {
    fn new(server: Arc<str>, start: Lsn) -> Self {
        Self {
            server,
            wake: Notify::new(),
            received: AtomicU64::new(start.into()),
            confirmed: AtomicU64::new(0),
            sent_written: AtomicU64::new(0),
            sent_flushed: AtomicU64::new(0),
            reply_requested: AtomicBool::new(false),
            stop: AtomicU8::new(0),
            started: Instant::now(),
            heard_after_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn received(&self) -> Lsn {
        self.received.load(Ordering::Acquire).into()
    }

    pub(crate) fn receive(&self, position: Lsn) {
        self.received.fetch_max(position.into(), Ordering::AcqRel);
    }

    pub(crate) fn confirmed(&self) -> Lsn {
        self.confirmed.load(Ordering::Acquire).into()
    }

    /// Confirms a position; whether it is further than before.
    pub(crate) fn confirm(&self, position: Lsn) -> bool {
        self.confirmed.fetch_max(position.into(), Ordering::AcqRel) < position.into()
    }

    /// What the server was told last: received, confirmed.
    pub(crate) fn sent(&self) -> (Lsn, Lsn) {
        (self.sent_written.load(Ordering::Acquire).into(), self.sent_flushed.load(Ordering::Acquire).into())
    }

    pub(crate) fn set_sent(&self, written: Lsn, flushed: Lsn) {
        self.sent_written.store(written.into(), Ordering::Release);
        self.sent_flushed.store(flushed.into(), Ordering::Release);
    }

    pub(crate) fn request_reply(&self) {
        self.reply_requested.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    pub(crate) fn take_reply_request(&self) -> bool {
        self.reply_requested.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn heard(&self, now: Instant) {
        let after_ms = u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX);
        self.heard_after_ms.store(after_ms, Ordering::Relaxed);
    }

    pub(crate) fn heard_at(&self) -> Instant {
        self.started + self.heard_after()
    }

    /// When something was last read, counted from the start of the stream.
    pub(crate) fn heard_after(&self) -> Duration {
        Duration::from_millis(self.heard_after_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn stop(&self) -> Stop {
        match self.stop.load(Ordering::Acquire) {
            0 => Stop::No,
            1 => Stop::Finish,
            _ => Stop::Abandon,
        }
    }

    pub(crate) fn set_stop(&self, stop: Stop) {
        self.stop.fetch_max(stop as u8, Ordering::AcqRel);
        self.wake.notify_one();
    }
}

/// A connection that has just answered `START_REPLICATION`.
pub(crate) struct Start {
    pub(crate) socket: Socket,
    pub(crate) received: BytesMut,
    pub(crate) server: Arc<str>,
    pub(crate) position: Lsn,
    pub(crate) settings: StreamSettings,
    pub(crate) sender_timeout: SenderTimeout,
    pub(crate) streams_open_transactions: bool,
}

/// Takes the connection apart, and gives the half that writes to a task of its own.
pub(crate) fn start(start: Start) -> (WalReader, Feedback) {
    let times = Times::new(&start.settings, start.sender_timeout);
    let shared = Arc::new(Shared::new(start.server, start.position));
    let (read, write) = start.socket.into_split();
    let (failed, failure) = oneshot::channel();
    let task = FeedbackTask::new(write, Arc::clone(&shared), times);
    let writer = tokio::spawn(task.run_and_tell(failed));
    let buffer = FrameBuffer::new(start.received, start.settings.frame_bytes_max, start.streams_open_transactions);
    let parts = Parts {
        read,
        buffer,
        shared: Arc::clone(&shared),
        failure,
        writer,
        times,
        frame_bytes_max: start.settings.frame_bytes_max,
    };
    (WalReader::new(parts), Feedback::new(shared))
}

/// Tells the operator what the server says beside the data.
pub(crate) fn log_notice(server: &Arc<str>, body: &[u8]) {
    match ServerError::parse(body) {
        Some(notice) if notice.severity() == "WARNING" => tracing::warn!(%server, %notice, "PostgreSQL warns"),
        Some(notice) => tracing::debug!(%server, %notice, "PostgreSQL notes"),
        None => tracing::warn!(%server, "PostgreSQL sent a malformed notice"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_timeout_is_undercut() {
        let settings = StreamSettings::default();
        let limit = |limit_ms: u64| (limit_ms > 0).then(|| Duration::from_millis(limit_ms));
        let times = |limit_ms: u64| {
            let limit = limit(limit_ms);
            Times::new(&settings, SenderTimeout { configured: limit, in_force: limit })
        };
        for limit_ms in [300, 2_000, 60_000, 600_000] {
            let (times, limit) = (times(limit_ms), Duration::from_millis(limit_ms));
            assert!(times.status_interval < limit / 2, "{times:?}");
            assert!(times.idle_timeout > limit / 2 && times.idle_timeout < limit, "{times:?}");
        }
        let (ten, forty) = (Duration::from_secs(10), Duration::from_secs(40));
        let asked = Duration::from_secs(4);
        assert_eq!(times(0), Times { status_interval: ten, question_after: asked, idle_timeout: forty });
        assert_eq!(times(3_000).question_after, Duration::from_secs(1));
        // Brought down, it wants to hear more often, and has as long for its decoding as it had.
        let lowered = SenderTimeout { configured: limit(60_000), in_force: limit(9_000) };
        let expected = Times { status_interval: Duration::from_secs(3), question_after: asked, idle_timeout: forty };
        assert_eq!(Times::new(&settings, lowered), expected);
    }

    #[test]
    fn positions_never_fall() {
        let shared = Shared::new("test".into(), Lsn::from(50));
        assert!(shared.confirm(Lsn::from(20)));
        assert!(!shared.confirm(Lsn::from(10)));
        assert!(!shared.confirm(Lsn::from(20)));
        assert_eq!(shared.confirmed(), Lsn::from(20));
        shared.receive(Lsn::from(40));
        assert_eq!(shared.received(), Lsn::from(50));
    }
}
