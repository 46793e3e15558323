//! What is done to a column beyond its type: it is left out, or only something that stands for its values is written.
//!
//! Both are decided with the plan, as codecs, so that a row meets no more decisions than before. A masking codec gets PostgreSQL's text and
//! writes a plain `string`; the column's own codec is not asked, so that nothing of the value can pass by its side: neither in a key,
//! in `before`, in a header made of the key, nor as a default in the schema. A null stays null, and what stands for a value that was not sent stays
//! that, for masked it would look like a value.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};

use crate::{
    EncodeErrorKind, avro,
    schema::{AvroType, Physical},
    types::{Codec, DefaultRule},
};

/// What is done to a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnRule {
    /// It is in no schema and no record.
    Exclude,
    /// Something else is written for its values.
    Mask(Mask),
}

/// What is written for a value. The column becomes a `string` without a semantic type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mask {
    /// This text. Debezium: `column.mask.with.<length>.chars`, whose text is asterisks.
    Fixed(String),
    /// As many asterisks as PostgreSQL's text has characters (Unicode scalar values).
    Asterisks,
    /// The SHA-256 hash of the salt and PostgreSQL's text in UTF-8, as 64 hexadecimal digits in lower case. Debezium:
    /// `column.mask.hash.v2.SHA-256.with.salt.<salt>`, which cuts it to the column's length; this does not, for then rows could share a key.
    Sha256(Salt),
    /// At most so many characters of it, from its start. Only for columns that are strings anyway. Debezium:
    /// `column.truncate.to.<length>.chars`, which counts UTF-16 units and could leave half a character.
    Truncate {
        /// How many Unicode scalar values are left.
        characters_max: usize,
    },
}

impl Mask {
    /// What tells this mask from others, without telling its salt or its text.
    pub(crate) fn fingerprint(&self) -> String {
        let hash = Sha256::new_with_prefix("pgsluice mask\0");
        let hash = match self {
            Self::Fixed(text) => hash.chain_update("fixed\0").chain_update(text),
            Self::Asterisks => hash.chain_update("asterisks"),
            Self::Sha256(Salt(salt)) => hash.chain_update("sha256\0").chain_update(salt),
            Self::Truncate { characters_max } => {
                hash.chain_update("truncate\0").chain_update(characters_max.to_be_bytes())
            }
        };
        let hash = hash.finalize();
        format!("{:016x}", hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first)))
    }

    /// Whether different values stay different, so that the column can be part of a key.
    pub(crate) fn keeps_apart(&self) -> bool {
        matches!(self, Self::Sha256(_))
    }

    /// The codec that writes it, in the place of the column's own; none if it cannot be applied to that.
    pub(crate) fn codec(&self, own: Box<dyn Codec>) -> Option<Box<dyn Codec>> {
        match self {
            Self::Truncate { characters_max } => {
                let is_text = own.avro_type().physical == Physical::String;
                is_text.then(|| Box::new(Truncated { own, characters_max: *characters_max }) as Box<dyn Codec>)
            }
            Self::Fixed(text) => Some(Box::new(Masked::Fixed(text.clone()))),
            Self::Asterisks => Some(Box::new(Masked::Asterisks)),
            Self::Sha256(salt) => Some(Box::new(Masked::Sha256(salt.clone()))),
        }
    }
}

/// What a hash is made with besides the value. It is a secret: who knows it can find a value by trying. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Salt(Arc<[u8]>);

impl Salt {
    /// Takes any bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// The codec of a column that is left out: every value of it is nothing.
#[derive(Debug)]
pub(crate) struct Omitted;

impl Codec for Omitted {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::String)
    }

    fn encode(&self, _: &[u8], _: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        Ok(())
    }

    fn write_fallback(&self, _: &mut Vec<u8>) {}

    fn write_unavailable(&self, _: &[u8], _: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        Ok(())
    }
}

/// What a value is not part of, or cannot be told from.
#[derive(Debug)]
enum Masked {
    Fixed(String),
    Asterisks,
    Sha256(Salt),
}

impl Codec for Masked {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::String)
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        match self {
            Self::Fixed(fixed) => avro::write_bytes(out, fixed.as_bytes()),
            Self::Asterisks => {
                let characters = std::str::from_utf8(text).map_err(|_| EncodeErrorKind::InvalidUtf8)?.chars().count();
                avro::write_length(out, characters);
                out.resize(out.len() + characters, b'*');
            }
            Self::Sha256(Salt(salt)) => {
                let hash = Sha256::new().chain_update(salt).chain_update(text).finalize();
                avro::write_length(out, hash.len() * 2);
                for byte in hash {
                    out.extend([byte >> 4, byte & 0xf].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
                }
            }
        }
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_empty(out);
    }

    fn takes_placeholder(&self) -> bool {
        true
    }
}

/// The start of what another codec writes as a string.
#[derive(Debug)]
struct Truncated {
    own: Box<dyn Codec>,
    characters_max: usize,
}

impl Codec for Truncated {
    fn avro_type(&self) -> AvroType {
        AvroType::plain(Physical::String)
    }

    fn encode(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        let start = out.len();
        self.own.encode(text, out)?;
        let written = avro::Reader::new(&out[start..]).bytes().and_then(|written| std::str::from_utf8(written).ok());
        let Some(written) = written else { return Err(EncodeErrorKind::InvalidUtf8) };
        if let Some((end, _)) = written.char_indices().nth(self.characters_max) {
            let kept = written[..end].to_owned();
            out.truncate(start);
            avro::write_bytes(out, kept.as_bytes());
        }
        Ok(())
    }

    fn write_fallback(&self, out: &mut Vec<u8>) {
        avro::write_empty(out);
    }

    fn takes_placeholder(&self) -> bool {
        true
    }

    fn default_rule(&self) -> DefaultRule {
        self.own.default_rule()
    }
}
