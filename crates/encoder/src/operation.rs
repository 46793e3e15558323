//! What an event says has happened to a row or a table, and which of these are not written.

/// What an event is about: its `op`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// `c`: an insert, or the new row of a change of the key.
    Create,
    /// `u`: an update that leaves the key as it is.
    Update,
    /// `d`: a deletion, or the old row of a change of the key. Its tombstone goes with it.
    Delete,
    /// `t`
    Truncate,
    /// `r`: a row that was there before the stream, read in a snapshot.
    Read,
}

impl Operation {
    /// The letter in the envelope.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Truncate => "t",
            Self::Read => "r",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Operations(u8);

impl Operations {
    /// Whether it has this one.
    #[inline]
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & operation.bit() != 0
    }
}

impl FromIterator<Operation> for Operations {
    fn from_iter<T: IntoIterator<Item = Operation>>(operations: T) -> Self {
        Self(operations.into_iter().fold(0, |bits, operation| bits | operation.bit()))
    }
}
