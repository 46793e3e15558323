//! The half of a stream that is read.

use std::{
    future::{pending, poll_fn},
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use pgoutput::Frame;
use tokio::{
    io::AsyncReadExt,
    sync::oneshot,
    task::{JoinHandle, coop},
    time::{Instant, Sleep, sleep, timeout},
};

use crate::{
    Error, ServerError,
    authentication::check_parameter,
    client::parameter,
    feedback::terminate,
    frames::{FrameBuffer, Frames, FramingError, Item},
    message::{HEADER_BYTES, body_bytes, describe_tag, parse_header, tag},
    pace::{Pace, Transport, Verdict},
    socket::{ReadHalf, WriteHalf},
    stream::{Shared, Stop, Times, log_notice},
};

/// What a silent server gets, after its time is up, for an answer that may lie in the socket already.
const GRACE: Duration = Duration::from_secs(1);

/// Reads the stream.
///
/// Dropping it tells the server the last positions and goodbye, in the background; [`WalReader::shutdown`] waits for
/// that.
pub struct WalReader {
    read: ReadHalf,
    buffer: FrameBuffer,
    shared: Arc<Shared>,
    pace: Pace,
    pace_timer: Pin<Box<Sleep>>,
    liveness: Liveness,
    /// Why writing failed. `None` when that is known, or when writing ended without.
    failure: Option<oneshot::Receiver<Error>>,
    /// `None` after the end.
    writer: Option<JoinHandle<Option<WriteHalf>>>,
    frame_bytes_max: usize,
}

/// What a [`WalReader`] is made of.
pub(crate) struct Parts {
    pub(crate) read: ReadHalf,
    pub(crate) buffer: FrameBuffer,
    pub(crate) shared: Arc<Shared>,
    pub(crate) failure: oneshot::Receiver<Error>,
    pub(crate) writer: JoinHandle<Option<WriteHalf>>,
    pub(crate) times: Times,
    pub(crate) frame_bytes_max: usize,
}

/// Whole frames that came together, in the order of the stream.
///
/// The frames share one buffer of some 128 KiB, which lives as long as the last slice of it: what is to be kept for
/// long should be copied.
#[derive(Debug, Clone)]
pub struct Chunk {
    bytes: Bytes,
    frames_len: usize,
    source_idle: bool,
    server: Arc<str>,
}

impl WalReader {
    pub(crate) fn new(parts: Parts) -> Self {
        let transport = if parts.read.is_tcp() { Transport::Tcp } else { Transport::Unix };
        let now = Instant::now();
        Self {
            read: parts.read,
            buffer: parts.buffer,
            shared: parts.shared,
            pace: Pace::new(transport, now),
            pace_timer: Box::pin(sleep(Duration::ZERO)),
            liveness: Liveness::new(parts.times.idle_timeout, now),
            failure: Some(parts.failure),
            writer: Some(parts.writer),
            frame_bytes_max: parts.frame_bytes_max,
        }
    }

    /// Waits for frames, and hands out all whole ones that are there.
    ///
    /// A chunk is empty in one case: when a busy stream has fallen silent after its last chunk, which could not say so
    /// yet. Its [`Chunk::source_idle`] is true.
    ///
    /// Cancel safe: nothing is lost when it is dropped before it is ready.
    ///
    /// # Errors
    ///
    /// Anything that ends the stream, from either half; there is nothing to read after it.
    pub async fn read(&mut self) -> Result<Chunk, Error> {
        let mut idle = false;
        // What was not handed out yet is looked at first, and of that it is not known whether it was the last.
        loop {
            match self.next_item()? {
                Item::Frames(frames) => return Ok(self.hand_out(frames, idle)),
                Item::Control { tag, body } => self.handle_control(tag, &body)?,
                Item::Incomplete => match self.fill().await? {
                    Fill::Read { idle: now } => idle = now,
                    Fill::Silent if self.buffer.is_empty() => return Ok(self.empty_chunk()),
                    Fill::Silent => {}
                },
            }
        }
    }

    /// Ends the stream in good order: tells the server the last confirmed position, ends the copy, and waits, at most
    /// for `limit`, until the server has ended it too, so that the slot is free when this returns. What the server
    /// sends meanwhile is thrown away.
    ///
    /// # Errors
    ///
    /// The server could not be told, or did not end the stream in time. The connection is closed all the same.
    pub async fn shutdown(mut self, limit: Duration) -> Result<(), Error> {
        let server = Arc::clone(&self.shared.server);
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        self.shared.set_stop(Stop::Finish);
        let finish = async {
            // Both at once: the server may be unable to read before what it has written is read.
            let (write, drained) = tokio::join!(&mut writer, self.drain());
            drained?;
            match write {
                Ok(Some(mut write)) => terminate(&mut write).await.map_err(|error| Error::io(&server, error)),
                _ => Err(Error::closed(&server)),
            }
        };
        let outcome = timeout(limit, finish).await;
        outcome.unwrap_or_else(|_| {
            writer.abort();
            Err(Error::Timeout { server: Arc::clone(&self.shared.server), doing: "ending the stream", limit })
        })
    }

    /// Reads on until the server has ended the copy.
    async fn drain(&mut self) -> Result<(), Error> {
        loop {
            match self.next_item()? {
                Item::Control { tag: tag::READY_FOR_QUERY, .. } => return Ok(()),
                Item::Control { tag: tag::ERROR_RESPONSE, body } => return Err(self.server_error(&body)),
                Item::Control { .. } | Item::Frames(_) => {}
                Item::Incomplete => {
                    self.fill().await?;
                }
            }
        }
    }

    fn next_item(&mut self) -> Result<Item, Error> {
        self.buffer.take().map_err(|error| match error {
            FramingError::Length { tag, length } => {
                let problem = format!("a message {} announces a length of {length} bytes", describe_tag(tag));
                Error::protocol(&self.shared.server, problem)
            }
            FramingError::FrameTooLarge { announced_bytes, position, relation } => Error::FrameTooLarge {
                server: Arc::clone(&self.shared.server),
                announced_bytes,
                limit_bytes: self.frame_bytes_max,
                position,
                relation,
            },
        })
    }

    fn hand_out(&mut self, frames: Frames, idle: bool) -> Chunk {
        self.shared.receive(frames.received);
        if frames.reply_requested {
            self.shared.request_reply();
        }
        Chunk {
            bytes: frames.bytes,
            frames_len: frames.count,
            // Where a part of a frame has come, the rest is on its way.
            source_idle: idle && self.buffer.is_empty(),
            server: Arc::clone(&self.shared.server),
        }
    }

    fn empty_chunk(&self) -> Chunk {
        Chunk { bytes: Bytes::new(), frames_len: 0, source_idle: true, server: Arc::clone(&self.shared.server) }
    }

    fn handle_control(&self, tag: u8, body: &[u8]) -> Result<(), Error> {
        let server = &self.shared.server;
        match tag {
            tag::ERROR_RESPONSE => Err(self.server_error(body)),
            tag::NOTICE_RESPONSE => match ServerError::parse(body) {
                Some(notice) if notice.says_that_a_publication_is_missing() => {
                    Err(Error::PublicationMissing { server: Arc::clone(server), notice: Box::new(notice) })
                }
                _ => {
                    log_notice(server, body);
                    Ok(())
                }
            },
            tag::PARAMETER_STATUS => match parameter(body) {
                Some((name, value)) => check_parameter(server, name, value),
                None => Err(Error::protocol(server, "its ParameterStatus message is malformed")),
            },
            // A server that shuts down sends CommandComplete without CopyDone [pg walsender.c, WalSndDone].
            tag::COPY_DONE | tag::COMMAND_COMPLETE => Err(Error::StreamEnded { server: Arc::clone(server) }),
            other => {
                let problem = format!("a message {} came in the middle of the stream", describe_tag(other));
                Err(Error::protocol(server, problem))
            }
        }
    }

    fn server_error(&self, body: &[u8]) -> Error {
        let server = &self.shared.server;
        match ServerError::parse(body) {
            Some(error) => Error::Server { server: Arc::clone(server), error: Box::new(error) },
            None => Error::protocol(server, "its ErrorResponse message is malformed"),
        }
    }

    /// Waits for bytes.
    async fn fill(&mut self) -> Result<Fill, Error> {
        loop {
            let deadline = self.pace.deadline(Instant::now());
            if let Some(deadline) = deadline.filter(|deadline| *deadline != self.pace_timer.deadline()) {
                self.pace_timer.as_mut().reset(deadline);
            }
            let buffer = self.buffer.with_room();
            let event = tokio::select! {
                biased;
                error = failure_of(&mut self.failure) => Event::Failed(error),
                outcome = poll_fn(|cx| poll_fill(&mut self.read, buffer, cx)) => Event::Read(outcome),
                () = &mut self.pace_timer, if deadline.is_some() => Event::PaceTimer,
                () = &mut self.liveness.timer => Event::LivenessTimer,
            };
            match event {
                Event::Read(Ok(ReadOutcome { bytes: 0, .. })) => return Err(Error::closed(&self.shared.server)),
                Event::Read(Ok(ReadOutcome { bytes, emptied })) => {
                    let now = Instant::now();
                    self.liveness.heard(now);
                    self.shared.heard(now);
                    let verdict = self.pace.read(bytes, emptied, now);
                    self.obey(verdict)?;
                    return Ok(Fill::Read { idle: verdict.idle });
                }
                Event::Read(Err(error)) => return Err(self.lost(error)),
                Event::Failed(Some(error)) => return Err(error),
                // The task ended because it was told to; or else it panicked.
                Event::Failed(None) if self.shared.stop() == Stop::No => {
                    return Err(Error::closed(&self.shared.server));
                }
                Event::Failed(None) => {}
                Event::PaceTimer => {
                    let verdict = self.pace.timer_fired();
                    self.obey(verdict)?;
                    if verdict.idle {
                        return Ok(Fill::Silent);
                    }
                }
                Event::LivenessTimer => {
                    if let Some(limit) = self.liveness.silent_for_too_long(Instant::now()) {
                        let server = Arc::clone(&self.shared.server);
                        return Err(Error::Timeout {
                            server,
                            doing: "sending anything, not even the keepalive that was asked for",
                            limit,
                        });
                    }
                }
            }
        }
    }

    fn obey(&self, verdict: Verdict) -> Result<(), Error> {
        verdict.low_water_bytes.map_or(Ok(()), |bytes| {
            self.read.set_low_water_bytes(bytes).map_err(|error| Error::io(&self.shared.server, error))
        })
    }

    fn lost(&self, error: io::Error) -> Error {
        match error.kind() {
            // TLS without a goodbye.
            io::ErrorKind::UnexpectedEof => Error::closed(&self.shared.server),
            _ => Error::io(&self.shared.server, error),
        }
    }
}

impl Drop for WalReader {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.shared.set_stop(Stop::Abandon);
        }
    }
}

