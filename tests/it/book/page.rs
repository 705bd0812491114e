//! A page, read: its fenced blocks and what is to be done with each, its headings, its links.
//!
//! What to do with a block stands in a comment in front of it, which nobody sees who reads the page:
//!
//! | comment | the block is |
//! | --- | --- |
//! | `tried` | run to its end, which must be a good one; `tried: exit code 3` wants that one |
//! | `tried: in a terminal of its own, until ADDRESS answers`, or `until it says WORDS` | left running |
//! | `answers` | what the last command must have printed, `…` standing for anything |
//! | `in a file: NAME` | written into that file |
//! | `not tried: WHY` | a command that no test runs |
//!
//! `<!-- story: BEGINNING -->`, anywhere, says what there is before the first command (`story.rs` has them all).

use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    Tried { exit_code: i32 },
    Terminal { until: Until },
    Answers,
    File { name: String },
    NotTried { why: String },
}

/// When a program that is left running is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    Answers(String),
    Says(String),
}

#[derive(Debug, Clone)]
pub struct Block {
    /// Of the opening fence, from 1.
    pub line: usize,
    pub language: String,
    pub text: String,
    pub mark: Option<Mark>,
}

impl Block {
    /// Is it something to be typed into a shell?
    pub fn is_command(&self) -> bool {
        ["sh", "bash", "shell", "console"].contains(&self.language.as_str())
            || self.text.lines().next().is_some_and(|line| line.starts_with("$ "))
    }
}

pub struct Page {
    /// From the repository's root.
    pub name: String,
    pub beginning: Option<String>,
    pub blocks: Vec<Block>,
    /// The text between the blocks.
    prose: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All pages of the book, SUMMARY.md left out.
pub fn of_the_book() -> Vec<Page> {
    let mut names = Vec::new();
    let mut open = vec![PathBuf::from("docs")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(root().join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") && !path.ends_with("SUMMARY.md") {
                names.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    names.sort();
    names.iter().map(|name| Page::read(name)).collect()
}

impl Page {
    pub fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self::parse(name, &text)
    }

    fn parse(name: &str, text: &str) -> Self {
        let mut page = Self { name: name.to_owned(), beginning: None, blocks: Vec::new(), prose: String::new() };
        let mut mark = None;
        let mut lines = text.lines().enumerate();
        while let Some((at, line)) = lines.next() {
            if let Some(language) = line.strip_prefix("```") {
                let block: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
                let language = language.trim().to_owned();
                page.blocks.push(Block { line: at + 1, language, text: block.join("\n"), mark: mark.take() });
                continue;
            }
            assert!(mark.is_none(), "{name}:{at}: a fenced block must follow its comment at once");
            let comment = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
            match comment.and_then(|comment| comment.strip_prefix("story: ")) {
                Some(beginning) => page.beginning = Some(beginning.to_owned()),
                None => mark = comment.and_then(|comment| read_mark(comment, name, at + 1)),
            }
            page.prose.push_str(line);
            page.prose.push('\n');
        }
        page
    }

    /// Has it anything that is run?
    pub fn is_a_story(&self) -> bool {
        self.blocks.iter().any(|block| matches!(block.mark, Some(Mark::Tried { .. } | Mark::Terminal { .. })))
    }

    /// Of each heading the anchor that readers of Markdown give it.
    pub fn anchors(&self) -> Vec<String> {
        let headings = self.prose.lines().filter(|line| line.starts_with('#'));
        headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    }

    /// Where its links lead, code left out.
    pub fn links(&self) -> Vec<String> {
        let without_code: String = self.prose.split('`').step_by(2).collect();
        let targets = without_code.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.map(str::to_owned).collect()
    }
}

/// A word that is no mark belongs to somebody else, such as `generated …`.
fn read_mark(comment: &str, name: &str, line: usize) -> Option<Mark> {
    let mark = match comment.split_once(": ").unwrap_or((comment, "")) {
        ("answers", "") => Mark::Answers,
        ("in a file", name) => Mark::File { name: name.to_owned() },
        ("not tried", why) if !why.is_empty() => Mark::NotTried { why: why.to_owned() },
        ("tried", "") => Mark::Tried { exit_code: 0 },
        ("tried", how) => {
            let code = how.strip_prefix("exit code ").and_then(|code| code.parse().ok());
            let until = how.strip_prefix("in a terminal of its own, until ").and_then(|until| {
                let says = until.strip_prefix("it says ").map(|words| Until::Says(words.to_owned()));
                says.or_else(|| Some(Until::Answers(until.strip_suffix(" answers")?.to_owned())))
            });
            match (code, until) {
                (Some(exit_code), _) => Mark::Tried { exit_code },
                (None, Some(until)) => Mark::Terminal { until },
                (None, None) => panic!("{name}:{line}: nobody knows what `{comment}` means"),
            }
        }
        (word, _) => {
            assert!(!word.contains("tried"), "{name}:{line}: nobody knows what `{comment}` means");
            return None;
        }
    };
    Some(mark)
}

/// As GitHub and mdbook make it of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn a_page_is_read_as_it_was_meant() {
    let page = Page::parse(
        "p.md",
        "# It's `make chaos`\n<!-- story: a sale -->\nsee [x](a.md#b), `[not](c.md)`\n\n<!-- tried: exit code 3 -->\n```sh\nfalse\n```\n```\n$ ls\n```\n",
    );
    assert_eq!(page.anchors(), ["its-make-chaos"]);
    assert_eq!(page.links(), ["a.md#b"]);
    assert_eq!(page.beginning.as_deref(), Some("a sale"));
    assert_eq!(page.blocks[0].mark, Some(Mark::Tried { exit_code: 3 }));
    assert!(page.blocks[1].is_command() && page.blocks[1].mark.is_none());
}
