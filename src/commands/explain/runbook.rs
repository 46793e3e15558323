//! docs/errors.md: an entry for each code of a failure and each id of a finding.
//!
//! The head of an entry is generated from the code, between two comments; what is below it is written by hand, under headings that are the
//! same in all. `tests/readme.rs` holds the file against this module, and `UPDATE_README=1` writes the heads into it.

use std::{collections::BTreeSet, fmt::Write as _};

use crate::{
    commands::check::{
        id::{CheckId, Id},
        report::Severity,
    },
    failure::{Code, Recovery},
};

/// The file, as it was when the program was built.
pub const TEXT: &str = include_str!("../../../docs/errors.md");

/// What is said of something that can be wrong, in this order.
const HEADINGS: &[&str] = &["You see", "Why", "Data", "Look", "Mend", "Mended"];
/// What is said of a finding that is never anything to mend.
const HEADINGS_OF_FACTS: &[&str] = &["Says"];

/// All that have an entry: failures first.
pub(crate) fn ids() -> impl Iterator<Item = Id> {
    let failures = Code::ALL.iter().map(|code| Id::Failure(*code));
    failures.chain(CheckId::ALL.iter().map(|id| Id::Check(*id)))
}

/// The entry of an id, without its title; none if the file lacks it.
pub(super) fn entry(id: Id) -> Option<&'static str> {
    sections(TEXT).find(|(title, _)| *title == id.as_str()).map(|(_, body)| body)
}

/// The file with the heads of its entries as the program has them.
///
/// # Errors
/// What is wrong with it, a line each: an entry is missing, is there twice, is of nothing, or does not say all that it has to.
pub fn with_heads(text: &str) -> Result<String, String> {
    let mut problems = Vec::new();
    let mut missing: BTreeSet<&str> = ids().map(Id::as_str).collect();
    let mut result = text.split_inclusive('\n').take_while(|line| title(line).is_none()).collect::<String>();
    for (title, body) in sections(text) {
        let Some(id) = ids().find(|id| id.as_str() == title) else {
            problems.push(format!("{title}: nothing has this code or id"));
            continue;
        };
        if !missing.remove(title) {
            problems.push(format!("{title}: it is there twice"));
        }
        let (begin, end) = (format!("<!-- {title}: generated -->\n"), format!("<!-- {title}: end -->\n"));
        let written = match body.trim_start().strip_prefix(&begin) {
            None => body,
            Some(rest) => rest.split_once(&end).map_or("", |(_, written)| written),
        };
        problems.extend(lacking(id, written).map(|lacking| format!("{title}: {lacking}")));
        // Writing to a String cannot fail.
        let _ = write!(result, "## {title}\n\n{begin}{}{end}\n{}\n", head(id), written.trim());
        result.push('\n');
    }
    problems.extend(missing.iter().map(|title| format!("{title}: it has no entry")));
    if problems.is_empty() { Ok(result.trim_end().to_owned() + "\n") } else { Err(problems.join("\n")) }
}

/// What an entry says of itself in short, as the program knows it.
pub(super) fn head(id: Id) -> String {
    match id {
        Id::Failure(code) => {
            format!("**Then:** {}.\n\n**Meaning:** {}\n\n**Fix:** {}\n", then(code), code.meaning(), code.fix())
        }
        Id::Check(check) => {
            let system = check.system().title();
            format!(
                "**Found by:** `pgsluice check`, under {system}: {}.\n\n**Meaning:** {}\n",
                how_bad(check),
                check.meaning()
            )
        }
    }
}

fn then(code: Code) -> String {
    match code.recovery() {
        Recovery::Stop if code.is_about_copies() => "the stream goes on, and the table is not copied".to_owned(),
        Recovery::Restart if code.is_about_copies() => "the stream goes on, and the copy is tried again".to_owned(),
        Recovery::Stop => format!("stops, with exit code {}", code.exit_code()),
        Recovery::Restart => "tries again, from the checkpoint".to_owned(),
    }
}

fn how_bad(id: CheckId) -> String {
    let words: Vec<_> = id.severities().iter().map(|severity| severity.word()).collect();
    words.join(" or ")
}

/// In a word or two, what comes of it.
pub(super) fn outcome(id: Id) -> String {
    match id {
        Id::Failure(code) if code.is_about_copies() => "copy only".to_owned(),
        Id::Failure(code) if code.recovery() == Recovery::Stop => format!("exit {}", code.exit_code()),
        Id::Failure(_) => "tried again".to_owned(),
        Id::Check(_) => "check".to_owned(),
    }
}

