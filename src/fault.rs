//! Fault points: places where a test can make the process die.
//!
//! They exist only in builds with the feature `fault-points`, which no release has. `PGSLUICE_FAULT=NAME:N` kills the process
//! with SIGKILL when the point of that name is reached for the N-th time.

/// A place where the process can be made to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// All records of the transaction were handed to the producer; neither its checkpoint nor the commit was.
    BeforeCommit,
    /// At a random moment of the eight milliseconds from there on, in which the checkpoint is sent and the commit happens.
    DuringCommit,
    /// Kafka has committed, and PostgreSQL was not told.
    AfterCommit,
    /// A schema was written to the built-in registry's topic, and its transaction was not committed.
    BeforeSchemaCommit,
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
        process,
        sync::{
            OnceLock,
            atomic::{AtomicU64, Ordering},
        },
        thread,
        time::Duration,
    };

    use super::Point;

    static ARMED: OnceLock<Option<(Point, u64)>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);

    /// Dies here if it was asked for.
    pub fn point(point: Point) {
        let armed = ARMED.get_or_init(|| parse(&std::env::var("PGSLUICE_FAULT").ok()?));
        if let Some((which, count)) = armed
            && *which == point
            && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == *count
        {
            if point == Point::DuringCommit {
                // A commit takes some milliseconds; the moment inside it is left to chance, as in life.
                thread::spawn(|| {
                    thread::sleep(Duration::from_micros(u64::from(process::id() % 16) * 500));
                    die();
                });
            } else {
                die();
            }
        }
    }

    fn parse(text: &str) -> Option<(Point, u64)> {
        let (name, count) = text.split_once(':')?;
        let point = match name {
            "before-commit" => Point::BeforeCommit,
            "during-commit" => Point::DuringCommit,
            "after-commit" => Point::AfterCommit,
            "before-schema-commit" => Point::BeforeSchemaCommit,
            _ => return None,
        };
        Some((point, count.parse().ok()?))
    }

    fn die() {
        // No destructor, no buffer, no goodbye: that is what SIGKILL is.
        let _ = process::Command::new("kill").args(["-KILL", &process::id().to_string()]).status();
        process::abort();
    }
}
