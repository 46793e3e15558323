//! What is said when bytes are not what the protocol allows.

use std::fmt;

use crate::{Lsn, ProtocolVersion};

/// Bytes that are not a message of the protocol: which message, which field, at which byte, and why.
///
/// It never holds row data, so it is safe to log. There is no way to go on after one: a message that is skipped is a
/// change that is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    message: &'static str,
    field: &'static str,
    column: Option<u16>,
    offset: usize,
    problem: Problem,
}

/// Why the bytes were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    Truncated { needed: usize, left: usize },
    Trailing { left: usize },
    Unterminated,
    NotUtf8,
    NegativeCount(i32),
    CountPastEnd { count: usize, left: usize },
    UnknownMessage(u8),
    UnknownTag { found: u8, expected: &'static str },
    UnknownFlags(u8),
    NoPosition,
    TooOld { needed: ProtocolVersion, negotiated: ProtocolVersion },
    InsideStreamedBlock,
    OutsideStreamedBlock,
    NoLineEnd,
    ColumnCount { expected: u16 },
    UnknownEscape(u8),
    TooLong { size: usize },
}

impl DecodeError {
    #[cold]
    pub(crate) const fn new(message: &'static str, field: &'static str, offset: usize, problem: Problem) -> Self {
        Self { message, field, column: None, offset, problem }
    }

    #[cold]
    pub(crate) const fn in_column(self, column: u16) -> Self {
        Self { column: Some(column), ..self }
    }

    /// The message or frame as the PostgreSQL documentation names it, such as `Stream Commit`; `message` while its kind
    /// is not known. `COPY row` for a [row of COPY](crate::CopyRows).
    pub const fn message(&self) -> &'static str {
        self.message
    }

    /// The field that could not be read, such as `new tuple value length`.
    pub const fn field(&self) -> &'static str {
        self.field
    }

    /// The column that the field belongs to, counted from 0, when it belongs to one.
    pub const fn column(&self) -> Option<u16> {
        self.column
    }

    /// Where the field starts, in bytes from the start of the message.
    pub const fn offset(&self) -> usize {
        self.offset
    }

    /// Whether the message ended too early: an announced length, or a field of fixed size, goes past its last byte.
    pub const fn is_truncated(&self) -> bool {
        matches!(
            self.problem,
            Problem::Truncated { .. } | Problem::CountPastEnd { .. } | Problem::Unterminated | Problem::NoLineEnd
        )
    }

    /// Whether the bytes are of a kind that this decoder does not know, or that the negotiated version does not have:
    /// the server speaks a newer dialect than was agreed.
    pub const fn is_unknown_message(&self) -> bool {
        matches!(self.problem, Problem::UnknownMessage(_) | Problem::TooOld { .. })
    }

    /// Whether the message is well known but came where it cannot come: inside a streamed block, or outside of one.
    pub const fn is_out_of_order(&self) -> bool {
        matches!(self.problem, Problem::InsideStreamedBlock | Problem::OutsideStreamedBlock)
    }
}

impl std::error::Error for DecodeError {}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.field)?;
        if let Some(column) = self.column {
            write!(f, " of column {column}")?;
        }
        write!(f, " at byte {}: {}", self.offset, self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Truncated { needed, left } => write!(f, "{needed} bytes needed, {left} left"),
            Self::Trailing { left } => write!(f, "{left} bytes follow the last field"),
            Self::Unterminated => f.write_str("no zero byte ends the text"),
            Self::NotUtf8 => f.write_str("the text is not UTF-8"),
            Self::NegativeCount(count) => write!(f, "{count} is negative"),
            Self::CountPastEnd { count, left } => write!(f, "{count} elements announced, but only {left} bytes left"),
            Self::UnknownMessage(found) => {
                write!(f, "no message of protocol versions 1 to 4 starts with {}", Byte(found))
            }
            Self::UnknownTag { found, expected } => write!(f, "expected {expected}, found {}", Byte(found)),
            Self::UnknownFlags(flags) => write!(f, "0x{flags:02x} holds flags that the protocol does not define"),
            Self::NoPosition => write!(f, "{} is not a position", Lsn::INVALID),
            Self::TooOld { needed, negotiated } => {
                write!(
                    f,
                    "came under protocol version {negotiated}, which has no such message; it needs version {needed}"
                )
            }
            Self::InsideStreamedBlock => f.write_str("came between Stream Start and Stream Stop"),
            Self::OutsideStreamedBlock => f.write_str("came without a Stream Start before it"),
            Self::NoLineEnd => f.write_str("no newline ends the line"),
            Self::ColumnCount { expected } => write!(f, "the line does not have {expected} columns"),
            Self::UnknownEscape(found) => write!(f, "COPY writes no backslash before {}", Byte(found)),
            Self::TooLong { size } => write!(f, "{size} bytes are more than a message can hold"),
        }
    }
}

/// A byte as a letter where it is one, as the documentation writes it, and as a number always.
struct Byte(u8);

impl fmt::Display for Byte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii_graphic() {
            write!(f, "'{}' (0x{:02x})", char::from(self.0), self.0)
        } else {
            write!(f, "0x{:02x}", self.0)
        }
    }
}
