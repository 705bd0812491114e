//! The YAML file, flattened to `section.key` with its lines.

use super::problem::Problem;
use super::registry::{DTM_KEYS, DTM_SECTION};
use super::settings::{SECTIONS, SETTINGS};
use super::suggest::closest;
use super::table::Setting;
use super::tokens;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use std::fmt;
use std::path::Path;

/// A value in the file that belongs to a setting.
pub struct Entry {
    pub setting: &'static Setting,
    pub line: u64,
    pub text: String,
}

/// Longest file that is read; ours has a few dozen lines.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads `path`. Everything that is understood comes back beside everything that is not.
pub fn read(path: &Path) -> (Vec<Entry>, Vec<Problem>) {
    let shown = path.display().to_string();
    let failed = |what: String, hint: Option<String>| {
        (Vec::new(), vec![Problem { place: shown.clone(), setting: None, what, hint }])
    };
    match std::fs::metadata(path) {
        Err(error) => {
            let hint = "rushline config sample > rushline.yaml   writes one with every default";
            return failed(format!("cannot be read: {error}"), Some(hint.into()));
        }
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            return failed(format!("is larger than {FILE_BYTES_MAX} bytes; is it the right file?"), None);
        }
        Ok(_) => {}
    }
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&shown, &text),
        Err(error) => failed(format!("cannot be read: {error}"), None),
    }
}

/// Reads the text of a file that is called `shown` in problems.
pub fn parse(shown: &str, text: &str) -> (Vec<Entry>, Vec<Problem>) {
    let mut reader = Reader { shown, entries: Vec::new(), problems: Vec::new() };
    // No snippet of the text in the error: the line may hold a password.
    let options = serde_saphyr::options! { with_snippet: false };
    match serde_saphyr::from_str_with_options::<Node>(text, options) {
        Ok(Node::Null) => {}
        Ok(Node::Map(sections)) => reader.top(sections),
        Ok(_) => reader.problem(
            1,
            None,
            "must be a map of sections".into(),
            Some("rushline config sample shows the form".into()),
        ),
        Err(error) => {
            let line = error.location().map_or(1, |location| location.line());
            let words = error.without_snippet().to_string().replace('\n', " ");
            // The place is said already, and the reader's options are no concern of whoever wrote the file.
            let words = [" at line ", ", set "]
                .iter()
                .fold(words.as_str(), |words, cut| words.split(cut).next().unwrap_or(words));
            reader.problem(
                line,
                None,
                format!("is not valid YAML: {words}"),
                Some("rushline config sample shows the form".into()),
            );
        }
    }
    (reader.entries, reader.problems)
}

struct Reader<'a> {
    shown: &'a str,
    entries: Vec<Entry>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, line: u64, setting: Option<&'static str>, what: String, hint: Option<String>) {
        self.problems.push(Problem { place: format!("{}:{line}", self.shown), setting, what, hint });
    }

    fn top(&mut self, map: Vec<Pair>) {
        for (key, value) in map {
            let is_section = SECTIONS.iter().any(|(name, _)| *name == key.value);
            match value.value {
                Node::Map(inner) if key.value == DTM_SECTION => self.dtm_block(inner),
                Node::Null if key.value == DTM_SECTION => {}
                Node::Map(inner) if is_section => {
                    for (inner_key, inner_value) in inner {
                        let name = format!("{}.{}", key.value, inner_key.value);
                        self.entry(&name, inner_key.referenced.line(), inner_value.value);
                    }
                }
                // A section whose lines are all commented out.
                Node::Null if is_section => {}
                _ if is_section => {
                    let what = format!("`{}` is a section, not a value", key.value);
                    self.problem(
                        key.referenced.line(),
                        None,
                        what,
                        Some(format!("put its settings below it, indented: {}", keys_of(&key.value))),
                    );
                }
                other => self.entry(&key.value, key.referenced.line(), other),
            }
        }
    }

    /// The block of dtm's file that says where to register; its other blocks have settings of other names here.
    fn dtm_block(&mut self, map: Vec<Pair>) {
        for (key, value) in map {
            let line = key.referenced.line();
            match DTM_KEYS.iter().find(|(theirs, _)| *theirs == key.value) {
                Some((_, ours)) => self.entry(ours, line, value.value),
                None => {
                    let shown: String = key.value.chars().take(80).collect();
                    let what = format!("unknown setting `{DTM_SECTION}.{shown}`");
                    let keys: Vec<&str> = DTM_KEYS.iter().map(|(theirs, _)| *theirs).collect();
                    self.problem(line, None, what, Some(format!("`{DTM_SECTION}` has: {}", keys.join(", "))));
                }
            }
        }
    }

    fn entry(&mut self, name: &str, line: u64, value: Node) {
        // A dotted key at the top of the file is a good guess at the form, but not the form.
        let by_name = SETTINGS.iter().find(|setting| setting.name == name);
        let Some(setting) = by_name else {
            let shown: String = name.chars().take(80).collect();
            return self.problem(line, None, format!("unknown setting `{shown}`"), Some(hint_for(name)));
        };
        match value {
            // `key:` with nothing behind it is the default, as if the line were not there.
            Node::Null => {}
            Node::Scalar(text) => self.entries.push(Entry { setting, line, text }),
            Node::List(items) if name == tokens::NAME => match tokens::text_of(items) {
                Ok(text) => self.entries.push(Entry { setting, line, text }),
                Err(what) => self.problem(line, Some(setting.name), what, None),
            },
            Node::Map(_) | Node::List(_) => {
                let hint = Some(format!("allowed: {}", (setting.allowed)()));
                self.problem(line, Some(setting.name), "must be one value, not a list or a map".into(), hint);
            }
        }
    }
}

/// What to write instead of the unknown `name`.
pub fn hint_for(name: &str) -> String {
    let key = name.rsplit('.').next().unwrap_or(name);
    let near = closest(name, SETTINGS.iter().map(|setting| setting.name))
        .or_else(|| closest(name, SECTIONS.iter().map(|(section, _)| *section)))
        // The right key in the wrong place.
        .or_else(|| SETTINGS.iter().find(|setting| setting.key() == key).map(|setting| setting.name));
    match (near, name.split_once('.')) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, Some((section, _))) if SECTIONS.iter().any(|(name, _)| *name == section) => {
            format!("`{section}` has: {}", keys_of(section))
        }
        _ => "rushline config show   lists every setting".into(),
    }
}

fn keys_of(section: &str) -> String {
    let keys: Vec<&str> =
        SETTINGS.iter().filter(|setting| setting.section() == Some(section)).map(Setting::key).collect();
    keys.join(", ")
}

pub(super) type Pair = (Spanned<String>, Spanned<Node>);

/// Any YAML, as far as settings need it: scalars stay text, the kind of the setting reads them.
pub(super) enum Node {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Pair>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

macro_rules! scalar {
    ($($visit:ident: $type:ty),+) => {
        $( fn $visit<E>(self, value: $type) -> Result<Node, E> { Ok(Node::Scalar(value.to_string())) } )+
    };
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    scalar!(visit_bool: bool, visit_i64: i64, visit_i128: i128, visit_u64: u64, visit_u128: u128, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Node::Map(pairs))
    }
}
