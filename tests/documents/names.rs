//! Metrics, codes and files that are mentioned exist.

use std::{collections::BTreeSet, fs};

use pgsluice::{commands::runbook, failure::Code, metrics::Metrics};
use regex::Regex;

use crate::{assert_none, documents, files, links::has_word, root};

#[test]
fn metrics_that_are_mentioned_exist() {
    let series = Metrics::series();
    // The slot, the publication and the role of the stream that the documents speak of.
    let others = ["pgsluice_shop", "pgsluice_"];
    let a_name = Regex::new("pgsluice_[a-z_]*").expect("an expression");
    let (mut problems, mut count) = (Vec::new(), 0);
    for document in documents() {
        for (index, line) in document.lines.iter().enumerate() {
            for found in a_name.find_iter(line) {
                let is_part = line[..found.start()].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
                if is_part || others.contains(&found.as_str()) {
                    continue;
                }
                count += 1;
                if !series.contains(found.as_str()) {
                    problems.push(document.at(index + 1, format!("there is no metric {}", found.as_str())));
                }
            }
        }
    }
    assert!(count > 60, "only {count} metrics were found");
    assert_none(&problems);
}

/// Words with hyphens, in code, that are no codes of failures and no ids of findings.
const OF_OTHERS: &[&str] = &[
    // Signals.
    "stop-snapshot",
    "pause-snapshot",
    "resume-snapshot",
    // Avro's logical types.
    "time-micros",
    "timestamp-micros",
    "local-timestamp-micros",
    // What libpq, browsers and Kafka's tools call something.
    "verify-ca",
    "verify-full",
    "scram-sha-256",
    "require-trusted-types-for",
    "find-hanging",
];

#[test]
fn codes_that_are_mentioned_exist() {
    let findings: BTreeSet<String> =
        runbook::TEXT.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    let codes: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let is_known = |code: &str| codes.contains(code) || findings.contains(code);
    let a_span = Regex::new("^[a-z]{2,}(-[a-z0-9]+)+$").expect("an expression");
    let in_text = Regex::new(
        r#"code="([^"$]*)"|(?:^|[^\w`])\[([a-z]+(?:-[a-z]+)+)\](?:[^(]|$)|pgsluice explain ([a-z]+(?:-[a-z]+)*)"#,
    )
    .expect("an expression");
    let (mut problems, mut count) = (Vec::new(), 0);
    for document in documents() {
        let is_code = |text: &str| a_span.is_match(text) && !OF_OTHERS.contains(&text);
        let spans = document.spans.iter().filter(|span| is_code(&span.text));
        let mut named: Vec<(usize, String)> = spans.map(|span| (span.line, span.text.clone())).collect();
        for (index, line) in document.lines.iter().enumerate() {
            for found in in_text.captures_iter(line) {
                let code = (1..4).find_map(|group| found.get(group)).map_or("", |code| code.as_str());
                named.push((index + 1, code.to_owned()));
            }
        }
        count += named.len();
        let unknown = named.into_iter().filter(|(_, code)| !is_known(code));
        problems.extend(unknown.map(|(line, code)| document.at(line, format!("nothing has the code {code}"))));
    }
    assert!(count > 200, "only {count} codes were found");
    assert_none(&problems);
}

/// `src/failure.rs`, `session/starting.rs`, `walreceiver/src/reader.rs: WalReader::read`: a file of the repository, by its path or the end of it,
/// and what is in it.
#[test]
fn files_that_are_mentioned_exist() {
    let files: Vec<String> = files().into_iter().map(|path| format!("/{}", path.display())).collect();
    let folders =
        ["src/", "crates/", "docs/", "tests/", "deploy/", "docker/", "dev/", "examples/", "benches/", "fuzz/", ".ci/"];
    let a_path = Regex::new(r"^([\w./@-]+)(?:: ([\w:]+))?$").expect("an expression");
    let (mut problems, mut count) = (Vec::new(), 0);
    for document in documents() {
        for span in &document.spans {
            let Some(found) = a_path.captures(&span.text) else { continue };
            let path = found.get(1).map_or("", |path| path.as_str());
            let is_source = [".rs", ".md", ".py"].iter().any(|end| path.ends_with(end));
            if !is_source && !folders.iter().any(|folder| path.starts_with(folder)) {
                continue;
            }
            count += 1;
            let path = path.trim_end_matches('/');
            let same: Vec<&String> = files.iter().filter(|file| file.ends_with(&format!("/{path}"))).collect();
            let is_folder = files.iter().any(|file| file.contains(&format!("/{path}/")));
            if same.is_empty() && !is_folder {
                problems.push(document.at(span.line, format!("there is no {path}")));
                continue;
            }
            if let Some(name) = found.get(2).and_then(|name| name.as_str().rsplit("::").next()) {
                let defines = |file: &&&String| {
                    let source = fs::read_to_string(root().join(file.trim_start_matches('/'))).unwrap_or_default();
                    has_word(&source, &format!("fn {name}"))
                };
                if !same.iter().any(|file| defines(&file)) {
                    problems.push(document.at(span.line, format!("{path} has no function {name}")));
                }
            }
        }
    }
    assert!(count > 60, "only {count} files were found");
    assert_none(&problems);
}
