//! Entries for a terminal: the little Markdown that docs/errors.md has, as plain text.

use super::runbook::{self, heading};
use crate::commands::check::id::Id;

/// How text is set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Into how many columns it is wrapped; not at all if none.
    pub(super) width: Option<usize>,
    /// Whether headings are bold.
    pub(super) is_bold: bool,
}

/// What a command of the text is set in from the left.
const COMMAND_INDENT: &str = "    ";

/// The entry of an id.
pub(super) fn page(id: Id, style: Style) -> String {
    // A test has seen that there is one.
    let body = runbook::entry(id).map_or_else(|| runbook::head(id), str::to_owned);
    format!("{}\n\n{}", style.bold(id.as_str()), text(&body, style))
}

/// A line for each entry: what it is, what comes of it and what it means.
pub(super) fn list(style: Style) -> String {
    let rows: Vec<_> = runbook::ids().map(|id| (id.as_str(), runbook::outcome(id), runbook::meaning(id))).collect();
    let ids = rows.iter().map(|(id, ..)| id.len()).max().unwrap_or(0);
    let outcomes = rows.iter().map(|(_, outcome, _)| outcome.len()).max().unwrap_or(0);
    let lines = rows.into_iter().map(|(id, outcome, meaning)| {
        let line = format!("{id:<ids$}  {outcome:<outcomes$}  {meaning}");
        shortened(&line, style.width) + "\n"
    });
    lines.collect()
}

/// Markdown as plain text: paragraphs, lists of one level, and commands.
fn text(markdown: &str, style: Style) -> String {
    let mut blocks: Vec<String> = Vec::new();
    let mut paragraph: Vec<&str> = Vec::new();
    let mut commands: Option<Vec<&str>> = None;
    for line in markdown.lines() {
        if line.starts_with("```") {
            match commands.take() {
                None => {
                    blocks.extend(set(&std::mem::take(&mut paragraph), style));
                    commands = Some(Vec::new());
                }
                Some(lines) => {
                    let lines: Vec<_> = lines.iter().map(|line| format!("{COMMAND_INDENT}{line}")).collect();
                    blocks.push(lines.join("\n"));
                }
            }
        } else if let Some(lines) = &mut commands {
            lines.push(line);
        } else if line.trim().is_empty() || line.starts_with("<!--") {
            blocks.extend(set(&std::mem::take(&mut paragraph), style));
        } else {
            paragraph.push(line.trim());
        }
    }
    blocks.extend(set(&paragraph, style));
    blocks.join("\n\n") + "\n"
}

/// The lines between two empty ones: a paragraph, and the items of a list below it.
fn set(lines: &[&str], style: Style) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for line in lines {
        match parts.last_mut().filter(|_| !line.starts_with("- ")) {
            Some(last) => *last = format!("{last} {line}"),
            None => parts.push((*line).to_owned()),
        }
    }
    let set = parts.iter().map(|part| {
        let part = without_links(part);
        match (part.strip_prefix("- "), heading(&part)) {
            (Some(item), _) => format!("- {}", wrapped(item, style.width, 2, 2)),
            (None, Some((heading, rest))) => {
                let rest = wrapped(rest.trim(), style.width, heading.len() + 2, 0);
                format!("{} {rest}", style.bold(&format!("{heading}:"))).trim_end().to_owned()
            }
            (None, None) => wrapped(&part, style.width, 0, 0),
        }
    });
    let set: Vec<String> = set.collect();
    (!set.is_empty()).then(|| set.join("\n"))
}

/// `[text](where)` as `text`: what is linked to is named by its text.
fn without_links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        let link = after.split_once("](").and_then(|(label, target)| Some((label, target.split_once(')')?.1)));
        if let Some((label, behind)) = link.filter(|(label, _)| !label.contains(']')) {
            plain.push_str(label);
            rest = behind;
        } else {
            plain.push('[');
            rest = after;
        }
    }
    plain + rest
}

/// Words in lines of a width, of which so much of the first is taken, and so much of the others is left empty. A word that is longer has a line
/// of its own, so that it can be copied.
fn wrapped(text: &str, width: Option<usize>, taken: usize, indent: usize) -> String {
    let Some(width) = width else { return text.to_owned() };
    let (mut lines, mut column) = (String::new(), taken);
    for (index, word) in text.split_whitespace().enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > width {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            column = indent;
        } else if index > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines
}

fn shortened(line: &str, width: Option<usize>) -> String {
    match width.filter(|width| line.chars().count() > *width) {
        None => line.to_owned(),
        Some(width) => line.chars().take(width.saturating_sub(3)).collect::<String>().trim_end().to_owned() + "...",
    }
}

impl Style {
    fn bold(self, text: &str) -> String {
        if self.is_bold { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: Style = Style { width: None, is_bold: false };

    #[test]
    fn markdown_becomes_plain_text() {
        let markdown = "\n<!-- a: generated -->\n**Then:** stops.\n<!-- a: end -->\n\n**Why:** it\nis, see [docs/a.md](a.md) or a[1]:\n- one two\n  three\n- four\n\n\
                        **Look:**\n\n```sql\nSELECT 1  -- one\n```\nafter\n";
        let plain = "Then: stops.\n\nWhy: it is, see docs/a.md or a[1]:\n- one two three\n- four\n\nLook:\n\n    SELECT 1  -- one\n\nafter\n";
        assert_eq!(text(markdown, PIPE), plain);
        let narrow = Style { width: Some(16), is_bold: true };
        let wrapped = "\x1b[1mThen:\x1b[0m stops.\n\n\x1b[1mWhy:\x1b[0m it is, see\ndocs/a.md or\na[1]:\n- one two three\n- four\n\n\x1b[1mLook:\x1b[0m\n\n    \
                       SELECT 1  -- one\n\nafter\n";
        assert_eq!(text(markdown, narrow), wrapped);
    }

    #[test]
    fn every_entry_is_set_within_the_width_and_listed_in_one_line() {
        let style = Style { width: Some(80), is_bold: false };
        for id in runbook::ids() {
            let page = page(id, style);
            let is_text = |line: &&str| !line.starts_with(COMMAND_INDENT) && line.contains(' ');
            let long = page.lines().filter(is_text).find(|line| line.chars().count() > 80);
            assert_eq!(long, None, "{}", id.as_str());
            assert!(page.starts_with(&format!("{}\n\n", id.as_str())) && !page.contains("**"), "{page}");
        }
        let list = list(style);
        assert_eq!(list.lines().count(), runbook::ids().count());
        assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
    }
}
