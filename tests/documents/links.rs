//! Links lead somewhere.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

use crate::{
    assert_none, documents,
    markdown::{Document, Link},
    root,
};

#[test]
fn links_lead_to_files_and_headings() {
    let documents = documents();
    let anchors: BTreeMap<&Path, &Document> =
        documents.iter().map(|document| (document.path.as_path(), document)).collect();
    let mut problems = Vec::new();
    for document in documents {
        for link in document.links.iter().filter(|link| !link.target.contains("://")) {
            let (file, anchor) =
                link.target.split_once('#').map_or((&*link.target, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { document.path.clone() } else { beside(&document.path, file) };
            if !root().join(&target).exists() {
                problems.push(document.at(link.line, format!("{} does not exist", link.target)));
                continue;
            }
            let has = |anchor: &str| {
                anchors
                    .get(target.as_path())
                    .is_some_and(|document| document.anchors.iter().any(|known| known == anchor))
            };
            if let Some(anchor) = anchor.filter(|anchor| !has(anchor)) {
                problems.push(document.at(link.line, format!("{} has no heading #{anchor}", target.display())));
            }
        }
    }
    assert_none(&problems);
}

/// A link to a source file whose text is a name in code: the file has that name. So a document can name the test that would fail.
#[test]
fn names_that_lead_to_source_files_are_in_them() {
    let (mut problems, mut count) = (Vec::new(), 0);
    for document in documents() {
        let is_source = |link: &&Link| Path::new(&link.target).extension().is_some_and(|extension| extension == "rs");
        for link in document.links.iter().filter(is_source) {
            let Some(name) = link.text.strip_prefix('`').and_then(|text| text.strip_suffix('`')) else { continue };
            let is_name =
                |part: &str| !part.is_empty() && part.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
            if name.contains(['/', '.']) || !name.split("::").all(is_name) {
                continue;
            }
            count += 1;
            let last = name.rsplit("::").next().unwrap_or(name);
            let source = fs::read_to_string(root().join(beside(&document.path, &link.target))).unwrap_or_default();
            let defines = ["fn ", "struct ", "enum ", "mod ", "const "];
            if !defines.iter().any(|define| has_word(&source, &format!("{define}{last}"))) {
                problems.push(document.at(link.line, format!("{} defines no {name}", link.target)));
            }
        }
    }
    assert!(count > 20, "there are such links");
    assert_none(&problems);
}

/// Whether a text has these words, and not only as the beginning of a longer one.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let continues = |rest: &str| rest.starts_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    text.match_indices(word).any(|(at, _)| !continues(&text[at + word.len()..]))
}

/// The index leads to every page, and every page can be found from README.
#[test]
fn the_index_names_every_page() {
    let documents = documents();
    let index = documents.iter().find(|document| document.path == Path::new("docs/README.md")).expect("an index");
    let named: Vec<PathBuf> = index.links.iter().map(|link| beside(&index.path, &link.target)).collect();
    let pages = documents.iter().map(|document| &document.path).filter(|path| path.starts_with("docs"));
    let forgotten: Vec<String> = pages
        .filter(|path| **path != index.path && !named.contains(path))
        .map(|path| format!("docs/README.md does not name {}", path.display()))
        .collect();
    assert_none(&forgotten);
}

/// What a link of a file means, from the root of the repository.
fn beside(file: &Path, target: &str) -> PathBuf {
    let mut path = file.parent().expect("a file is in a folder").to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}
