//! What the documents say is so: links lead somewhere, commands and keys are those of the program, and nothing is named that does not exist.
//!
//! Every Markdown file of the repository is read. What is in a block of code is held to the letter: a command has to be one that the program
//! takes, a configuration one that it can use. What is mentioned in running text, between backticks, has to exist.
//!
//! `tests/readme.rs` writes what is generated; `tests/end_to_end/documented.rs` runs the pages that show what commands say.

mod commands;
mod differences;
mod links;
mod markdown;
mod names;
mod settings;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use markdown::Document;

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All documents.
fn documents() -> &'static [Document] {
    static DOCUMENTS: OnceLock<Vec<Document>> = OnceLock::new();
    DOCUMENTS.get_or_init(read)
}

fn read() -> Vec<Document> {
    let documents: Vec<_> = files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| {
            let text = fs::read_to_string(root().join(&path)).expect("it is text");
            Document::parse(path, &text)
        })
        .collect();
    assert!(documents.len() > 15, "the documents are found");
    documents
}

/// All files of the repository, from its root, but for what is built, downloaded or hidden.
fn files() -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let name = entry.file_name();
            let is_hidden = name.to_string_lossy().starts_with('.') && name != ".ci";
            if is_hidden || name == "target" {
                continue;
            }
            let path = folder.join(name);
            if entry.file_type().expect("a type").is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    files
}

/// Fails with all that was found, each with its file and line.
fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}
