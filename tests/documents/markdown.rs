//! As much of Markdown as the documents have.

use std::{collections::BTreeMap, ops::Range, path::PathBuf, sync::LazyLock};

use regex::Regex;

static LINK: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\[([^\[\]]*)\]\(([^()\s]+)\)").expect("an expression"));

/// One file.
pub(crate) struct Document {
    /// From the root of the repository.
    pub(crate) path: PathBuf,
    /// Blocks between fences.
    pub(crate) blocks: Vec<Block>,
    /// What is between backticks in running text.
    pub(crate) spans: Vec<Span>,
    /// Links in running text.
    pub(crate) links: Vec<Link>,
    /// The anchors of its headings.
    pub(crate) anchors: Vec<String>,
    /// All lines, those in blocks too.
    pub(crate) lines: Vec<String>,
}

/// A block of code.
pub(crate) struct Block {
    /// What stands behind the fence, such as `toml`.
    pub(crate) language: String,
    /// The number of its first line.
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// What is between backticks.
pub(crate) struct Span {
    pub(crate) line: usize,
    pub(crate) text: String,
    /// The first cell of a table's row that it is in, if it is in one, with the first cell of the table's head.
    pub(crate) column: Option<String>,
}

/// `[text](target)`
pub(crate) struct Link {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) target: String,
}

impl Document {
    pub(crate) fn parse(path: PathBuf, text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let (mut blocks, mut prose, mut open) = (Vec::new(), Vec::new(), None::<Block>);
        for (index, line) in lines.iter().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(language)) => {
                    let language = language.trim().to_owned();
                    open = Some(Block { language, line: index + 2, text: String::new() });
                    prose.push("");
                }
                (None, None) => prose.push(line),
                (Some(_), Some(_)) => {
                    blocks.extend(open.take());
                    prose.push("");
                }
                (Some(block), None) => {
                    block.text.extend([line, "\n"]);
                    prose.push("");
                }
            }
        }
        assert!(open.is_none(), "{}: a block has no end", path.display());
        let anchors = anchors(&prose);
        let (mut spans, mut links) = (Vec::new(), Vec::new());
        for paragraph in paragraphs(&prose) {
            read_paragraph(&prose, paragraph, &mut spans, &mut links);
        }
        Self { path, blocks, spans, links, anchors, lines }
    }

    /// A problem at a line.
    pub(crate) fn at(&self, line: usize, problem: impl std::fmt::Display) -> String {
        format!("{}:{line}: {problem}", self.path.display())
    }
}

/// Lines that belong together: code between backticks may go on in the next line, and not behind an empty one. The rows of a table, and
/// headings, are each by itself.
fn paragraphs(prose: &[&str]) -> Vec<Range<usize>> {
    let mut paragraphs: Vec<Range<usize>> = Vec::new();
    let is_alone = |line: &str| line.starts_with('|') || line.starts_with('#');
    for (index, line) in prose.iter().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match paragraphs.last_mut() {
            Some(last) if last.end == index && !is_alone(line) && !is_alone(prose[index - 1]) => last.end = index + 1,
            _ => paragraphs.push(index..index + 1),
        }
    }
    paragraphs
}

fn read_paragraph(prose: &[&str], lines: Range<usize>, spans: &mut Vec<Span>, links: &mut Vec<Link>) {
    let column = column(prose, lines.start);
    let text = prose[lines.clone()].join("\n");
    let line_of = |offset: usize| lines.start + 1 + text[..offset].matches('\n').count();
    // What is in code is no link, and a link's text may be code.
    let mut without_code = text.clone().into_bytes();
    let mut from = 0;
    while let Some(begin) = text[from..].find('`').map(|at| from + at) {
        let ticks = text[begin..].bytes().take_while(|byte| *byte == b'`').count();
        let fence = &text[begin..begin + ticks];
        let inside = begin + ticks;
        let Some(end) = text[inside..].find(fence).map(|at| inside + at) else { break };
        without_code[begin..end + ticks].fill(b'c');
        // In a table a pipe is written with a backslash.
        let code = text[inside..end].replace('\n', " ").replace("\\|", "|");
        let is_first = column.is_some() && text[..begin].matches('|').count() == 1;
        let column = column.clone().filter(|_| is_first);
        spans.push(Span { line: line_of(begin), text: code.trim().to_owned(), column });
        from = end + ticks;
    }
    let without_code = String::from_utf8_lossy(&without_code).into_owned();
    for found in LINK.captures_iter(&without_code) {
        let (whole, label, target) =
            (found.get(0).expect("all"), found.get(1).expect("a text"), found.get(2).expect("a target"));
        let text = text.get(label.range()).unwrap_or_default().replace('\n', " ");
        links.push(Link { line: line_of(whole.start()), text, target: target.as_str().to_owned() });
    }
}

/// What the head of the table says of the first column, of a row of a table.
fn column(prose: &[&str], row: usize) -> Option<String> {
    if !prose[row].starts_with('|') {
        return None;
    }
    let head = (0..=row).rev().take_while(|line| prose[*line].starts_with('|')).last()?;
    prose[head].split('|').nth(1).map(|cell| cell.trim().to_owned())
}

/// As GitHub makes them.
fn anchors(prose: &[&str]) -> Vec<String> {
    let (mut anchors, mut seen) = (Vec::new(), BTreeMap::<String, usize>::new());
    for line in prose.iter().filter(|line| line.starts_with('#')) {
        let title = line.trim_start_matches('#').trim();
        let title = LINK.replace_all(title, "$1").to_lowercase();
        let kept = title.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        let slug: String = kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect();
        let times = seen.entry(slug.clone()).and_modify(|times| *times += 1).or_insert(0);
        anchors.push(if *times == 0 { slug } else { format!("{slug}-{times}") });
    }
    anchors
}

#[test]
fn what_documents_have_is_read() {
    let text = "# A `b` [c](d.md)!\ntext `one\ntwo` and [`three`](e.rs#x) `[no](link)`\n\n```console\n$ x\n```\n\
                | Debezium | ours |\n|---|---|\n| `a.b` | `c\\|d` |\n# A b c\n";
    let document = Document::parse("x.md".into(), text);
    assert_eq!(document.anchors, ["a-b-c", "a-b-c-1"]);
    let spans: Vec<_> =
        document.spans.iter().map(|span| (span.line, span.text.as_str(), span.column.as_deref())).collect();
    let expected = [
        (1, "b", None),
        (2, "one two", None),
        (3, "three", None),
        (3, "[no](link)", None),
        (10, "a.b", Some("Debezium")),
        (10, "c|d", None),
    ];
    assert_eq!(spans, expected);
    let links: Vec<_> =
        document.links.iter().map(|link| (link.line, link.text.as_str(), link.target.as_str())).collect();
    assert_eq!(links, [(1, "c", "d.md"), (3, "`three`", "e.rs#x")]);
    let block = &document.blocks[0];
    assert_eq!((block.language.as_str(), block.line, block.text.as_str()), ("console", 6, "$ x\n"));
}
