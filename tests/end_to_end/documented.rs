//! Pages that show what commands say: they are played, and what is shown is what was said. `UPDATE_DOCS=1` writes it there.
//!
//! In a block `console` each line that begins with `$ ` is a command, and what stands behind it is its output. The other blocks of a page are handed
//! to the player too, who may want to run SQL or to write a file that the page shows.

use std::{fs, path::Path};

use crate::harness::{database::Database, stack::Stack};

/// What a page has for its player.
pub(crate) enum Step<'a> {
    /// A command of a block `console`.
    Command(&'a str),
    /// All of another block: its language, and its text.
    Block(&'a str, &'a str),
}

/// What became of a step.
pub(crate) struct Played {
    /// The command as the page is to show it.
    pub(crate) command: String,
    /// What it said.
    pub(crate) output: String,
}

/// Plays a page, and compares it with what was said, both in their plain form, without what is another thing each time.
pub(crate) fn play(page: &str, plain: impl Fn(&str) -> String, mut player: impl FnMut(Step<'_>) -> Option<Played>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = fs::read_to_string(&path).expect("there is a page");
    let (mut found, mut language, mut block, mut commands) = (String::new(), None::<&str>, String::new(), 0);
    for line in text.lines() {
        match (language, line.strip_prefix("```")) {
            (None, opened) => {
                language = opened;
                found.extend([line, "\n"]);
            }
            (Some(opened), Some(_)) => {
                if opened != "console" {
                    player(Step::Block(opened, &block));
                }
                language = None;
                block.clear();
                found.extend([line, "\n"]);
            }
            (Some("console"), None) => {
                // What a command says comes from the command.
                let Some(command) = line.strip_prefix("$ ") else { continue };
                commands += 1;
                let played = player(Step::Command(command)).expect("every command is played");
                found.extend(["$ ", &played.command, "\n", &played.output]);
            }
            (Some(_), None) => {
                block.extend([line, "\n"]);
                found.extend([line, "\n"]);
            }
        }
    }
    assert!(commands > 0, "{page} has commands");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &found).expect("the page can be written");
        return;
    }
    let (found, text) = (plain(&found), plain(&text));
    let out_of_date = format!("{page} is out of date: run this test with UPDATE_DOCS=1");
    for (found, text) in found.lines().zip(text.lines()) {
        assert_eq!(found, text, "{out_of_date}");
    }
    assert_eq!(found.lines().count(), text.lines().count(), "{out_of_date}");
}

/// What is asked of a server, in pages that nobody plays.
#[test]
fn queries_that_are_shown_are_answered() {
    let stack = Stack::shared();
    let database = Database::create(&stack, &format!("documented_{}", std::process::id()));
    let mut count = 0;
    for page in ["docs/faq.md", "docs/tuning.md"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).expect("there is a page");
        for block in text.split("```sql\n").skip(1) {
            let (queries, _) = block.split_once("```").expect("a block has an end");
            database.play(queries);
            count += 1;
        }
    }
    assert!(count > 1);
}
