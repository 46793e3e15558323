//! Rows as they come on the wire.

use std::{fmt, iter::FusedIterator};

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::{DecodeError, error::Problem, reader::Reader};

pub(crate) const NULL: u8 = b'n';
const UNCHANGED_TOAST: u8 = b'u';
pub(crate) const TEXT: u8 = b't';
const BINARY: u8 = b'b';
/// What precedes a value's bytes: its kind and its length.
pub(crate) const VALUE_HEADER_BYTES: usize = 5;

/// One row, or the key of one, with its columns in the order of the [`Relation`](crate::Relation) message.
///
/// All of it was checked when it was decoded, so walking it cannot fail and allocates nothing. It keeps the message's
/// buffer alive: copy what is to be held for long.
///
/// `Debug` shows kinds and sizes, never row data, so that a message can be logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Tuple {
    /// The columns as on the wire, without the count that precedes them. Invariant: exactly `columns` well-formed
    /// columns.
    bytes: Bytes,
    columns: u16,
}

impl Tuple {
    /// Writes a row as the server would, for tests and for rows that come from elsewhere than the stream.
    ///
    /// ```
    /// use pgoutput::{Tuple, Value};
    ///
    /// let row = [Value::Text(b"7"), Value::Null, Value::UnchangedToast];
    /// let tuple = Tuple::from_values(row).unwrap();
    /// assert!(tuple.iter().eq(row));
    /// ```
    pub fn from_values<'a>(values: impl IntoIterator<Item = Value<'a>>) -> Result<Self, TupleSizeError> {
        let mut bytes = BytesMut::new();
        let mut columns = 0_i16;
        for value in values {
            columns = columns.checked_add(1).ok_or(TupleSizeError(()))?;
            match value {
                Value::Null => bytes.put_u8(NULL),
                Value::UnchangedToast => bytes.put_u8(UNCHANGED_TOAST),
                Value::Text(value) => put_value(&mut bytes, TEXT, value)?,
                Value::Binary(value) => put_value(&mut bytes, BINARY, value)?,
            }
        }
        Ok(Self { bytes: bytes.freeze(), columns: columns.unsigned_abs() })
    }

    /// How many columns it has.
    pub fn len(&self) -> usize {
        usize::from(self.columns)
    }

    /// Whether it has no column at all, as a row of a table without columns.
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// Its values, column by column.
    #[inline]
    pub fn iter(&self) -> Values<'_> {
        Values { rest: &self.bytes, columns: self.columns }
    }

    /// Its first columns, and the rest; `None` if it has fewer. They share its buffer.
    ///
    /// ```
    /// use pgoutput::{Tuple, Value};
    ///
    /// let tuple = Tuple::from_values([Value::Text(b"(0,1)"), Value::Null, Value::Text(b"a")]).unwrap();
    /// let (place, row) = tuple.split_at(1).unwrap();
    /// assert!(place.iter().eq([Value::Text(b"(0,1)")]));
    /// assert!(row.iter().eq([Value::Null, Value::Text(b"a")]));
    /// assert!(tuple.split_at(4).is_none());
    /// ```
    pub fn split_at(&self, columns: u16) -> Option<(Self, Self)> {
        let columns_left = self.columns.checked_sub(columns)?;
        let mut values = self.iter();
        values.by_ref().take(columns.into()).for_each(drop);
        let first_bytes = self.bytes.len() - values.rest.len();
        let first = Self { bytes: self.bytes.slice(..first_bytes), columns };
        Some((first, Self { bytes: self.bytes.slice(first_bytes..), columns: columns_left }))
    }

    /// Its size on the wire in bytes, without the count of columns.
    pub fn wire_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// A row that has been written as on the wire, with exactly so many well-formed columns.
    #[inline]
    pub(crate) fn from_wire(bytes: Bytes, columns: u16) -> Self {
        Self { bytes, columns }
    }

    /// Reads the count and checks every column; the values stay where they are.
    #[inline]
    pub(crate) fn read(reader: &mut Reader, fields: &'static TupleFields) -> Result<Self, DecodeError> {
        let columns = reader.count16(fields.count, 1)?;
        let size = checked_size(reader, fields, columns)?;
        let bytes = reader.take(fields.value, size)?;
        Ok(Self { bytes, columns })
    }
}

impl<'a> IntoIterator for &'a Tuple {
    type Item = Value<'a>;
    type IntoIter = Values<'a>;

    fn into_iter(self) -> Values<'a> {
        self.iter()
    }
}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tuple")?;
        f.debug_list().entries(self.iter().map(Shape)).finish()
    }
}

/// The old row of an Update or a Delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldTuple {
    /// Nothing was sent: an Update that left the replica identity's columns as they were. A Delete never has it.
    Absent,
    /// Only the replica identity's columns hold values. All others are null here, **whatever they hold in the table**:
    /// it is a key, not a row.
    Key(Tuple),
    /// The whole row, as `REPLICA IDENTITY FULL` gives it.
    Full(Tuple),
}

