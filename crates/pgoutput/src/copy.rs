//! Rows of `COPY ... TO STDOUT`, which has rows that are in the table already: the stream has only what comes after it.
//!
//! The text format, which is the default: a row is a line, a tab stands between two values, `\N` is null, and a backslash
//! announces what would be taken for a tab, an end of line or a backslash. A value is the type's text output, as in the
//! stream, so that a row of the one reads as a row of the other.
//!
//! Source: PostgreSQL documentation, "COPY", "Text Format", and `CopyAttributeOutText` in `copyto.c`, which says what the
//! server writes. Reading knows more escapes than that, such as octal numbers: they are refused here like everything that
//! the server does not write, because a line that is not understood is a row that is not known.

use bytes::{BufMut, BytesMut};
use memchr::memchr3;

use crate::{
    DecodeError, Tuple,
    error::Problem,
    tuple::{NULL, TEXT, VALUE_HEADER_BYTES},
};

/// What errors call it.
const MESSAGE: &str = "COPY row";
/// How much is asked for at once: room for many rows.
const BUFFER_BYTES: usize = 64 * 1024;

/// Decodes the rows of one COPY in text format, with PostgreSQL's default delimiter and null, in UTF-8.
///
/// Rows share buffers, a new one every 64 KiB if all are kept, and the same one again if none is.
///
/// ```
/// use pgoutput::{CopyRows, Value};
///
/// let mut rows = CopyRows::new(3);
/// let row = rows.decode(b"7\t\\N\tC:\\\\temp\n").unwrap();
/// assert!(row.iter().eq([Value::Text(b"7"), Value::Null, Value::Text(br"C:\temp")]));
///
/// let error = rows.decode(b"7\t\\N\n").unwrap_err();
/// assert_eq!(error.to_string(), "COPY row: end of value of column 1 at byte 4: the line does not have 3 columns");
/// ```
#[derive(Debug)]
pub struct CopyRows {
    columns: u16,
    /// What is left of the last buffer; empty between two rows.
    buffer: BytesMut,
}

impl CopyRows {
    /// For rows of so many columns.
    pub fn new(columns: u16) -> Self {
        Self { columns, buffer: BytesMut::new() }
    }

    /// One row: what one `CopyData` message holds, a line with the newline that ends it.
    ///
    /// The end of the data is a message of its own, `CopyDone`; the line `\.` is not sent since protocol version 3.
    pub fn decode(&mut self, line: &[u8]) -> Result<Tuple, DecodeError> {
        // What a line that was refused has left.
        self.buffer.clear();
        if i32::try_from(line.len()).is_err() {
            return Err(error("line", 0, Problem::TooLong { size: line.len() }));
        }
        let size_max = line.len() + usize::from(self.columns) * VALUE_HEADER_BYTES;
        if self.buffer.capacity() < size_max {
            self.buffer.reserve(size_max.max(BUFFER_BYTES));
        }
        let mut start = 0;
        for column in 0..self.columns {
            let end = self.value(line, start).map_err(|error| error.in_column(column))?;
            let expected = if column + 1 == self.columns { b'\n' } else { b'\t' };
            if line[end] != expected {
                return Err(self.wrong_count(end).in_column(column));
            }
            start = end + 1;
        }
        if self.columns == 0 {
            if line.first() != Some(&b'\n') {
                return Err(self.wrong_count(0));
            }
            start = 1;
        }
        match line.len() - start {
            0 => Ok(Tuple::from_wire(self.buffer.split().freeze(), self.columns)),
            left => Err(error("end of line", start, Problem::Trailing { left })),
        }
    }

    /// Writes the value that starts there as it is in a tuple, and returns where it ends: at a tab or a newline.
    #[inline]
    fn value(&mut self, line: &[u8], start: usize) -> Result<usize, DecodeError> {
        let header = self.buffer.len();
        self.buffer.put_slice(&[TEXT, 0, 0, 0, 0]);
        let mut copied = start;
        loop {
            let found = memchr3(b'\t', b'\n', b'\\', &line[copied..])
                .ok_or_else(|| error("value", start, Problem::NoLineEnd))?;
            let at = copied + found;
            self.buffer.put_slice(&line[copied..at]);
            if line[at] != b'\\' {
                let value = header + VALUE_HEADER_BYTES;
                // No longer than the line, whose length fits.
                let length = u32::try_from(self.buffer.len() - value).unwrap_or(u32::MAX);
                self.buffer[header + 1..value].copy_from_slice(&length.to_be_bytes());
                return Ok(at);
            }
            if at == start && is_null(&line[at..]) {
                self.buffer.truncate(header);
                self.buffer.put_u8(NULL);
                return Ok(at + 2);
            }
            self.buffer.put_u8(unescape(line, at)?);
            copied = at + 2;
        }
    }

    #[cold]
    fn wrong_count(&self, at: usize) -> DecodeError {
        error("end of value", at, Problem::ColumnCount { expected: self.columns })
    }
}

/// Whether a value that starts so is null.
fn is_null(rest: &[u8]) -> bool {
    matches!(rest, [b'\\', b'N', b'\t' | b'\n', ..])
}

/// What the backslash there and the letter behind it stand for.
fn unescape(line: &[u8], at: usize) -> Result<u8, DecodeError> {
    Ok(match line.get(at + 1) {
        Some(b'\\') => b'\\',
        Some(b'b') => 0x08,
        Some(b't') => b'\t',
        Some(b'n') => b'\n',
        Some(b'v') => 0x0b,
        Some(b'f') => 0x0c,
        Some(b'r') => b'\r',
        Some(&found) => return Err(error("escape", at, Problem::UnknownEscape(found))),
        None => return Err(error("escape", at, Problem::NoLineEnd)),
    })
}

#[cold]
fn error(field: &'static str, offset: usize, problem: Problem) -> DecodeError {
    DecodeError::new(MESSAGE, field, offset, problem)
}
