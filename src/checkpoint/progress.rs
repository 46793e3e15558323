//! How positions advance while a stream runs.

use pgoutput::Lsn;
use publisher::Position;
use thiserror::Error;

/// The positions of a running stream.
///
/// Invariants, whatever the order of calls:
///
/// - received never falls; published never falls, and never passes what was received;
/// - committed never falls, and never passes what was published before it;
/// - confirmed never falls, and never passes the end LSN of what is committed: PostgreSQL may remove log only after the
///   Kafka transaction that holds it has committed;
/// - a position inside a transaction is never confirmed: the server is told the end of the last whole one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    received: Position,
    published: Position,
    committed: Position,
    confirmed: Lsn,
}

/// A position that a committed Kafka transaction holds. [`Progress::commit`] makes one, and [`Progress::resume`] of a checkpoint
/// that was read back; nothing else does, so that nothing else can be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed(Position);

impl Committed {
    /// What PostgreSQL may be told: it need not keep log before it.
    pub fn flush_lsn(self) -> Lsn {
        self.0.end_lsn
    }
}

/// A position was to fall, or to pass one that it must follow. It is a defect, and stops the stream before harm is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the {what} position was to move from {from} to {to}, with {bound} as its bound")]
pub struct OutOfOrder {
    what: &'static str,
    from: Position,
    to: Position,
    bound: Position,
}

impl Progress {
    /// A stream that resumes from a committed checkpoint.
    pub fn resume(checkpoint: Position) -> (Self, Committed) {
        let progress =
            Self { received: checkpoint, published: checkpoint, committed: checkpoint, confirmed: Lsn::INVALID };
        (progress, Committed(checkpoint))
    }

    /// The server has sent everything before `position`.
    ///
    /// # Errors
    /// The position would fall.
    pub fn receive(&mut self, position: Position) -> Result<(), OutOfOrder> {
        if position < self.received {
            return Err(OutOfOrder { what: "received", from: self.received, to: position, bound: self.received });
        }
        self.received = position;
        Ok(())
    }

    /// Everything before `position` is in the open Kafka transaction or an earlier one.
    ///
    /// # Errors
    /// The position would fall, or was not received.
    pub fn publish(&mut self, position: Position) -> Result<(), OutOfOrder> {
        if position < self.published || position > self.received {
            return Err(OutOfOrder { what: "published", from: self.published, to: position, bound: self.received });
        }
        self.published = position;
        Ok(())
    }

    /// The Kafka transaction whose checkpoint is `position` has committed.
    ///
    /// # Errors
    /// The position would fall, or was not published.
    pub fn commit(&mut self, position: Position) -> Result<Committed, OutOfOrder> {
        if position < self.committed || position > self.published {
            return Err(OutOfOrder { what: "committed", from: self.committed, to: position, bound: self.published });
        }
        self.committed = position;
        Ok(Committed(position))
    }

    /// The server was told `committed`.
    ///
    /// # Errors
    /// The position would fall, or is not committed here.
    pub fn confirm(&mut self, committed: Committed) -> Result<(), OutOfOrder> {
        let lsn = committed.flush_lsn();
        if lsn < self.confirmed || lsn > self.committed.end_lsn {
            return Err(OutOfOrder {
                what: "confirmed",
                from: Position::at(self.confirmed),
                to: committed.0,
                bound: self.committed,
            });
        }
        self.confirmed = lsn;
        Ok(())
    }

    /// The last position that was published.
    pub fn published(&self) -> Position {
        self.published
    }

    /// The last position that was committed.
    pub fn committed(&self) -> Position {
        self.committed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use publisher::Split;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Receive(Position),
        Publish(Position),
        Commit(Position),
        Confirm,
    }

    fn position() -> impl Strategy<Value = Position> {
        (1_u64..60, proptest::option::of((0_u64..8, 1_u64..4))).prop_map(|(end, split)| Position {
            end_lsn: end.into(),
            split: split.map(|(past, ordinal)| Split {
                commit_lsn: (end + past).into(),
                changes: ordinal,
                messages: 0,
                ordinal,
            }),
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            position().prop_map(Step::Receive),
            position().prop_map(Step::Publish),
            position().prop_map(Step::Commit),
            Just(Step::Confirm),
        ]
    }

    proptest! {
        #[test]
        fn no_order_of_calls_breaks_an_invariant(start in position(), steps in prop::collection::vec(step(), 0..60)) {
            let (mut progress, mut held) = Progress::resume(start);
            // The oracle keeps its own books, from the accepted calls alone.
            let (mut received, mut published, mut committed_in_kafka) = (vec![start], vec![start], vec![start]);
            for step in steps {
                let before = progress.clone();
                match step {
                    Step::Receive(position) => if progress.receive(position).is_ok() { received.push(position); },
                    Step::Publish(position) => if progress.publish(position).is_ok() { published.push(position); },
                    Step::Commit(position) => if let Ok(committed) = progress.commit(position) {
                        committed_in_kafka.push(position);
                        held = committed;
                    },
                    Step::Confirm => prop_assert!(progress.confirm(held).is_ok()),
                }
                prop_assert!(progress.received >= before.received);
                prop_assert!(progress.published >= before.published);
                prop_assert!(progress.committed >= before.committed);
                prop_assert!(progress.confirmed >= before.confirmed);
                prop_assert!(received.is_sorted() && published.is_sorted() && committed_in_kafka.is_sorted());
                prop_assert!(published.last() <= received.last());
                prop_assert!(committed_in_kafka.last() <= published.last());
                let newest = committed_in_kafka.last().expect("one at least");
                prop_assert!(progress.confirmed <= newest.end_lsn);
                let whole = committed_in_kafka.iter().any(|held| held.end_lsn == progress.confirmed);
                prop_assert!(whole || progress.confirmed == Lsn::INVALID);
            }
        }
    }

    #[test]
    fn a_split_transaction_is_never_confirmed_in_part() {
        let (mut progress, _) = Progress::resume(Position::at(10.into()));
        let inside = Position {
            end_lsn: 10.into(),
            split: Some(Split { commit_lsn: 50.into(), changes: 1000, messages: 0, ordinal: 1000 }),
        };
        progress.receive(inside).expect("it grows");
        progress.publish(inside).expect("it was received");
        let committed = progress.commit(inside).expect("it was published");
        assert_eq!(committed.flush_lsn(), Lsn::from(10));
    }

    #[test]
    fn what_was_not_received_cannot_be_published() {
        let (mut progress, _) = Progress::resume(Position::at(10.into()));
        let error = progress.publish(Position::at(20.into())).expect_err("it was not received");
        assert_eq!(error.to_string(), "the published position was to move from 0/A to 0/14, with 0/A as its bound");
        progress.receive(Position::at(20.into())).expect("it grows");
        progress.receive(Position::at(19.into())).expect_err("it falls");
        progress.publish(Position::at(20.into())).expect("it was received");
    }

    #[test]
    fn what_was_not_published_cannot_be_committed() {
        let (mut progress, _) = Progress::resume(Position::at(10.into()));
        let error = progress.commit(Position::at(20.into())).expect_err("it was not published");
        assert_eq!(error.to_string(), "the committed position was to move from 0/A to 0/14, with 0/A as its bound");
    }
}
