//! Avro's binary encoding, the few pieces of it that an event needs (Avro 1.12 specification, "Binary Encoding").

/// Longest encoding of an `int` or a `long`.
const LONG_BYTES_MAX: usize = 10;

/// Appends a `boolean`.
#[inline]
pub(crate) fn write_boolean(out: &mut Vec<u8>, value: bool) {
    out.push(u8::from(value));
}

/// Appends an `int` or a `long`, which are encoded alike: zigzag, then seven bits a byte, the lowest first.
#[inline]
pub(crate) fn write_long(out: &mut Vec<u8>, value: i64) {
    let rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    if let Ok(byte @ ..0x80) = u8::try_from(rest) {
        out.push(byte);
        return;
    }
    let groups = (u64::BITS - rest.leading_zeros()).div_ceil(GROUP_BITS) as usize;
    let low = spread_groups(rest);
    if groups <= 8 {
        // Every byte but the last says that another one follows.
        let followed = FOLLOWED & ((1 << (8 * (groups - 1))) - 1);
        append_start(out, &(low | followed).to_le_bytes(), groups);
        return;
    }
    let [.., high] = (rest >> (8 * GROUP_BITS)).to_be_bytes();
    let mut bytes = [0; LONG_BYTES_MAX];
    bytes[..8].copy_from_slice(&(low | FOLLOWED).to_le_bytes());
    bytes[8] = if groups == 9 { high } else { high | 0x80 };
    bytes[9] = high >> GROUP_BITS;
    append_start(out, &bytes, groups);
}

/// How many bits of a number each byte has.
const GROUP_BITS: u32 = 7;
/// The bit of each byte that says that another one follows.
const FOLLOWED: u64 = 0x8080_8080_8080_8080;

/// Gives each of the eight lowest groups of seven bits a byte of its own: halves, then quarters, then eighths are moved apart.
#[inline]
const fn spread_groups(number: u64) -> u64 {
    let number = (number & 0x00ff_ffff_f000_0000) << 4 | number & 0x0000_0000_0fff_ffff;
    let number = (number & 0x0fff_c000_0fff_c000) << 2 | number & 0x0000_3fff_0000_3fff;
    (number & 0x3f80_3f80_3f80_3f80) << 1 | number & 0x007f_007f_007f_007f
}

/// Appends the first `length` bytes of an array. All of it is copied, since a copy of a size that the compiler knows needs no call.
#[inline]
fn append_start<const N: usize>(out: &mut Vec<u8>, bytes: &[u8; N], length: usize) {
    let start = out.len();
    out.extend_from_slice(bytes);
    out.truncate(start + length);
}

/// A few encoded bytes that are appended again and again.
#[derive(Debug, Clone)]
pub(crate) struct Fragment<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Fragment<N> {
    /// Keeps what `write` appends, which has to fit.
    pub(crate) fn new(write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut out = Vec::with_capacity(N);
        write(&mut out);
        let mut bytes = [0; N];
        bytes[..out.len()].copy_from_slice(&out);
        Self { bytes, length: out.len() }
    }

    /// How many bytes it has.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Appends them.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        append_start(out, &self.bytes, self.length);
    }
}

/// Appends a `float`.
#[inline]
pub(crate) fn write_float(out: &mut Vec<u8>, value: f32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a `double`.
#[inline]
pub(crate) fn write_double(out: &mut Vec<u8>, value: f64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a length: of a `string`, of `bytes`.
#[inline]
pub(crate) fn write_length(out: &mut Vec<u8>, length: usize) {
    // A slice is never longer than isize::MAX.
    write_long(out, length.cast_signed() as i64);
}

/// Appends a `string` or `bytes` without anything in it.
pub(crate) fn write_empty(out: &mut Vec<u8>) {
    write_length(out, 0);
}

/// Appends `bytes`, or a `string` that is known to be UTF-8.
#[inline]
pub(crate) fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Puts the length of what was appended from `start` on before it, which makes it a `string` or `bytes`. For text whose length shows only
/// when it is written: what is moved is short most of the time.
pub(crate) fn insert_length(out: &mut Vec<u8>, start: usize) {
    let end = out.len();
    write_length(out, end - start);
    let length = out.len() - end;
    out[start..].rotate_right(length);
}

/// Reads the pieces back. Running out of bytes reads as nothing: of what this crate has just written it is a bug of the writer.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// How many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    /// The next `boolean`.
    pub(crate) fn boolean(&mut self) -> Option<bool> {
        self.take(1).map(|byte| byte[0] != 0)
    }

    /// The next `int` or `long`, or the index of a union's branch.
    pub(crate) fn long(&mut self) -> Option<i64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        None
    }

    /// The next `float`.
    pub(crate) fn float(&mut self) -> Option<f32> {
        self.take(4)?.try_into().ok().map(f32::from_le_bytes)
    }

    /// The next `double`.
    pub(crate) fn double(&mut self) -> Option<f64> {
        self.take(8)?.try_into().ok().map(f64::from_le_bytes)
    }

    /// The next `bytes` or `string`.
    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.long()?).ok()?;
        self.take(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_are_zigzag_varints() {
        // The examples of the specification, and the ends.
        let cases: [(i64, &[u8]); 7] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (-64, &[0x7f]),
            (64, &[0x80, 1]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ];
        for (value, expected) in cases {
            let mut out = Vec::new();
            write_long(&mut out, value);
            assert_eq!(out, expected, "{value}");
            assert_eq!(Reader::new(&out).long(), Some(value));
        }
    }

    #[test]
    fn longs_of_every_length_are_what_the_loop_of_the_specification_gives() {
        for bits in 0..64 {
            for value in
                [1_i64 << bits, (1_i64 << bits).wrapping_sub(1), i64::MIN >> bits, 0x55aa_33cc_0f5a_a5c3 >> bits]
            {
                let mut expected: Vec<u8> = Vec::new();
                let mut rest = (value << 1 ^ value >> 63).cast_unsigned();
                while rest >= 0x80 {
                    expected.push((rest & 0x7f | 0x80).try_into().unwrap());
                    rest >>= 7;
                }
                expected.push(rest.try_into().unwrap());
                let mut out = Vec::new();
                write_long(&mut out, value);
                assert_eq!(out, expected, "{value:#x}");
            }
        }
    }

    #[test]
    fn reading_past_the_end_gives_nothing() {
        assert_eq!(Reader::new(&[]).long(), None);
        assert_eq!(Reader::new(&[0x80]).long(), None);
        assert_eq!(Reader::new(&[4, b'a']).bytes(), None);
        assert_eq!(Reader::new(&[0xff; 11]).long(), None);
    }
}
