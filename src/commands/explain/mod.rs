//! `pgsluice explain`: what docs/errors.md says of a failure, or of a finding of `check`.

mod page;
pub mod runbook;

use std::{
    ffi::OsStr,
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::{
    Arg, Args, Command,
    builder::{PossibleValue, TypedValueParser},
    error::ErrorKind,
};
use terminal_size::{Width, terminal_size};

use self::page::Style;
use super::{check::id::Id, print};
use crate::failure::Failure;

/// Longer lines are hard to read, however wide the terminal is.
const WIDTH_MAX: usize = 110;
/// In less than this nothing is wrapped.
const WIDTH_MIN: usize = 30;
/// So many entries are named to whoever has misspelt one.
const NEAR_MAX: usize = 5;

/// Say what a failure, or a finding of `check`, means: why it happens, what has become of the data, and how to mend it.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The code of the failure, or the id of the finding, such as `slot-missing`. Without it all are listed.
    #[arg(value_name = "CODE", value_parser = EntryParser, hide_possible_values = true)]
    entry: Option<Id>,
}

impl Explain {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let style = style();
        print(&match self.entry {
            Some(id) => page::page(id, style),
            None => page::list(style),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// For a terminal text is wrapped, and what begins a paragraph is bold; a program gets a paragraph as one line.
fn style() -> Style {
    if !io::stdout().is_terminal() {
        return Style { width: None, is_bold: false };
    }
    let width = terminal_size().map(|(Width(width), _)| usize::from(width).min(WIDTH_MAX));
    Style { width: width.filter(|width| *width >= WIDTH_MIN), is_bold: super::may_colour() }
}

/// Takes an entry by its name, as a message has it or nearly so. Shells can ask it for the names.
#[derive(Debug, Clone, Copy)]
struct EntryParser;

impl TypedValueParser for EntryParser {
    type Value = Id;

    fn parse_ref(&self, command: &Command, _argument: Option<&Arg>, value: &OsStr) -> Result<Id, clap::Error> {
        let asked = value.to_string_lossy();
        find(&asked).map_err(|near| {
            let near = if near.is_empty() { String::new() } else { format!(", near to it: {}", near.join(", ")) };
            let text =
                format!("there is no failure and no finding {asked:?}{near}\n\n`pgsluice explain` lists all of them\n");
            clap::Error::raw(ErrorKind::InvalidValue, text).with_cmd(command)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(runbook::ids().map(|id| PossibleValue::new(id.as_str()))))
    }
}

/// The entry of this name, or the names that are near to it, the nearest first.
fn find(asked: &str) -> Result<Id, Vec<&'static str>> {
    let name = asked.trim_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase().replace('_', "-");
    if let Some(id) = runbook::ids().find(|id| id.as_str() == name) {
        return Ok(id);
    }
    let distance = |known: &str| {
        // Half a name is as likely as a misspelt one.
        let is_part = name.len() >= 3 && known.contains(&name);
        if is_part { 0 } else { strsim::damerau_levenshtein(&name, known) }
    };
    let mut near: Vec<(usize, &str)> = runbook::ids().map(|id| (distance(id.as_str()), id.as_str())).collect();
    near.retain(|(distance, known)| *distance <= known.len() / 3);
    near.sort_by_key(|(distance, _)| *distance);
    Err(near.into_iter().take(NEAR_MAX).map(|(_, known)| known).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    #[test]
    fn an_entry_is_found_as_messages_have_it_and_what_is_near_is_named() {
        for asked in ["slot-missing", "[slot-missing]", "SLOT_MISSING", "slot-missing."] {
            assert_eq!(find(asked), Ok(Code::SlotMissing.into()), "{asked}");
        }
        assert_eq!(find("slot-mising").expect_err("it is misspelt")[0], "slot-missing");
        assert_eq!(
            find("letters"),
            Err(vec!["letters-missing", "letters-max-bytes", "letters-retention"]),
            "half of the name"
        );
        assert_eq!(find("regis").expect_err("it is a part").len(), NEAR_MAX);
        for nothing in ["", "frobnicate", "x"] {
            assert_eq!(find(nothing), Err(Vec::new()), "{nothing}");
        }
    }
}
