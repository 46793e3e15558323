//! Base64 (RFC 4648), with padding.

/// The characters for the 64 values.
pub(crate) type Alphabet = [u8; 64];

/// Section 4.
pub(crate) static STANDARD: &Alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// Section 5, for URLs and file names.
pub(crate) static URL: &Alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// How long the text for so many bytes is.
pub(crate) const fn length(bytes: usize) -> usize {
    bytes.div_ceil(3) * 4
}

/// Appends bytes as text.
pub(crate) fn write(alphabet: &Alphabet, bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes(group);
        for (position, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let sextet = (bits >> shift & 0x3f) as usize;
            out.push(if position <= chunk.len() { alphabet[sextet] } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_rfc() {
        for (bytes, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            let mut out = Vec::new();
            write(STANDARD, bytes.as_bytes(), &mut out);
            assert_eq!(out, expected.as_bytes());
            assert_eq!(length(bytes.len()), expected.len());
        }
        let mut out = Vec::new();
        write(URL, &[0xfb, 0xff], &mut out);
        assert_eq!(out, b"-_8=");
    }
}
