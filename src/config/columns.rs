//! `[columns]`: which columns are left out, and of which something else is written.

use encoder::{ColumnRule, Mask, Salt};
use secrecy::ExposeSecret;

use super::ColumnPattern;
use super::document::Data;
use super::entries::{self, Entry};
use super::keys;
use super::problem::Fault;
use super::reader::{Noted, Reader};
use super::shaping::TableIdentity;
use super::values::{self, FromData};

/// `[columns]`.
#[derive(Clone, Debug)]
pub struct Columns {
    /// What is left in; at least one pattern.
    pub include: Vec<ColumnPattern>,
    /// What is left out of that.
    pub exclude: Vec<ColumnPattern>,
    /// What is written in the place of values; the first that matches a column is applied.
    pub masks: Vec<MaskRule>,
}

/// What is written in the place of the values of some columns.
#[derive(Clone, Debug)]
pub struct MaskRule {
    /// The columns; at least one pattern.
    pub columns: Vec<ColumnPattern>,
    /// What is written.
    pub mask: Mask,
}

impl Columns {
    /// Reads the section.
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Noted> {
        let include = reader.list(&keys::COLUMNS_INCLUDE);
        let exclude = reader.list_or_none(&keys::COLUMNS_EXCLUDE);
        let salt = reader.secret(&keys::COLUMNS_HASH_SALT, &keys::COLUMNS_HASH_SALT_FILE);
        let salt = salt.map(|salt| salt.map(|salt| Salt::new(salt.expose_secret().as_bytes())));
        // That the salt cannot be read is noted already.
        let known = match &salt {
            Ok(salt) => salt.as_ref(),
            Err(Noted) => Some(&Salt::new(b"")),
        };
        let masks = entries::read(reader, &keys::COLUMNS_MASKS, |entry| mask_rule(entry, known));
        if let (Ok(Some(_)), Ok(masks)) = (&salt, &masks)
            && !masks.iter().any(|rule| matches!(rule.mask, Mask::Sha256(_)))
        {
            let is_in_place = reader.is_given(&keys::COLUMNS_HASH_SALT);
            let key = if is_in_place { &keys::COLUMNS_HASH_SALT } else { &keys::COLUMNS_HASH_SALT_FILE };
            let found = "there is no mask = \"hash\" in columns.masks";
            reader.problem(key, Fault::new(found, "say which columns to hash, or leave the salt out"));
        }
        salt?;
        Ok(Self { include: include?, exclude: exclude?, masks: masks? })
    }

    /// What is done to a column.
    pub(super) fn rule(&self, table: &TableIdentity, column: &str) -> Option<ColumnRule> {
        let is_included = self.include.iter().any(|pattern| pattern.matches(table, column));
        if !is_included || self.exclude.iter().any(|pattern| pattern.may_match(table, column)) {
            return Some(ColumnRule::Exclude);
        }
        let applies = |rule: &&MaskRule| rule.columns.iter().any(|pattern| pattern.may_match(table, column));
        self.masks.iter().find(applies).map(|rule| ColumnRule::Mask(rule.mask.clone()))
    }

    /// Every pattern, with the key that holds it.
    pub fn patterns(&self) -> impl Iterator<Item = (&'static str, &ColumnPattern)> {
        let include = self.include.iter().map(|pattern| ("columns.include", pattern));
        let exclude = self.exclude.iter().map(|pattern| ("columns.exclude", pattern));
        let masks = self.masks.iter().flat_map(|rule| &rule.columns).map(|pattern| ("columns.masks", pattern));
        include.chain(exclude).chain(masks)
    }
}

fn mask_rule(entry: &mut Entry<'_>, salt: Option<&Salt>) -> Result<MaskRule, Noted> {
    let columns = entry.some("columns", "[\"*.*.email\"]");
    let kind = entry.required("mask", "\"asterisks\"");
    let text: Result<Option<String>, Noted> = entry.optional("text");
    let characters = entry.optional("characters");
    let (kind, text, characters): (_, _, Option<i64>) = (kind?, text?, characters?);
    let mut only_with = |is_given: bool, is_right: bool, name: &str, right: &str| {
        if is_given && !is_right {
            entry.note(name, Fault::new(format!("it belongs to mask = \"{right}\""), "leave it out"));
        }
    };
    only_with(text.is_some(), kind == MaskKind::Fixed, "text", "fixed");
    only_with(characters.is_some(), kind == MaskKind::Truncate, "characters", "truncate");
    let mask = match kind {
        MaskKind::Asterisks => Mask::Asterisks,
        MaskKind::Fixed => match text {
            Some(text) => Mask::Fixed(text),
            None => return Err(entry.note("text", Fault::new("missing", "set text = \"***\""))),
        },
        MaskKind::Hash => {
            let fix = "set columns.hash_salt or columns.hash_salt_file; without a salt, a value can be found by trying";
            let no_salt = || Fault::new("there is no salt for the hash", fix);
            Mask::Sha256(salt.cloned().ok_or_else(|| entry.note("mask", no_salt()))?)
        }
        MaskKind::Truncate => match characters.map(usize::try_from) {
            Some(Ok(characters_max @ 1..=1_000_000_000)) => Mask::Truncate { characters_max },
            Some(_) => {
                return Err(entry.note("characters", Fault::new("out of range", "give a number from 1 to 1000000000")));
            }
            None => return Err(entry.note("characters", Fault::new("missing", "set characters = 20"))),
        },
    };
    Ok(MaskRule { columns: columns?, mask })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum MaskKind {
    Fixed,
    Asterisks,
    Hash,
    Truncate,
}

impl FromData for MaskKind {
    fn from_data(data: &Data) -> Result<Self, Fault> {
        match String::from_data(data)?.as_str() {
            "fixed" => Ok(Self::Fixed),
            "asterisks" => Ok(Self::Asterisks),
            "hash" => Ok(Self::Hash),
            "truncate" => Ok(Self::Truncate),
            other => Err(values::found_text(other, "give \"fixed\", \"asterisks\", \"hash\" or \"truncate\"")),
        }
    }
}
