//! Numbers compared by their digits: no binary fraction comes in between.

use std::cmp::Ordering;

/// A finite number: `sign * 0.digits * 10^exponent`, without zeros at either end of the digits.
#[derive(Debug, PartialEq, Eq)]
struct Parsed {
    /// 0 for zero, which has no digits.
    sign: i8,
    exponent: i64,
    digits: Vec<u8>,
}

/// Compares two decimal numbers, in the notation of JSON or of PostgreSQL; none if one of them is no number. Neither their length nor their exponent
/// makes it slow.
pub fn compare(left: &str, right: &str) -> Option<Ordering> {
    let (left, right) = (parse(left)?, parse(right)?);
    let by_size = left.exponent.cmp(&right.exponent).then_with(|| left.digits.cmp(&right.digits));
    Some(left.sign.cmp(&right.sign).then(if left.sign < 0 { by_size.reverse() } else { by_size }))
}

fn parse(text: &str) -> Option<Parsed> {
    let (sign, rest) = match text.as_bytes() {
        [b'-', ..] => (-1, &text[1..]),
        [b'+', ..] => (1, &text[1..]),
        _ => (1, text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        // A larger exponent is no number that anybody has stored.
        Some((mantissa, exponent)) => (mantissa, i64::from(exponent.parse::<i32>().ok()?)),
        None => (rest, 0),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if integer.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits: Vec<u8> = integer.bytes().chain(fraction.bytes()).collect();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let leading = digits.iter().take_while(|digit| **digit == b'0').count();
    let Some(last) = digits.iter().rposition(|digit| *digit != b'0') else {
        return Some(Parsed { sign: 0, exponent: 0, digits: Vec::new() });
    };
    let length = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    let exponent = exponent.saturating_add(length(integer.len())).saturating_sub(length(leading));
    Some(Parsed { sign, exponent, digits: digits[leading..=last].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_their_value() {
        for (left, right, expect) in [
            ("4", "4.00", Ordering::Equal),
            ("0", "-0.0e9", Ordering::Equal),
            ("1e2", "100", Ordering::Equal),
            ("0.1", "0.10000000000000000001", Ordering::Less),
            ("-0.1", "-0.10000000000000000001", Ordering::Greater),
            ("9007199254740993", "9007199254740992", Ordering::Greater),
            ("-5", "3", Ordering::Less),
            ("0", "1e-2000000000", Ordering::Less),
            ("1e2000000000", "9e1999999999", Ordering::Greater),
            (".5", "5.e-1", Ordering::Equal),
            ("12", "9", Ordering::Greater),
            ("00012", "12", Ordering::Equal),
        ] {
            assert_eq!(compare(left, right), Some(expect), "{left} {right}");
            assert_eq!(compare(right, left), Some(expect.reverse()), "{right} {left}");
        }
    }

    #[test]
    fn what_is_no_number_is_not_compared() {
        for text in ["", "-", ".", "e1", "1e", "NaN", "1_0", "0x1", "1e99999999999", "1 ", "--1"] {
            assert_eq!(compare(text, "1"), None, "{text}");
        }
    }
}