impl Chunk {
    /// How many frames it holds.
    pub fn frames_len(&self) -> usize {
        self.frames_len
    }

    /// Its size in bytes, headers included.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the server had sent nothing more when this was read: a good moment to finish what was begun. It is a
    /// hint; the next frame may have come since. It is not true while the stream is busy, even where the reader is
    /// faster than the server.
    pub fn source_idle(&self) -> bool {
        self.source_idle
    }
}

impl IntoIterator for Chunk {
    type Item = Result<Frame, Error>;
    type IntoIter = ChunkFrames;

    fn into_iter(self) -> ChunkFrames {
        ChunkFrames { bytes: self.bytes, frames_left: self.frames_len, server: self.server }
    }
}

/// The frames of a [`Chunk`], parsed one by one. After an error there is no way to go on.
#[derive(Debug)]
pub struct ChunkFrames {
    bytes: Bytes,
    frames_left: usize,
    server: Arc<str>,
}

impl Iterator for ChunkFrames {
    type Item = Result<Frame, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        // The lengths were checked when the chunk was cut.
        let (_, length) = parse_header(&self.bytes)?;
        let body_bytes = body_bytes(length)?;
        if self.bytes.len() < HEADER_BYTES + body_bytes {
            return None;
        }
        self.bytes.advance(HEADER_BYTES);
        self.frames_left = self.frames_left.saturating_sub(1);
        let payload = self.bytes.split_to(body_bytes);
        Some(Frame::parse(payload).map_err(|source| Error::Frame { server: Arc::clone(&self.server), source }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.frames_left, Some(self.frames_left))
    }
}