/// One sentence or more of what it means.
pub(super) fn meaning(id: Id) -> &'static str {
    match id {
        Id::Failure(code) => code.meaning(),
        Id::Check(id) => id.meaning(),
    }
}

/// What the hand-written part of an entry does not say.
fn lacking(id: Id, written: &str) -> Option<String> {
    let is_fact = matches!(id, Id::Check(id) if id.severities() == [Severity::Ok]);
    let expected = if is_fact { HEADINGS_OF_FACTS } else { HEADINGS };
    let paragraphs: Vec<(&str, &str)> = written.lines().filter_map(heading).collect();
    let found: Vec<&str> = paragraphs.iter().map(|(heading, _)| *heading).collect();
    if found != expected {
        return Some(format!("its headings are {found:?}, and are to be {expected:?}"));
    }
    // What a heading says may begin on its own line, or be a list or commands below it.
    let said = |name: &str| {
        let (_, rest) = written.split_once(&format!("**{name}:**")).unwrap_or_default();
        rest.lines().take_while(|line| heading(line).is_none()).any(|line| !line.trim().is_empty())
    };
    expected.iter().find(|name| !said(name)).map(|name| format!("it says nothing under {name:?}"))
}

/// The heading that a line begins with, and what follows it.
pub(super) fn heading(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("**")?.split_once(":**")
}

/// The sections of the file, each with its title.
fn sections(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let starts: Vec<(usize, &str)> = text
        .split_inclusive('\n')
        .scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some((start, line))
        })
        .filter(|(_, line)| title(line).is_some())
        .collect();
    let ends: Vec<usize> = starts.iter().skip(1).map(|(start, _)| *start).chain([text.len()]).collect();
    starts.into_iter().zip(ends).filter_map(|((start, line), end)| Some((title(line)?, &text[start + line.len()..end])))
}

fn title(line: &str) -> Option<&str> {
    line.strip_prefix("## ").map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> String {
        let body = |id: Id| {
            let is_fact = matches!(id, Id::Check(id) if id.severities() == [Severity::Ok]);
            let headings = if is_fact { HEADINGS_OF_FACTS } else { HEADINGS };
            headings.iter().map(|heading| format!("**{heading}:** it.\n\n")).collect::<Vec<_>>().concat()
        };
        let entries: Vec<_> = ids().map(|id| format!("## {}\n\n{}", id.as_str(), body(id))).collect();
        format!("# Errors\n\nWords.\n\n{}", entries.concat())
    }

    fn problem(change: impl Fn(&str) -> String) -> String {
        with_heads(&change(&complete())).expect_err("something is wrong with it")
    }

    #[test]
    fn heads_are_written_once_and_the_rest_is_kept() {
        let written = with_heads(&complete()).expect("nothing is wrong with it");
        assert!(written.starts_with("# Errors\n\nWords.\n\n## config-invalid\n\n<!-- config-invalid: generated -->\n"));
        assert!(written.contains("**Then:** stops, with exit code 3.\n\n**Meaning:** There is a checkpoint, but"));
        assert_eq!(with_heads(&written).as_deref(), Ok(written.as_str()));
        let stale = written.replace("stops, with exit code 3", "goes on");
        assert_eq!(with_heads(&stale).as_deref(), Ok(written.as_str()));
    }

    #[test]
    fn an_entry_that_is_missing_or_of_nothing_or_says_nothing_is_refused() {
        assert!(problem(|text| text.replace("## slot-lost\n", "")).contains("slot-lost: it has no entry"));
        assert!(problem(|text| format!("{text}## slot-gone\n\n**You see:** it.\n")).contains("slot-gone: nothing has"));
        assert!(
            problem(|text| format!("{text}## slot-lost\n\n**Why:** it.\n")).contains("slot-lost: it is there twice")
        );
        let first = "## slot-lost\n\n**You see:** it.\n";
        assert!(problem(|text| text.replace(first, "## slot-lost\n\n")).contains("slot-lost: its headings are"));
        let nothing = "## slot-lost\n\n**You see:**\n";
        assert_eq!(problem(|text| text.replace(first, nothing)), "slot-lost: it says nothing under \"You see\"");
    }
}
