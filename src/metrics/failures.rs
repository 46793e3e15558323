//! The newest failures, for whoever looks at the status.

use std::collections::VecDeque;

use crate::failure::Told;

/// How many are kept.
const KEPT_MAX: usize = 50;

/// One of them, which may have come again and again.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) told: Told,
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
    pub(super) times: u64,
}

#[derive(Debug, Default)]
pub(super) struct Failures {
    /// The oldest first.
    kept: VecDeque<Seen>,
}

impl Failures {
    /// Takes note of one. What comes again, as it does while the stream waits, leaves room for others.
    pub(super) fn take(&mut self, told: Told, now_ms: i64) {
        if let Some(place) = self.kept.iter().position(|seen| seen.told == told)
            && let Some(mut again) = self.kept.remove(place)
        {
            again.last_ms = now_ms;
            again.times += 1;
            self.kept.push_back(again);
            return;
        }
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Seen { told, first_ms: now_ms, last_ms: now_ms, times: 1 });
    }

    /// The newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &Seen> {
        self.kept.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    #[test]
    fn the_newest_are_kept_and_each_once() {
        let mut failures = Failures::default();
        let told = |number: i64| Told { code: Code::KafkaUnavailable, text: format!("broker {number}") };
        for number in 0..200 {
            failures.take(told(number), number);
        }
        failures.take(told(170), 500);
        let newest: Vec<_> = failures.newest().collect();
        assert_eq!((newest.len(), newest[49].first_ms), (50, 150));
        assert_eq!((newest[0].first_ms, newest[0].last_ms, newest[0].times), (170, 500, 2));
        assert_eq!((newest[1].last_ms, newest[1].times), (199, 1));
    }
}
