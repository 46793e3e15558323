//! Moments as PostgreSQL writes them.

/// From the Unix epoch to PostgreSQL's, 2000-01-01 00:00:00 UTC, in microseconds.
const EPOCH_UNIX_MICROS: i64 = 946_684_800_000_000;

/// A moment on the server's clock: microseconds since 2000-01-01 00:00:00 UTC, PostgreSQL's `TimestampTz`.
///
/// ```
/// use pgoutput::Timestamp;
///
/// let moment = Timestamp::from(86_400_000_000);
/// assert_eq!(moment.unix_micros(), 946_771_200_000_000); // 2000-01-02 00:00:00 UTC
/// assert_eq!(Timestamp::from_unix_micros(946_771_200_000_000), moment);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment that lies this many microseconds after the Unix epoch; the earliest moment there is when it lies
    /// before that.
    pub const fn from_unix_micros(unix_micros: i64) -> Self {
        Self(unix_micros.saturating_sub(EPOCH_UNIX_MICROS))
    }

    /// Microseconds since the Unix epoch; `i64::MAX` for a moment that is later than that can say.
    pub const fn unix_micros(self) -> i64 {
        self.0.saturating_add(EPOCH_UNIX_MICROS)
    }
}

impl From<i64> for Timestamp {
    fn from(micros: i64) -> Self {
        Self(micros)
    }
}

impl From<Timestamp> for i64 {
    fn from(moment: Timestamp) -> Self {
        moment.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_time_do_not_wrap() {
        assert_eq!(Timestamp(i64::MAX).unix_micros(), i64::MAX);
        assert_eq!(Timestamp(i64::MIN).unix_micros(), i64::MIN + EPOCH_UNIX_MICROS);
        assert_eq!(Timestamp::from_unix_micros(i64::MIN), Timestamp(i64::MIN));
        assert_eq!(Timestamp::from_unix_micros(0), Timestamp(-EPOCH_UNIX_MICROS));
    }
}
