//! The commented example and the reference, both printed from the table of keys.

use std::fmt::Write;

use super::keys::{KEYS, Key, Presence, SECTIONS, Section};

const COLUMNS: usize = 100;

/// Every key with its explanation: the required ones set, the others commented out.
pub(super) fn example_toml() -> String {
    let mut text = String::new();
    comment(
        &mut text,
        "pgsluice's configuration. A key is overridden by an environment variable: PGSLUICE_POSTGRES__URL is url under [postgres].",
    );
    for section in SECTIONS {
        text.push('\n');
        if !section.path.is_empty() {
            push_line(&mut text, &format!("[{}]", section.path));
        }
        comment(&mut text, &plain(section.doc));
        for key in keys_of(section) {
            text.push('\n');
            comment(&mut text, &plain(key.doc));
            let mark = if matches!(key.presence, Presence::Required { .. }) { "" } else { "#" };
            push_line(&mut text, &format!("{mark}{} = {}", key.split().1, key.presence.example()));
        }
    }
    text
}

/// One Markdown table for each section.
pub(super) fn reference_markdown() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        if !text.is_empty() {
            text.push('\n');
        }
        if !section.path.is_empty() {
            push_line(&mut text, &format!("### `[{}]`\n", section.path));
        }
        push_line(&mut text, &format!("{}\n", section.doc));
        push_line(&mut text, "| key | type | default | meaning | variable |\n|---|---|---|---|---|");
        for key in keys_of(section) {
            let (name, kind, default, variable) = (key.split().1, key.kind.label(), default_words(key), key.variable());
            push_line(&mut text, &format!("| `{name}` | {kind} | {default} | {} | `{variable}` |", cell(key.doc)));
        }
    }
    text
}

fn keys_of(section: &Section) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().copied().filter(move |key| key.split().0 == section.path)
}

fn default_words(key: &Key) -> String {
    match key.presence {
        Presence::Required { .. } => "required".to_owned(),
        Presence::Default(text) => format!("`{}`", cell(text)),
        Presence::Derived { words, .. } => cell(words),
        Presence::Optional { .. } => "none".to_owned(),
    }
}

/// A pipe would end a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// TOML comments are read as they are, without Markdown.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

/// Writes `# ` lines, wrapped at words.
fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split(' ') {
        if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            push_line(text, &line);
            line.truncate(1);
        }
        // Writing to a String cannot fail.
        let _ = write!(line, " {word}");
    }
    push_line(text, &line);
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
