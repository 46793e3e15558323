//! Arrays → Avro array, whose items can be null unless they are values of an enum, as in Debezium.
//!
//! A type such as `integer[]` takes arrays of any number of dimensions and any lower bounds, so what a value is shows only in its text:
//! `{{1,2},{3,4}}`, or `[0:1]={1,2}`. Avro's array has one dimension and no bounds. Debezium writes nulls for the elements of another
//! shape; here such a value is an error, and [`Arrays::Text`](crate::Arrays::Text) is the form that holds all of them.
//!
//! The text is what `array_out` prints (PostgreSQL documentation, "Array Input and Output Syntax"): an element is in quotes where it has
//! anything that could be mistaken, and in quotes a backslash takes the character behind it as it is. A null is a bare `NULL`.

use std::cell::Cell;

use super::Codec;
use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
};

thread_local! {
    /// Where an element that has escapes becomes what it is, so that it needs no allocation of its own.
    static UNESCAPED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What an element costs in the encoded array besides its value: the branch of its union.
const NULL: u8 = 0;
const SOME: u8 = 2;

/// An array of one type.
#[derive(Debug)]
pub(super) struct Array {
    items: Box<dyn Codec>,
    delimiter: u8,
    nullable: bool,
}

impl Array {
    pub(super) fn new(items: Box<dyn Codec>, delimiter: u8, nullable: bool) -> Self {
        Self { items, delimiter, nullable }
    }

    fn write_element(&self, element: Element<'_>, out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        match element {
            Element::Null if self.nullable => {
                out.push(NULL);
                Ok(())
            }
            Element::Null => Err(EncodeErrorKind::NullElement),
            Element::Plain(text) => {
                if self.nullable {
                    out.push(SOME);
                }
                self.items.encode(text, out)
            }
            Element::Escaped(text) => {
                if self.nullable {
                    out.push(SOME);
                }
                let mut unescaped = UNESCAPED.take();
                unescaped.clear();
                unescape(text, &mut unescaped);
                let result = self.items.encode(&unescaped, out);
                UNESCAPED.set(unescaped);
                result
            }
        }
    }
}

impl Codec for Array {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::Array { items: Box::new(self.items.avro_type()), nullable: self.nullable })
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let mut elements = Elements::new(text, self.delimiter)?;
        let start = out.len();
        // How many there are is known at the end, and most of the time it is a byte.
        out.push(0);
        let mut count = 0;
        while let Some(element) = elements.next()? {
            self.write_element(element, out)?;
            count += 1;
        }
        finish_block(start, count, out);
        Ok(())
    }

    fn keeps_apart(&self) -> bool {
        self.items.keeps_apart()
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_length(out, 0);
    }

    /// As in Debezium: the placeholder as the only element, or, for integers, bigints and dates, its bytes as the elements. Where Debezium
    /// has none, neither has a consumer that looks for one, so that is an error.
    fn write_unavailable(&self, placeholder: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let start = out.len();
        out.push(0);
        let mut count = 1;
        let items = self.items.avro_type();
        let is_date = items.connect_name == Some("io.debezium.time.Date");
        let is_plain = items.connect_name.is_none() && items.connect_type.is_none();
        if matches!(items.physical, Physical::Int | Physical::Long) && (is_date || is_plain) {
            count = placeholder.len();
            for byte in placeholder {
                out.push(SOME);
                avro::write_long(out, i64::from(*byte));
            }
        } else {
            if self.nullable {
                out.push(SOME);
            }
            self.items.write_unavailable(placeholder, out)?;
        }
        finish_block(start, count, out);
        Ok(())
    }
}

/// Puts in how many entries there are in the block that starts with a byte at `start`, and closes the array or map.
pub(super) fn finish_block(start: usize, count: usize, out: &mut Vec<u8>) {
    // An empty block is the end itself.
    if count == 0 {
        return;
    }
    let end = out.len();
    avro::write_length(out, count);
    if out.len() - end == 1 {
        // The byte is there already.
        out[start] = out[end];
        out.truncate(end);
    } else {
        let length = out.len() - end;
        out[start + 1..].rotate_right(length);
        out.remove(start);
    }
    avro::write_length(out, 0);
}

/// One element as it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element<'a> {
    Null,
    Plain(&'a [u8]),
    /// With backslashes that are to be taken out.
    Escaped(&'a [u8]),
}

/// Walks the elements of an array of one dimension that starts at 1.
struct Elements<'a> {
    rest: &'a [u8],
    delimiter: u8,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// An element, or the end, may come.
    First,
    /// An element must come.
    Next,
    End,
}

impl<'a> Elements<'a> {
    fn new(text: &'a [u8], delimiter: u8) -> Result<Self, EncodeErrorKind> {
        match text {
            [b'{', rest @ ..] => Ok(Self { rest, delimiter, state: State::First }),
            // Bounds are printed only where one is not 1.
            [b'[', ..] if text.ends_with(b"}") => Err(EncodeErrorKind::ArrayShape),
            _ => Err(EncodeErrorKind::MalformedText),
        }
    }

