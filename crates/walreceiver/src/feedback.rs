//! What the server is told, on a task of its own.

use std::{io, sync::Arc, time::SystemTime};

use bytes::{BufMut, BytesMut};
use pgoutput::{Lsn, StatusUpdate, Timestamp};
use tokio::{
    io::AsyncWriteExt,
    sync::oneshot,
    time::{Duration, Instant, sleep_until, timeout},
};

use crate::{
    Error,
    message::tag,
    socket::WriteHalf,
    stream::{Shared, Stop, Times},
};

/// Confirmations that come closer together than this go out together.
const COALESCE: Duration = Duration::from_millis(10);

/// Tells the server how far everything is safe. Cloning it is cheap; all clones speak for the same stream.
///
/// The stream lives as long as its [`WalReader`](crate::WalReader): dropping a `Feedback` ends nothing.
#[derive(Debug, Clone)]
pub struct Feedback {
    shared: Arc<Shared>,
}

/// The positions of a status update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Positions {
    /// How far the stream has been received.
    pub written: Lsn,
    /// How far everything is safe, and so how far the slot may move. The server hears the same for `applied`.
    pub flushed: Lsn,
}

impl Feedback {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Confirms that everything before `position` is safely stored, for ever: the server may forget it, and the slot
    /// moves there. The position should be the end of a transaction, or of a keepalive outside of one.
    ///
    /// It returns at once; the server hears of it within some ten milliseconds, together with what else was confirmed.
    /// A position before one that was already confirmed changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::ConfirmedBeyondReceived`] for a position that the stream has not reached; nothing is confirmed then.
    pub fn advance(&self, position: Lsn) -> Result<(), Error> {
        let received = self.shared.received();
        if position > received {
            return Err(Error::ConfirmedBeyondReceived { confirmed: position, received });
        }
        if self.shared.confirm(position) {
            self.shared.wake.notify_one();
        }
        Ok(())
    }

    /// How far the stream has been received.
    pub fn received(&self) -> Lsn {
        self.shared.received()
    }

    /// How far the caller has confirmed; [`Lsn::INVALID`] for not at all.
    pub fn confirmed(&self) -> Lsn {
        self.shared.confirmed()
    }

    /// When anything was last read from the server, counted from the start of the stream. A server that is idle is asked every few seconds
    /// ([`StreamSettings::question_after`](crate::StreamSettings::question_after)) and answers, so that this goes on for as long as somebody reads.
    pub fn heard_after(&self) -> Duration {
        self.shared.heard_after()
    }

    /// What the server was told last.
    pub fn sent(&self) -> Positions {
        let (written, flushed) = self.shared.sent();
        Positions { written, flushed }
    }
}

/// Owns the half of the socket that is written to.
pub(crate) struct FeedbackTask {
    write: WriteHalf,
    shared: Arc<Shared>,
    times: Times,
    sent_at: Option<Instant>,
    message: BytesMut,
}

impl FeedbackTask {
    pub(crate) fn new(write: WriteHalf, shared: Arc<Shared>, times: Times) -> Self {
        Self { write, shared, times, sent_at: None, message: BytesMut::with_capacity(64) }
    }

    /// Runs until the reader ends it, and gives the half back for the goodbye; or until writing fails, and tells the
    /// reader.
    pub(crate) async fn run_and_tell(mut self, failed: oneshot::Sender<Error>) -> Option<WriteHalf> {
        match self.run().await {
            Ok(()) => Some(self.write),
            Err(error) => {
                // A reader that is gone does not want to know.
                let _ = failed.send(error);
                None
            }
        }
    }

    async fn run(&mut self) -> Result<(), Error> {
        loop {
            let now = Instant::now();
            let due = self.due(now);
            let stop = self.shared.stop();
            if stop != Stop::No {
                return self.finish(stop).await;
            }
            if self.shared.take_reply_request() || due <= now {
                self.send_status(now).await?;
                continue;
            }
            tokio::select! {
                () = self.shared.wake.notified() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    /// When the server has to hear something next.
    fn due(&self, now: Instant) -> Instant {
        let Some(sent_at) = self.sent_at else { return now };
        let (_, flushed) = self.shared.sent();
        let regular = sent_at + self.times.status_interval;
        let confirmation = if self.shared.confirmed() > flushed { sent_at + COALESCE } else { regular };
        // A silent server is asked again and again; a single question might be lost in its long decoding.
        let again = self.times.question_after.min(self.times.idle_timeout / 8);
        let question = (self.shared.heard_at() + self.times.question_after).max(sent_at + again);
        regular.min(confirmation).min(question)
    }

    async fn send_status(&mut self, now: Instant) -> Result<(), Error> {
        // In this order, for what is confirmed has been received before.
        let flushed = self.shared.confirmed();
        let written = self.shared.received();
        let update = StatusUpdate {
            written,
            flushed,
            applied: flushed,
            sent_at: Timestamp::from_unix_micros(unix_micros()),
            reply_requested: now >= self.shared.heard_at() + self.times.question_after,
        };
        self.message.clear();
        put_message(&mut self.message, tag::COPY_DATA, &update.encode());
        self.write().await?;
        self.shared.set_sent(written, flushed);
        self.sent_at = Some(now);
        Ok(())
    }

    async fn finish(&mut self, stop: Stop) -> Result<(), Error> {
        self.send_status(Instant::now()).await?;
        self.message.clear();
        put_message(&mut self.message, if stop == Stop::Finish { tag::COPY_DONE } else { TERMINATE }, &[]);
        self.write().await
    }

    /// A server that takes nothing for as long as it may be silent is gone.
    async fn write(&mut self) -> Result<(), Error> {
        let limit = self.times.idle_timeout;
        let write = async {
            self.write.write_all(&self.message).await?;
            self.write.flush().await
        };
        let outcome = timeout(limit, write).await;
        let server = &self.shared.server;
        outcome
            .map_err(|_| Error::Timeout { server: Arc::clone(server), doing: "taking a status update", limit })?
            .map_err(|error| Error::io(server, error))
    }
}

/// Says goodbye, so that the server gives the slot up at once. Source: PostgreSQL documentation, "Message Formats",
/// `Terminate`.
pub(crate) async fn terminate(write: &mut WriteHalf) -> io::Result<()> {
    let mut message = BytesMut::with_capacity(5);
    put_message(&mut message, TERMINATE, &[]);
    write.write_all(&message).await?;
    write.flush().await?;
    write.shutdown().await
}

const TERMINATE: u8 = b'X';

/// `body` is a few dozen bytes.
fn put_message(message: &mut BytesMut, tag: u8, body: &[u8]) {
    message.put_u8(tag);
    message.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
    message.put_slice(body);
}

fn unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
