//! Commands that need neither a configuration nor servers, as a shell sees them.

use std::process::{Command, Stdio};

use pgsluice::failure::Code;

/// What a command prints on standard output and on standard error, and its exit code.
fn run(arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_pgsluice"))
        .args(arguments)
        .stdin(Stdio::null())
        .env_clear()
        .output()
        .expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("it is UTF-8");
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[test]
fn every_failure_is_explained_and_listed_in_a_line() {
    let (list, _, exit_code) = run(&["explain"]);
    assert_eq!(exit_code, Some(0));
    for code in Code::ALL.iter().map(|code| code.as_str()) {
        assert_eq!(list.lines().filter(|line| line.split(' ').next() == Some(code)).count(), 1, "{code} in\n{list}");
    }
    let (page, _, exit_code) = run(&["explain", "slot-lost"]);
    assert_eq!(exit_code, Some(0));
    let command = "\n    SELECT pg_drop_replication_slot('pgsluice_shop');\n";
    for part in ["slot-lost\n\nThen: stops, with exit code 3.\n\nMeaning: The server has removed log", command] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    assert!(
        !page.contains("**") && !page.contains("```") && !page.contains("<!--") && !page.contains('\x1b'),
        "{page}"
    );
}

#[test]
fn what_has_no_entry_is_told_from_what_is_near_to_it() {
    let (page, told, exit_code) = run(&["explain", "slot-mising"]);
    assert_eq!((page.as_str(), exit_code), ("", Some(2)));
    assert!(told.contains("\"slot-mising\", near to it: slot-missing"), "{told}");
    let (_, told, exit_code) = run(&["explain", "frobnicate"]);
    assert_eq!(exit_code, Some(2));
    assert!(told.contains("\"frobnicate\"") && !told.contains("near"), "{told}");
}

/// The message of a command that cannot go on names its entry.
#[test]
fn a_failure_says_where_more_is_said_of_it() {
    let (_, told, exit_code) = run(&["run"]);
    assert_eq!(exit_code, Some(2));
    assert!(told.trim_end().ends_with("(pgsluice explain config-invalid)"), "{told}");
}

#[test]
fn shells_and_man_are_told_of_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (script, _, exit_code) = run(&["completions", shell]);
        assert_eq!(exit_code, Some(0), "{shell}");
        for word in ["adopt-slot", "snapshot"] {
            assert!(script.contains(word), "{word} is not in the script of {shell}");
        }
        // The others complete no arguments but options.
        let completes_codes = ["bash", "zsh"].contains(&shell);
        assert!(!completes_codes || script.contains("slot-missing"), "no code is in the script of {shell}");
    }
    let (page, _, exit_code) = run(&["man"]);
    assert_eq!(exit_code, Some(0));
    assert!(page.contains(".TH pgsluice 1") && page.contains("pgsluice\\-release(1)"), "{page}");
    let (page, _, exit_code) = run(&["man", "snapshot", "start"]);
    assert_eq!(exit_code, Some(0));
    assert!(page.contains("pgsluice\\-snapshot\\-start") && page.contains("\\-\\-where"), "{page}");
    let (page, told, exit_code) = run(&["man", "snapshot", "begin"]);
    assert_eq!((page.as_str(), exit_code), ("", Some(2)));
    assert!(told.contains("\"snapshot begin\""), "{told}");
}