impl ExactSizeIterator for ChunkFrames {}

enum Fill {
    Read {
        idle: bool,
    },
    /// A busy stream fell silent.
    Silent,
}

enum Event {
    Read(io::Result<ReadOutcome>),
    Failed(Option<Error>),
    PaceTimer,
    LivenessTimer,
}

/// Waits for the failure of the other half, once.
async fn failure_of(failure: &mut Option<oneshot::Receiver<Error>>) -> Option<Error> {
    match failure {
        None => pending().await,
        Some(receiver) => {
            let outcome = receiver.await;
            *failure = None;
            outcome.ok()
        }
    }
}

struct ReadOutcome {
    /// 0 at the end of the stream.
    bytes: usize,
    /// Whether everything that had come was read.
    emptied: bool,
}

/// Reads until the socket is empty or the buffer full. Under TLS one read brings one record, 16 KiB at most.
fn poll_fill(read: &mut ReadHalf, buffer: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<ReadOutcome>> {
    let mut bytes = 0;
    while buffer.len() < buffer.capacity() {
        // The future of one read holds nothing between two polls, so it can be made anew each time.
        match pin!(read.read_buf(buffer)).poll(cx) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(ReadOutcome { bytes, emptied: true })),
            Poll::Ready(Ok(count)) => bytes += count,
            // What was read before the error is handed out first; the error comes again.
            Poll::Ready(Err(error)) if bytes == 0 => return Poll::Ready(Err(error)),
            Poll::Ready(Err(_)) => return Poll::Ready(Ok(ReadOutcome { bytes, emptied: true })),
            Poll::Pending if bytes == 0 => return Poll::Pending,
            // A task that has used up its time is told that nothing is there.
            Poll::Pending => return Poll::Ready(Ok(ReadOutcome { bytes, emptied: coop::has_budget_remaining() })),
        }
    }
    Poll::Ready(Ok(ReadOutcome { bytes, emptied: false }))
}

/// Notices a server that is there no more, while nothing comes.
///
/// Silence counts only while somebody reads: a caller that stalls finds what the server sent meanwhile in the socket.
/// The one timer is looked at when it fires and not set anew for each row.
struct Liveness {
    timer: Pin<Box<Sleep>>,
    limit: Duration,
    heard_at: Instant,
    /// When the grace ends.
    grace_until: Option<Instant>,
}

impl Liveness {
    fn new(limit: Duration, now: Instant) -> Self {
        Self { timer: Box::pin(sleep(limit)), limit, heard_at: now, grace_until: None }
    }

    fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.grace_until = None;
    }

    /// The timer fired: the limit, if it is passed, or else the timer is set anew.
    fn silent_for_too_long(&mut self, now: Instant) -> Option<Duration> {
        let next = if now < self.heard_at + self.limit {
            self.heard_at + self.limit
        } else {
            let grace_until = *self.grace_until.get_or_insert(now + GRACE.min(self.limit / 4));
            if now >= grace_until {
                return Some(self.limit);
            }
            grace_until
        };
        self.timer.as_mut().reset(next);
        None
    }
}