/// One column of a [`Tuple`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value<'a> {
    /// SQL null.
    Null,
    /// A value stored out of line (TOAST) that the Update did not touch: the server did not read it, so it is **not
    /// known**, which is not null.
    UnchangedToast,
    /// The type's text output, in the client encoding. What it looks like depends on the session's settings, such as
    /// `DateStyle`.
    Text(&'a [u8]),
    /// The type's binary output, as its send function writes it. Only with the option `binary`, and only for types that
    /// have such a function.
    Binary(&'a [u8]),
}

/// The values of a [`Tuple`].
#[derive(Clone)]
pub struct Values<'a> {
    rest: &'a [u8],
    columns: u16,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        // A tuple holds well-formed columns only, and as many as it says, so that every `?` but the first is never
        // taken.
        self.columns = self.columns.checked_sub(1)?;
        let (&kind, rest) = self.rest.split_first()?;
        if kind == NULL || kind == UNCHANGED_TOAST {
            self.rest = rest;
            return Some(if kind == NULL { Value::Null } else { Value::UnchangedToast });
        }
        let (length, rest) = rest.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        self.rest = rest;
        Some(if kind == TEXT { Value::Text(value) } else { Value::Binary(value) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.columns), Some(usize::from(self.columns)))
    }
}

impl ExactSizeIterator for Values<'_> {}
impl FusedIterator for Values<'_> {}

impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone().map(Shape)).finish()
    }
}

/// The row does not fit the protocol: more than 32,767 columns, or a value of more than 2,147,483,647 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the row does not fit a tuple: at most 32767 columns of at most 2147483647 bytes each")]
pub struct TupleSizeError(());

/// What the fields of a tuple are called in errors, which have to say which of two tuples is broken without allocating.
pub(crate) struct TupleFields {
    count: &'static str,
    kind: &'static str,
    length: &'static str,
    value: &'static str,
}

pub(crate) static NEW: TupleFields = TupleFields {
    count: "new tuple column count",
    kind: "new tuple value kind",
    length: "new tuple value length",
    value: "new tuple value",
};

pub(crate) static OLD: TupleFields = TupleFields {
    count: "old tuple column count",
    kind: "old tuple value kind",
    length: "old tuple value length",
    value: "old tuple value",
};

/// How many of the next bytes `columns` columns take, once all of them have been found well formed.
#[inline]
fn checked_size(reader: &Reader, fields: &'static TupleFields, columns: u16) -> Result<usize, DecodeError> {
    let bytes = reader.rest();
    let mut rest = bytes;
    for column in 0..columns {
        let refuse = |at: &[u8], field, problem| {
            let offset = reader.offset() + (bytes.len() - at.len());
            Err(reader.error_at(offset, field, problem).in_column(column))
        };
        let Some((&kind, after)) = rest.split_first() else {
            return refuse(rest, fields.kind, Problem::Truncated { needed: 1, left: 0 });
        };
        match kind {
            TEXT | BINARY => {
                let Some((&length, value)) = after.split_first_chunk() else {
                    return refuse(after, fields.length, Problem::Truncated { needed: 4, left: after.len() });
                };
                let length = i32::from_be_bytes(length);
                let Ok(size) = usize::try_from(length) else {
                    return refuse(after, fields.length, Problem::NegativeCount(length));
                };
                let Some((_, next)) = value.split_at_checked(size) else {
                    return refuse(value, fields.value, Problem::Truncated { needed: size, left: value.len() });
                };
                rest = next;
            }
            NULL | UNCHANGED_TOAST => rest = after,
            found => return refuse(rest, fields.kind, Problem::UnknownTag { found, expected: "'n', 'u', 't' or 'b'" }),
        }
    }
    Ok(bytes.len() - rest.len())
}

fn put_value(bytes: &mut BytesMut, kind: u8, value: &[u8]) -> Result<(), TupleSizeError> {
    let length = i32::try_from(value.len()).map_err(|_| TupleSizeError(()))?;
    bytes.reserve(VALUE_HEADER_BYTES + value.len());
    bytes.put_u8(kind);
    bytes.put_i32(length);
    bytes.put_slice(value);
    Ok(())
}

/// A value's kind and size, without the value.
struct Shape<'a>(Value<'a>);

impl fmt::Debug for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("null"),
            Value::UnchangedToast => f.write_str("unchanged"),
            Value::Text(value) => write!(f, "text({} bytes)", value.len()),
            Value::Binary(value) => write!(f, "binary({} bytes)", value.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_row_data() {
        let row = [Value::Text(b"hunter2"), Value::Null, Value::UnchangedToast, Value::Binary(b"\0\0")];
        let tuple = Tuple::from_values(row).unwrap();
        assert_eq!(format!("{tuple:?}"), "Tuple[text(7 bytes), null, unchanged, binary(2 bytes)]");
        assert_eq!(format!("{:?}", tuple.iter()), "[text(7 bytes), null, unchanged, binary(2 bytes)]");
    }

    #[test]
    fn the_iterator_knows_how_many_are_left_and_stays_finished() {
        let tuple = Tuple::from_values([Value::Text(b""), Value::Null]).unwrap();
        let mut values = tuple.iter();
        assert_eq!(values.len(), 2);
        assert_eq!(values.next(), Some(Value::Text(b"")));
        assert_eq!(values.len(), 1);
        assert_eq!(values.next(), Some(Value::Null));
        assert_eq!((values.len(), values.next(), values.next()), (0, None, None));
    }

    #[test]
    fn a_row_that_the_protocol_cannot_hold_is_refused() {
        assert_eq!(Tuple::from_values(vec![Value::Null; 32_767]).unwrap().len(), 32_767);
        assert_eq!(Tuple::from_values(vec![Value::Null; 32_768]), Err(TupleSizeError(())));
    }
}
