//! The bounds-checked cursor that all decoding goes through.

use bytes::{Buf, Bytes};

use crate::{DecodeError, Lsn, Oid, Timestamp, Xid, error::Problem};

/// Reads one message from its front. Nothing is copied: what is handed out as [`Bytes`] shares the message's buffer.
///
/// No method can panic or read past the end, whatever the bytes are: every length is compared with what is left before
/// it is used, and signed lengths are converted with a check.
pub(crate) struct Reader {
    message: &'static str,
    size: usize,
    rest: Bytes,
}

impl Reader {
    pub(crate) fn new(message: &'static str, bytes: Bytes) -> Self {
        Self { message, size: bytes.len(), rest: bytes }
    }

    /// Refuses bytes that no field has taken: a longer message is a message that is not understood.
    #[inline]
    pub(crate) fn finish<T>(self, decoded: T) -> Result<T, DecodeError> {
        if self.rest.is_empty() {
            return Ok(decoded);
        }
        Err(self.error("end of message", Problem::Trailing { left: self.rest.len() }))
    }

    #[inline]
    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        let [byte] = self.array(field)?;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn oid(&mut self, field: &'static str) -> Result<Oid, DecodeError> {
        self.array(field).map(|bytes| Oid::from(u32::from_be_bytes(bytes)))
    }

    #[inline]
    pub(crate) fn xid(&mut self, field: &'static str) -> Result<Xid, DecodeError> {
        self.array(field).map(|bytes| Xid::from(u32::from_be_bytes(bytes)))
    }

    /// The transaction of a change: on the wire only inside a streamed block.
    #[inline]
    pub(crate) fn streamed_xid(&mut self, streamed: bool) -> Result<Option<Xid>, DecodeError> {
        streamed.then(|| self.xid("transaction id")).transpose()
    }

    pub(crate) fn timestamp(&mut self, field: &'static str) -> Result<Timestamp, DecodeError> {
        self.array(field).map(|bytes| Timestamp::from(i64::from_be_bytes(bytes)))
    }

    pub(crate) fn lsn(&mut self, field: &'static str) -> Result<Lsn, DecodeError> {
        self.array(field).map(|bytes| Lsn::from(u64::from_be_bytes(bytes)))
    }

    /// A position that names a transaction's commit or prepare record. PostgreSQL's own subscriber refuses 0/0 there
    /// too.
    pub(crate) fn valid_lsn(&mut self, field: &'static str) -> Result<Lsn, DecodeError> {
        let before = self.offset();
        let lsn = self.lsn(field)?;
        if lsn.is_valid() { Ok(lsn) } else { Err(self.error_at(before, field, Problem::NoPosition)) }
    }

    /// A byte of flags of which only those in `known` may be set: an unknown one would change what the message means.
    pub(crate) fn flags(&mut self, field: &'static str, known: u8) -> Result<u8, DecodeError> {
        let before = self.offset();
        let flags = self.u8(field)?;
        if flags & !known == 0 { Ok(flags) } else { Err(self.error_at(before, field, Problem::UnknownFlags(flags))) }
    }

    /// A text that a zero byte ends.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let Some(length) = self.rest.iter().position(|&byte| byte == 0) else {
            return Err(self.error(field, Problem::Unterminated));
        };
        let text =
            std::str::from_utf8(&self.rest[..length]).map_err(|_| self.error(field, Problem::NotUtf8))?.to_owned();
        self.rest.advance(length + 1);
        Ok(text)
    }

    /// A signed count of 16 bits whose elements take at least `element_bytes_min` each. It is safe to allocate for.
    #[inline]
    pub(crate) fn count16(&mut self, field: &'static str, element_bytes_min: usize) -> Result<u16, DecodeError> {
        let before = self.offset();
        let count = self.array(field).map(i16::from_be_bytes)?;
        let Ok(unsigned) = u16::try_from(count) else {
            return Err(self.error_at(before, field, Problem::NegativeCount(count.into())));
        };
        self.fits(before, field, usize::from(unsigned), element_bytes_min)?;
        Ok(unsigned)
    }

    /// A signed count of 32 bits whose elements take at least `element_bytes_min` each. It is safe to allocate for.
    pub(crate) fn count32(&mut self, field: &'static str, element_bytes_min: usize) -> Result<usize, DecodeError> {
        let before = self.offset();
        let count = self.i32(field)?;
        let Ok(unsigned) = usize::try_from(count) else {
            return Err(self.error_at(before, field, Problem::NegativeCount(count)));
        };
        self.fits(before, field, unsigned, element_bytes_min)?;
        Ok(unsigned)
    }

    /// The next `length` bytes.
    pub(crate) fn take(&mut self, field: &'static str, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.rest.len() {
            return Err(self.error(field, Problem::Truncated { needed: length, left: self.rest.len() }));
        }
        Ok(self.rest.split_to(length))
    }

    /// All bytes that are left.
    pub(crate) fn take_rest(self) -> Bytes {
        self.rest
    }

    /// The bytes that are left, to look at.
    #[inline]
    pub(crate) fn rest(&self) -> &[u8] {
        &self.rest
    }

    /// How many bytes were read.
    #[inline]
    pub(crate) fn offset(&self) -> usize {
        self.size - self.rest.len()
    }

    /// The field that comes next is wrong.
    #[cold]
    pub(crate) fn error(&self, field: &'static str, problem: Problem) -> DecodeError {
        self.error_at(self.offset(), field, problem)
    }

    /// The field that starts at `offset` is wrong.
    #[cold]
    pub(crate) fn error_at(&self, offset: usize, field: &'static str, problem: Problem) -> DecodeError {
        DecodeError::new(self.message, field, offset, problem)
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some(&array) = self.rest.first_chunk::<N>() else {
            return Err(self.error(field, Problem::Truncated { needed: N, left: self.rest.len() }));
        };
        self.rest.advance(N);
        Ok(array)
    }

    #[inline]
    fn fits(
        &self,
        offset: usize,
        field: &'static str,
        count: usize,
        element_bytes_min: usize,
    ) -> Result<(), DecodeError> {
        let left = self.rest.len();
        // Dividing cannot overflow where multiplying could.
        if count <= left / element_bytes_min {
            return Ok(());
        }
        Err(self.error_at(offset, field, Problem::CountPastEnd { count, left }))
    }
}
