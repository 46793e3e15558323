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

/// Reads what [`write`] writes; none if it is something else.
pub(crate) fn read(alphabet: &Alphabet, text: &str) -> Option<Vec<u8>> {
    let (groups, []) = text.as_bytes().as_chunks::<4>() else { return None };
    let mut out = Vec::with_capacity(groups.len() * 3);
    for (position, group) in groups.iter().enumerate() {
        let padding = group.iter().rev().take_while(|character| **character == b'=').count();
        if padding > 2 || padding > 0 && position + 1 < groups.len() {
            return None;
        }
        let mut bits: u32 = 0;
        for character in &group[..4 - padding] {
            let sextet = alphabet.iter().position(|known| known == character)?;
            bits = bits << 6 | u32::try_from(sextet).ok()?;
        }
        bits <<= 6 * padding;
        out.extend_from_slice(&bits.to_be_bytes()[1..4 - padding]);
    }
    Some(out)
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
            assert_eq!(read(STANDARD, expected).as_deref(), Some(bytes.as_bytes()));
        }
        let mut out = Vec::new();
        write(URL, &[0xfb, 0xff], &mut out);
        assert_eq!(out, b"-_8=");
        for text in ["Zg", "Zg==Zg==", "Z===", "-_8=", "Z g="] {
            assert_eq!(read(STANDARD, text), None, "{text}");
        }
    }
}
