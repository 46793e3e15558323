//! When to read, and when the server has nothing more to say.
//!
//! PostgreSQL sends each row on its own, 8 to 13 us apart under load. A reader that wakes for each one spends more time
//! waking than reading: 5 to 10 s of CPU for a million rows over TCP. So a reader that finds the stream busy asks the
//! kernel to wake it only when [`LOW_WATER_BYTES`] have come (`SO_RCVLOWAT`), and sets a timer of [`BATCH_WAIT`] for
//! what comes slower than that: 0.5 to 0.8 s. An idle stream is read eagerly, so that a single row waits for nothing.
//!
//! ```text
//!            BUSY_BYTES came within BATCH_WAIT
//!  Eager  ------------------------------------>  Gathering  <-- timer: the mark is lowered --> Draining
//!         <------------------------------------
//!            fewer than QUIET_BYTES came within BATCH_WAIT
//! ```
//!
//! Unix sockets have no low-water mark that `epoll` knows of. Letting data gather there by waiting a fraction of a
//! millisecond was tried, and dropped: the kernel's work for each message stays, so it saves a tenth of the CPU, and
//! waiting a little too long stalls the sender, who may have only some 200 messages under way. So a Unix socket is
//! always read eagerly, and only whether the stream is busy is kept track of.
//!
//! That is kept track of at all since a reader is faster than PostgreSQL: it finds the socket empty after nearly every
//! row, and to tell its caller each time that the source is idle would make it commit for each row.

use std::time::Duration;

use tokio::time::Instant;

/// The low-water mark of a busy TCP stream, in bytes.
const LOW_WATER_BYTES: i32 = 64 << 10;
/// How long data may lie in the kernel while the mark is not reached.
const BATCH_WAIT: Duration = Duration::from_millis(5);
/// How long, once the mark is lowered, until silence is silence. What is there already comes at once.
const DRAIN_WAIT: Duration = Duration::from_millis(1);
/// As much within [`BATCH_WAIT`] makes a stream busy: 3 MB/s, about 17,000 small rows a second.
const BUSY_BYTES: usize = 16 << 10;
/// With less than this within [`BATCH_WAIT`] it is busy no more.
const QUIET_BYTES: usize = 4 << 10;

/// How a reader can be kept from waking too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// By a low-water mark.
    Tcp,
    /// Not at all.
    Unix,
}

/// What follows from something that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether the server has nothing more to say for now.
    pub(crate) idle: bool,
    /// The low-water mark to set, in bytes, if it changes.
    pub(crate) low_water_bytes: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not busy: each byte is read as it comes.
    Eager,
    /// Busy, with a high mark, until the timer fires.
    Gathering,
    /// Busy, with the lowest mark: the timer fired, and what is there comes now.
    Draining,
    /// Busy, without marks: each time the timer fires, what came is added up.
    Counting,
}

#[derive(Debug)]
pub(crate) struct Pace {
    transport: Transport,
    state: State,
    /// Survives a read that is dropped and begun again, so that the timer fires however often that happens.
    deadline: Option<Instant>,
    window_start: Instant,
    window_bytes: usize,
}

impl Pace {
    pub(crate) fn new(transport: Transport, now: Instant) -> Self {
        Self { transport, state: State::Eager, deadline: None, window_start: now, window_bytes: 0 }
    }

