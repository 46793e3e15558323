//! Commands that are shown are commands that the program takes.

use std::fs;

use clap::{CommandFactory, Parser, error::ErrorKind};
use pgsluice::commands::Arguments;

use crate::{assert_none, documents, markdown::Block};

/// Blocks in which lines are for a shell.
const SHELLS: [&str; 5] = ["", "sh", "bash", "shell", "console"];
/// Options of other programs that the text speaks of: of Kafka's tools, and of docker compose.
const OF_OTHERS: [&str; 4] = ["--command-config", "--add", "--remove", "--profile"];

#[test]
fn commands_in_blocks_are_taken() {
    let (mut problems, mut count) = (Vec::new(), 0);
    for document in documents() {
        for block in document.blocks.iter().filter(|block| SHELLS.contains(&block.language.as_str())) {
            for (line, command) in lines(block) {
                for words in programs(&command) {
                    count += 1;
                    match Arguments::try_parse_from(&words) {
                        Ok(_) => {}
                        Err(error) if [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion].contains(&error.kind()) => {}
                        Err(error) => {
                            let told = error.to_string();
                            let told = told.lines().next().unwrap_or_default();
                            problems.push(document.at(block.line + line, format!("{}: {told}", words.join(" "))));
                        }
                    }
                }
            }
        }
    }
    assert!(count > 60, "only {count} commands were found");
    assert_none(&problems);
}

/// In running text a command may lack arguments, or have names in capitals for them; its words and options have to be there.
#[test]
fn commands_in_the_text_exist() {
    let (mut problems, mut count) = (Vec::new(), 0);
    let mut root = Arguments::command();
    root.build();
    let mut options = Vec::new();
    collect_options(&root, &mut options);
    options.extend(["--help", "--version"].map(str::to_owned));
    // The script that brings up servers has options of its own.
    let stack = fs::read_to_string(crate::root().join("dev/stack")).expect("it is there");
    for document in documents() {
        for span in &document.spans {
            if let Some(arguments) = span.text.strip_prefix("pgsluice ") {
                count += 1;
                if let Err(problem) = exists(&root, arguments) {
                    problems.push(document.at(span.line, format!("`{}`: {problem}", span.text)));
                }
            }
            let is_known = |option: &str| {
                options.iter().any(|known| known == option) || OF_OTHERS.contains(&option) || stack.contains(option)
            };
            // What other programs take begins with their names.
            if let Some(option) =
                span.text.split([' ', '=']).next().filter(|word| word.starts_with("--") && word.len() > 2)
                && !is_known(option)
            {
                problems.push(document.at(span.line, format!("no command has {option}")));
            }
        }
    }
    assert!(count > 100, "only {count} commands were found");
    assert_none(&problems);
}

fn exists(root: &clap::Command, arguments: &str) -> Result<(), String> {
    let mut command = root;
    for (index, word) in words(arguments).iter().enumerate() {
        if let Some(found) = command.find_subcommand(word) {
            command = found;
        } else if let Some(option) = word.strip_prefix("--").map(|option| option.split('=').next().unwrap_or(option)) {
            let has = |command: &clap::Command| command.get_arguments().any(|known| known.get_long() == Some(option));
            if !has(command) && !["help", "version"].contains(&option) {
                return Err(format!("it has no --{option}"));
            }
        } else if command.has_subcommands()
            && word != "..."
            && (index == 0 || !word.chars().any(|letter| letter.is_ascii_uppercase()))
        {
            return Err(format!("there is no command {word}"));
        }
    }
    Ok(())
}

fn collect_options(command: &clap::Command, options: &mut Vec<String>) {
    options.extend(command.get_arguments().filter_map(|known| known.get_long().map(|long| format!("--{long}"))));
    for command in command.get_subcommands() {
        collect_options(command, options);
    }
}

/// The lines of a block that a shell reads, each with its number; one that goes on in the next is one.
fn lines(block: &Block) -> Vec<(usize, String)> {
    let (mut lines, mut open) = (Vec::new(), None::<(usize, String)>);
    for (number, line) in block.text.lines().enumerate() {
        let line = match (&open, block.language == "console") {
            (None, true) => match line.strip_prefix("$ ") {
                Some(line) => line,
                None => continue,
            },
            _ => line,
        };
        let (number, mut whole) = open.take().unwrap_or((number, String::new()));
        if let Some(part) = line.strip_suffix('\\') {
            whole.push_str(part);
            open = Some((number, whole));
        } else {
            whole.push_str(line);
            lines.push((number, whole));
        }
    }
    lines
}

/// The runs of this program in a line for a shell: each with all of its words.
fn programs(line: &str) -> Vec<Vec<String>> {
    let is_program = |word: &str| word == "pgsluice" || word.ends_with("/pgsluice");
    let mut programs = Vec::new();
    for command in simple_commands(line) {
        let is_assignment = |word: &str| {
            word.split_once('=')
                .is_some_and(|(name, _)| name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_'))
        };
        let before = ["sudo", "exec", "env", "time"];
        let first = command.iter().position(|word| !is_assignment(word) && !before.contains(&word.as_str()));
        // What runs in a container stands behind two hyphens.
        let inner = command.windows(2).position(|pair| pair[0] == "--" && is_program(&pair[1])).map(|at| at + 1);
        let begin = first.filter(|at| is_program(&command[*at])).or(inner);
        programs.extend(begin.map(|at| command[at..].to_vec()));
    }
    programs
}

/// Words between what separates commands in a shell.
fn simple_commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut command, mut is_target) = (vec![], vec![], false);
    for word in words(line) {
        match word.as_str() {
            _ if std::mem::take(&mut is_target) => {}
            "|" | "||" | "&&" | "&" | ";" | "do" | "then" | "until" | "while" | "if" | "!" => {
                commands.push(std::mem::take(&mut command));
            }
            ">" | ">>" | "<" | "2>" => is_target = true,
            "2>&1" => {}
            target if target.starts_with('>') || target.starts_with("2>") => {}
            _ => command.push(word),
        }
    }
    commands.push(command);
    commands
}

/// The words of a line as a shell has them; what it would replace stays as it is. A comment ends the line.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(mark), _) if letter == mark => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (None, '#') if word.is_none() => break,
            (None, ' ' | '\t') => words.extend(word.take()),
            (None, ';' | '|' | '&') if word.as_deref() != Some("2>") => {
                words.extend(word.take());
                let mut separator = letter.to_string();
                separator.extend(letters.next_if_eq(&letter));
                words.push(separator);
            }
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[test]
fn what_a_shell_would_run_is_found() {
    let line = "A=1 sudo pgsluice explain 'a b' > x 2>&1 | head -n 1; docker run i -- pgsluice check # pgsluice no";
    assert_eq!(programs(line), [vec!["pgsluice", "explain", "a b"], vec!["pgsluice", "check"]]);
    assert_eq!(programs("until bin/pgsluice top --once; do sleep 1; done"), [["bin/pgsluice", "top", "--once"]]);
    assert_eq!(programs("echo pgsluice check"), Vec::<Vec<String>>::new());
}