    #[inline]
    fn next(&mut self) -> Result<Option<Element<'a>>, EncodeErrorKind> {
        const MALFORMED: EncodeErrorKind = EncodeErrorKind::MalformedText;
        if self.state == State::End {
            return Ok(None);
        }
        if self.state == State::First && self.rest == b"}" {
            self.state = State::End;
            return Ok(None);
        }
        let element = match self.rest.first().ok_or(MALFORMED)? {
            b'{' => return Err(EncodeErrorKind::ArrayShape),
            b'"' => self.quoted().ok_or(MALFORMED)?,
            _ => self.bare().ok_or(MALFORMED)?,
        };
        match self.rest {
            [b'}'] => self.state = State::End,
            [delimiter, rest @ ..] if *delimiter == self.delimiter => {
                (self.rest, self.state) = (rest, State::Next);
            }
            _ => return Err(MALFORMED),
        }
        Ok(Some(element))
    }

    /// Up to the delimiter or the end.
    #[inline]
    fn bare(&mut self) -> Option<Element<'a>> {
        let ends = |byte: &u8| matches!(byte, b'}' | b'{' | b'"' | b'\\') || *byte == self.delimiter;
        let (text, rest) = self.rest.split_at(self.rest.iter().position(ends)?);
        self.rest = rest;
        match text {
            b"" => None,
            b"NULL" => Some(Element::Null),
            text => Some(Element::Plain(text)),
        }
    }

    /// Up to the closing quote, which is taken.
    #[inline]
    fn quoted(&mut self) -> Option<Element<'a>> {
        let text = &self.rest[1..];
        let mut escaped = false;
        let mut at = 0;
        loop {
            match text.get(at)? {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    at += 2;
                }
                _ => at += 1,
            }
        }
        self.rest = &text[at + 1..];
        Some(if escaped { Element::Escaped(&text[..at]) } else { Element::Plain(&text[..at]) })
    }
}

/// Appends text without the backslashes that only say that the next character is itself.
pub(super) fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        out.extend(rest.get(at + 1));
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{integer::Int4, text::Text};

    fn check(text: &str, expected: &str) {
        let array = Array::new(Box::new(Text::OTHER), b',', true);
        let mut out = Vec::new();
        let found = match array.encode(text.as_bytes(), &mut out) {
            Ok(()) => {
                let mut json = Vec::new();
                let mut reader = avro::Reader::new(&out);
                crate::json::write_value(&array.avro_type().physical, &mut reader, &mut json).unwrap();
                assert_eq!(reader.take(1), None, "bytes are left over");
                String::from_utf8(json).unwrap()
            }
            Err(kind) => kind.as_str().to_owned(),
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn elements_are_told_apart() {
        check("{}", "[]");
        check("{a}", r#"["a"]"#);
        check(r#"{a,"b c","NULL",NULL,"q\"q","",null}"#, r#"["a","b c","NULL",null,"q\"q","","null"]"#);
        check(r#"{"a\\b","{x,y}","\}"}"#, r#"["a\\b","{x,y}","}"]"#);
    }

    #[test]
    fn another_shape_is_an_error_of_its_own() {
        check("{{1,2},{3,4}}", "array_shape");
        check("[0:1]={1,2}", "array_shape");
        check("[2:2][0:0]={{1}}", "array_shape");
    }

    #[test]
    fn all_else_is_malformed() {
        for text in [
            "", "{", "}", "{a", "{a,}", "{,a}", "{a,,b}", "{a}b", "{}}", "{\"a}", "{\"a\"b}", "{a\"b\"}", "{a\\b}",
            "[", "a", "{\"\\",
        ] {
            check(text, "malformed_text");
        }
    }

    #[test]
    fn a_null_is_no_value_of_an_enum() {
        let array = Array::new(Box::new(Text::OTHER), b',', false);
        assert_eq!(array.encode(b"{a,NULL}", &mut Vec::new()), Err(EncodeErrorKind::NullElement));
        let mut out = Vec::new();
        array.encode(b"{a}", &mut out).unwrap();
        assert_eq!(out, [2, 2, b'a', 0]);
    }

    #[test]
    fn a_count_of_any_length_is_put_in() {
        for count in [0, 1, 63, 64, 8191, 8192, 1_048_576] {
            let text = format!("{{{}}}", vec!["7"; count].join(","));
            let mut out = vec![0xaa];
            Array::new(Box::new(Int4), b',', true).encode(text.as_bytes(), &mut out).unwrap();
            let mut expected = vec![0xaa];
            avro::write_length(&mut expected, count);
            expected.extend([2, 14].repeat(count));
            if count > 0 {
                avro::write_length(&mut expected, 0);
            }
            assert!(out == expected, "{count}");
        }
    }

    #[test]
    fn a_placeholder_is_never_a_moment() {
        let options = crate::EncodeOptions::default();
        let items = |make: fn(&crate::types::TypeSpec<'_>) -> Box<dyn Codec>| {
            let items = make(&crate::types::TypeSpec { modifier: -1, options: &options });
            let mut out = Vec::new();
            Array::new(items, b',', true).write_unavailable(b"?", &mut out).map(|()| out)
        };
        assert_eq!(items(crate::types::date::make), Ok(vec![2, 2, 126, 0]));
        assert_eq!(items(crate::types::timestamptz::make), Ok(vec![2, 2, 2, b'?', 0]));
        for make in [crate::types::timestamp::make, crate::types::interval::make, crate::types::numeric::make] {
            assert_eq!(items(make), Err(EncodeErrorKind::UnavailableValue));
        }
    }

    #[test]
    fn a_delimiter_can_be_another() {
        let array = Array::new(Box::new(Text::OTHER), b';', true);
        let mut out = Vec::new();
        array.encode(b"{(1,1),(0,0);(2,2),(1,1)}", &mut out).unwrap();
        assert_eq!(out[0], 4);
    }
}