    /// When to call [`Pace::timer_fired`], if nothing is read before; `None` for never.
    pub(crate) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let wait = match self.state {
            State::Eager => return None,
            State::Gathering | State::Counting => BATCH_WAIT,
            State::Draining => DRAIN_WAIT,
        };
        Some(*self.deadline.get_or_insert(now + wait))
    }

    /// The deadline has passed, and nothing is there to be read, as far as the mark lets it be seen.
    pub(crate) fn timer_fired(&mut self) -> Verdict {
        self.deadline = None;
        match self.state {
            State::Gathering => {
                self.state = State::Draining;
                Verdict { idle: false, low_water_bytes: Some(1) }
            }
            State::Counting if self.window_bytes >= QUIET_BYTES => {
                self.window_bytes = 0;
                Verdict { idle: false, low_water_bytes: None }
            }
            State::Counting | State::Draining | State::Eager => {
                self.become_eager();
                Verdict { idle: true, low_water_bytes: None }
            }
        }
    }

    /// Bytes were read, and the socket was left empty or not.
    pub(crate) fn read(&mut self, bytes: usize, emptied: bool, now: Instant) -> Verdict {
        match self.state {
            State::Eager => {
                if now - self.window_start > BATCH_WAIT {
                    self.window_start = now;
                    self.window_bytes = 0;
                }
                self.window_bytes += bytes;
                if self.window_bytes < BUSY_BYTES {
                    return Verdict { idle: emptied, low_water_bytes: None };
                }
                self.become_busy()
            }
            State::Gathering => {
                self.deadline = None;
                Verdict { idle: false, low_water_bytes: None }
            }
            State::Draining if bytes < QUIET_BYTES => {
                self.become_eager();
                Verdict { idle: emptied, low_water_bytes: None }
            }
            State::Draining => self.become_busy(),
            State::Counting => {
                self.window_bytes += bytes;
                Verdict { idle: false, low_water_bytes: None }
            }
        }
    }

    fn become_busy(&mut self) -> Verdict {
        self.deadline = None;
        self.window_bytes = 0;
        let (state, low_water_bytes) = match self.transport {
            Transport::Tcp => (State::Gathering, Some(LOW_WATER_BYTES)),
            Transport::Unix => (State::Counting, None),
        };
        self.state = state;
        Verdict { idle: false, low_water_bytes }
    }

    /// The mark is the lowest one already: it was lowered before draining.
    fn become_eager(&mut self) {
        self.deadline = None;
        self.state = State::Eager;
        self.window_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);
    const QUIET: Verdict = Verdict { idle: true, low_water_bytes: None };
    const BUSY: Verdict = Verdict { idle: false, low_water_bytes: None };

    fn mark(bytes: i32) -> Verdict {
        Verdict { idle: false, low_water_bytes: Some(bytes) }
    }

    #[test]
    fn a_quiet_stream_is_read_eagerly_for_ever() {
        for transport in [Transport::Tcp, Transport::Unix] {
            let mut now = Instant::now();
            let mut pace = Pace::new(transport, now);
            for _ in 0..1000 {
                assert_eq!(pace.deadline(now), None);
                assert_eq!(pace.read(2000, true, now), QUIET, "2000 bytes a millisecond are not busy");
                now += MILLISECOND;
            }
            assert_eq!(pace.read(2000, false, now), BUSY, "more is there");
        }
    }

    #[test]
    fn a_busy_tcp_stream_is_read_in_large_pieces_until_it_falls_silent() {
        let mut now = Instant::now();
        let mut pace = Pace::new(Transport::Tcp, now);
        for _ in 0..(BUSY_BYTES / 200) {
            assert_eq!(pace.read(200, true, now), QUIET);
            now += Duration::from_micros(10);
        }
        assert_eq!(pace.read(200, true, now), mark(LOW_WATER_BYTES));
        let deadline = pace.deadline(now);
        assert_eq!(deadline, Some(now + BATCH_WAIT));
        assert_eq!(pace.deadline(now + MILLISECOND), deadline, "a read that is begun again does not put it off");

        assert_eq!(pace.read(70_000, true, now), BUSY, "the mark was reached");
        assert_eq!(pace.timer_fired(), mark(1), "something may lie below the mark");
        assert_eq!(pace.read(QUIET_BYTES, true, now), mark(LOW_WATER_BYTES), "slower, and still busy");
        assert_eq!(pace.timer_fired(), mark(1));
        assert_eq!(pace.read(QUIET_BYTES - 1, true, now), QUIET);
        assert_eq!(pace.deadline(now), None);
    }

    #[test]
    fn a_tcp_stream_that_ends_with_a_full_piece_is_still_found_silent() {
        let now = Instant::now();
        let mut pace = Pace::new(Transport::Tcp, now);
        assert_eq!(pace.read(BUSY_BYTES, true, now), mark(LOW_WATER_BYTES));
        assert_eq!(pace.timer_fired(), mark(1));
        assert_eq!(pace.timer_fired(), QUIET);
        assert_eq!(pace.read(10, true, now), QUIET);
    }

    #[test]
    fn a_busy_unix_stream_is_not_called_idle_between_two_rows() {
        let now = Instant::now();
        let mut pace = Pace::new(Transport::Unix, now);
        assert_eq!(pace.read(BUSY_BYTES, true, now), BUSY);
        let deadline = pace.deadline(now);
        assert_eq!(pace.read(QUIET_BYTES, true, now), BUSY);
        assert_eq!(pace.deadline(now + MILLISECOND), deadline, "rows do not put the count off");
        assert_eq!(pace.timer_fired(), BUSY);
        assert_eq!(pace.read(QUIET_BYTES - 1, true, now), BUSY);
        assert_eq!(pace.timer_fired(), QUIET, "fewer than before");
        assert_eq!(pace.deadline(now), None);
    }
}
