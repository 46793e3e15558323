//! Fault points: places where a test can make the process die.
//!
//! They exist only in builds with the feature `fault-points`, which no release has. `PGSLUICE_FAULT=NAME:N` kills the process
//! with SIGKILL when the point of that name is reached for the N-th time.

/// A place where the process can be made to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The brokers have acknowledged all records of the transaction and its checkpoint; the commit was not asked for.
    BeforeCommit,
    /// At a random moment from the call that commits on, within six milliseconds, of which the call takes some. PostgreSQL is not told.
    DuringCommit,
    /// Kafka has committed, and PostgreSQL was not told.
    AfterCommit,
    /// Kafka knows that the slot is to be created.
    SlotAnnounced,
    /// It was, and Kafka does not know where it is.
    SlotCreated,
    /// A schema was written to the built-in registry's topic, and its transaction was not committed.
    BeforeSchemaCommit,
    /// One command of a signal was carried out, and others are left of it.
    WithinSignal,
}

/// Dies here if it was asked for.
#[cfg(not(feature = "fault-points"))]
#[inline]
pub const fn point(_: Point) {}

#[cfg(feature = "fault-points")]
pub use armed::point;

#[cfg(feature = "fault-points")]
mod armed {
    use std::{
        hash::{BuildHasher, RandomState},
        process,
        sync::{
            OnceLock,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        thread,
        time::Duration,
    };

    use super::Point;

    static ARMED: OnceLock<Option<(Point, u64)>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);
    /// Whether the moment of death is set, and is yet to come.
    static IS_DYING: AtomicBool = AtomicBool::new(false);

    const COMMIT_LASTS_US: u64 = 6000;

    /// Dies here if it was asked for.
    pub fn point(point: Point) {
        let armed = ARMED.get_or_init(|| parse(&std::env::var("PGSLUICE_FAULT").ok()?));
        if let Some((which, count)) = armed
            && *which == point
            && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == *count
        {
            if point == Point::DuringCommit {
                IS_DYING.store(true, Ordering::Relaxed);
                // The moment is left to chance, as in life; most are early, since the request is soon out of the process.
                let random = RandomState::new().hash_one("moment");
                let after_us = random % (COMMIT_LASTS_US >> ((random >> 32) % 8));
                thread::spawn(move || {
                    thread::sleep(Duration::from_micros(after_us));
                    die();
                });
            } else {
                die();
            }
        }
        if point == Point::AfterCommit {
            // The commit was over before the moment came; nothing else may happen before it.
            while IS_DYING.load(Ordering::Relaxed) {
                thread::park();
            }
        }
    }

    fn parse(text: &str) -> Option<(Point, u64)> {
        let (name, count) = text.split_once(':')?;
        let point = match name {
            "before-commit" => Point::BeforeCommit,
            "during-commit" => Point::DuringCommit,
            "after-commit" => Point::AfterCommit,
            "slot-announced" => Point::SlotAnnounced,
            "slot-created" => Point::SlotCreated,
            "before-schema-commit" => Point::BeforeSchemaCommit,
            "within-signal" => Point::WithinSignal,
            _ => return None,
        };
        Some((point, count.parse().ok()?))
    }

    /// No destructor, no buffer, no goodbye: that is what SIGKILL is.
    fn die() {
        // SAFETY: `kill` touches no memory of ours. Sent to oneself, a signal that cannot be blocked is delivered before it returns.
        let _sent = unsafe { libc::kill(process::id().cast_signed(), libc::SIGKILL) };
        process::abort();
    }
}
