//! hstore → the text of a JSON object, or an Avro map of strings that can be null.
//!
//! The text is what `hstore_out` prints (PostgreSQL documentation, F.16): `"key"=>"value", "other"=>NULL`, with a backslash before a quote
//! and a backslash.

use super::{
    Codec, TypeSpec,
    array::{finish_block, unescape},
};
use crate::{
    EncodeErrorKind, Hstore as Form, avro,
    schema::{AvroType, Physical},
};

/// The branches of a map's values.
const NULL: u8 = 0;
const SOME: u8 = 2;

pub(super) fn make(spec: &TypeSpec<'_>) -> Box<dyn Codec> {
    Box::new(Hstore { form: spec.options.hstore })
}

/// `hstore`
#[derive(Debug)]
struct Hstore {
    form: Form,
}

impl Codec for Hstore {
    fn avro_type(&self) -> AvroType {
        match self.form {
            Form::Json => AvroType::named(Physical::String, "io.debezium.data.Json"),
            Form::Map => AvroType::plain(Physical::Map),
        }
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        if std::str::from_utf8(text).is_err() {
            return Err(EncodeErrorKind::InvalidUtf8);
        }
        let start = out.len();
        match self.form {
            Form::Json => {
                out.push(b'{');
                let mut pairs = Pairs(text);
                while let Some((key, value)) = pairs.next()? {
                    if out.len() > start + 1 {
                        out.push(b',');
                    }
                    write_json(key, out);
                    out.push(b':');
                    match value {
                        Some(value) => write_json(value, out),
                        None => out.extend_from_slice(b"null"),
                    }
                }
                out.push(b'}');
                avro::insert_length(out, start);
            }
            Form::Map => {
                out.push(0);
                let mut count = 0;
                let mut pairs = Pairs(text);
                while let Some((key, value)) = pairs.next()? {
                    write_text(key, out);
                    match value {
                        Some(value) => {
                            out.push(SOME);
                            write_text(value, out);
                        }
                        None => out.push(NULL),
                    }
                    count += 1;
                }
                finish_block(start, count, out);
            }
        }
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        match self.form {
            Form::Json => avro::write_bytes(out, b"{}"),
            Form::Map => avro::write_length(out, 0),
        }
    }

    /// As in Debezium: the placeholder as the only key, with itself as the value.
    fn write_unavailable(&self, placeholder: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        match self.form {
            Form::Json => {
                let start = out.len();
                out.push(b'{');
                write_json(placeholder, out);
                out.push(b':');
                write_json(placeholder, out);
                out.push(b'}');
                avro::insert_length(out, start);
            }
            Form::Map => {
                avro::write_length(out, 1);
                avro::write_bytes(out, placeholder);
                out.push(SOME);
                avro::write_bytes(out, placeholder);
                avro::write_length(out, 0);
            }
        }
        Ok(())
    }
}

/// A key, and its value if it is not null, each with the backslashes that it has in the text.
type Pair<'a> = (&'a [u8], Option<&'a [u8]>);

/// Walks the pairs.
struct Pairs<'a>(&'a [u8]);

impl<'a> Pairs<'a> {
    fn next(&mut self) -> Result<Option<Pair<'a>>, EncodeErrorKind> {
        if self.0.is_empty() {
            return Ok(None);
        }
        self.pair().map(Some).ok_or(EncodeErrorKind::MalformedText)
    }

    fn pair(&mut self) -> Option<Pair<'a>> {
        let key = self.quoted()?;
        self.0 = self.0.strip_prefix(b"=>")?;
        let value = match self.0.strip_prefix(b"NULL") {
            Some(rest) => {
                self.0 = rest;
                None
            }
            None => Some(self.quoted()?),
        };
        if !self.0.is_empty() {
            self.0 = self.0.strip_prefix(b", ").filter(|rest| !rest.is_empty())?;
        }
        Some((key, value))
    }

    fn quoted(&mut self) -> Option<&'a [u8]> {
        let text = self.0.strip_prefix(b"\"")?;
        let mut at = 0;
        loop {
            match text.get(at)? {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.0 = &text[at + 1..];
        Some(&text[..at])
    }
}

/// Appends a `string` without its backslashes.
fn write_text(text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    unescape(text, out);
    avro::insert_length(out, start);
}

/// Appends a JSON string without the text's backslashes, and with JSON's.
fn write_json(text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push(b'"');
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        // What follows a backslash is itself.
        let byte = if *byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
            }
            byte => out.push(*byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: Form, text: &str, expected: &str) {
        let hstore = Hstore { form };
        let mut out = vec![0xaa];
        let found = match hstore.encode(text.as_bytes(), &mut out) {
            Ok(()) => {
                let mut reader = avro::Reader::new(&out[1..]);
                let mut json = Vec::new();
                if form == Form::Json {
                    json.extend_from_slice(reader.bytes().unwrap());
                } else {
                    crate::json::write_value(&Physical::Map, &mut reader, &mut json).unwrap();
                }
                assert_eq!(reader.take(1), None, "bytes are left over");
                String::from_utf8(json).unwrap()
            }
            Err(kind) => kind.as_str().to_owned(),
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn pairs_become_an_object_or_a_map() {
        for form in [Form::Json, Form::Map] {
            check(form, "", "{}");
            check(form, r#""a"=>"1", "b"=>NULL"#, r#"{"a":"1","b":null}"#);
            check(form, r#""q\"q"=>"back\\slash", ""=>"NULL""#, r#"{"q\"q":"back\\slash","":"NULL"}"#);
            check(form, "\"t\tn\"=>\"é\n\"", r#"{"t\tn":"é\n"}"#);
            check(form, r#""a, b"=>"=>""#, r#"{"a, b":"=>"}"#);
        }
        check(Form::Json, "\"\u{1f}\"=>NULL", r#"{"\u001F":null}"#);
    }

    #[test]
    fn all_else_is_malformed() {
        for text in [
            "a",
            "\"a\"",
            "\"a\"=>",
            "\"a\"=>NUL",
            "\"a\"=>\"1\",",
            "\"a\"=>\"1\", ",
            "\"a\"=>\"1\"\"b\"=>NULL",
            "\"a=>1",
            "\"a\"=>\"1\\",
            "\"a\"=>null",
            "NULL=>NULL",
            " \"a\"=>NULL",
        ] {
            check(Form::Json, text, "malformed_text");
            check(Form::Map, text, "malformed_text");
        }
    }
}
