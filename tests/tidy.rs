//! Reads the sources and fails on what a compiler lets pass: an import that goes up a floor, a file
//! that has outgrown its idea, unsafe code outside its rooms, and words that promise later work.
//!
//! The floors are those of `src/lib.rs`. A module imports only from floors below its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by floor, from the ground up. A room that is not listed has no place yet: the test names it.
const FLOORS: &[&[&str]] = &[
    &[
        "limits", "error", "id", "clock", "buffer", "slots", "log", "crypto",
    ],
    &["wire", "subject", "config"],
    &["router"],
    &["account", "auth"],
    &["session", "stream"],
    &["server", "monitor"],
    &["main", "lib", "cli", "ffi"],
];

/// Rooms that may look at a neighbour on their own floor: (who, whom).
const NEIGHBOURS: &[(&str, &str)] = &[
    // The pool of blocks and the log have bounds, ids and times; those three know nobody.
    ("buffer", "limits"),
    ("log", "limits"),
    ("log", "clock"),
    ("id", "limits"),
    // A frame holds subjects.
    ("wire", "subject"),
    // An account is made of its users.
    ("account", "auth"),
    // Sessions publish into streams.
    ("session", "stream"),
    // What is monitored is the server.
    ("monitor", "server"),
    // The process has both front doors, and the library names every room.
    ("main", "cli"),
    ("lib", "cli"),
    ("lib", "ffi"),
];

const FILE_LINES_MAX: usize = 700;

/// Where unsafe code may stand; everything else forbids it.
const UNSAFE_ROOMS: &[&str] = &[
    "src/server/",
    "src/ffi/",
    "src/clock.rs",
    "src/stream/log/disk.rs",
];

struct Source {
    /// Path from the package, with forward slashes.
    path: String,
    text: String,
}

impl Source {
    /// The room a file belongs to: the first folder or file name below `src`.
    fn room(&self) -> &str {
        let below = self
            .path
            .strip_prefix("src/")
            .expect("only src is asked for its rooms");
        let first = below.split('/').next().expect("a path has a first part");
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The lines without comments and string literals, with their numbers.
    fn code(&self) -> Vec<(usize, String)> {
        let mut state = Lexer::default();
        let lines = self.text.lines().enumerate();
        lines
            .map(|(index, line)| (index + 1, state.code_of(line)))
            .collect()
    }
}

/// Tells code from comments and strings, across lines.
#[derive(Default)]
struct Lexer {
    comment_depth: usize,
    /// Inside a string: the text that ends it.
    string_end: Option<String>,
}

impl Lexer {
    fn code_of(&mut self, line: &str) -> String {
        let mut code = String::new();
        let mut rest = line;
        while !rest.is_empty() {
            let used = self.step(rest, &mut code);
            rest = &rest[used..];
        }
        code
    }

    /// Consumes a part of `rest`; returns its length.
    fn step(&mut self, rest: &str, code: &mut String) -> usize {
        if self.comment_depth > 0 {
            if rest.starts_with("*/") {
                self.comment_depth -= 1;
                return 2;
            } else if rest.starts_with("/*") {
                self.comment_depth += 1;
                return 2;
            }
            return first_char_len(rest);
        }
        if let Some(end) = &self.string_end {
            if rest.starts_with('\\') && end == "\"" {
                return 1 + first_char_len(rest.get(1..).unwrap_or_default());
            }
            if rest.starts_with(end.as_str()) {
                let used = end.len();
                self.string_end = None;
                return used;
            }
            return first_char_len(rest);
        }
        if rest.starts_with("//") {
            return rest.len();
        }
        if rest.starts_with("/*") {
            self.comment_depth = 1;
            return 2;
        }
        let is_in_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if let Some((start, end)) = raw_string_start(rest).filter(|_| !is_in_word) {
            self.string_end = Some(end);
            return start;
        }
        if rest.starts_with('"') {
            self.string_end = Some("\"".to_owned());
            return 1;
        }
        if let Some(used) = char_literal_len(rest) {
            return used;
        }
        let used = first_char_len(rest);
        code.push_str(&rest[..used]);
        used
    }
}

fn first_char_len(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

/// The length of `r##"` or `br"` at the beginning, and what ends that string.
fn raw_string_start(text: &str) -> Option<(usize, String)> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let start = text.len() - after.len() + hashes + 1;
    after[hashes..]
        .starts_with('"')
        .then(|| (start, format!("\"{}", "#".repeat(hashes))))
}

/// The length of a character literal such as `'"'` or `'\''`; a lifetime is none.
fn char_literal_len(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('\'')?;
    if let Some(escaped) = inner.strip_prefix('\\') {
        let skipped = first_char_len(escaped);
        return escaped[skipped..]
            .find('\'')
            .map(|end| 2 + skipped + end + 1);
    }
    let used = first_char_len(inner);
    inner[used..].starts_with('\'').then_some(1 + used + 1)
}

fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        for path in entries.map(|entry| entry.expect("a folder entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                sources.push(read_source(root, path));
            }
        }
    }
    assert!(!sources.is_empty(), "{folder} has no sources");
    sources
}

fn read_source(root: &Path, path: PathBuf) -> Source {
    let text = fs::read_to_string(&path).expect("a source is UTF-8");
    let path = path
        .strip_prefix(root)
        .expect("below the package")
        .to_string_lossy();
    Source {
        path: path.replace('\\', "/"),
        text,
    }
}

/// The names that follow `crate::` (and, in the binary, `midge::`) in `code`, groups included.
fn imported_rooms(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for root in ["crate::", "midge::"] {
        for (at, _) in code.match_indices(root) {
            let is_in_word =
                code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if is_in_word {
                continue;
            }
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(group) => rooms.extend(top_names_of_group(group)),
                None => rooms.extend(leading_name(rest)),
            }
        }
    }
    rooms
}

fn leading_name(text: &str) -> Option<String> {
    let text = text.trim_start();
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    (end > 0).then(|| text[..end].to_owned())
}

/// The first names of `a::b, c::{d, e}, f}`, without what is nested.
fn top_names_of_group(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut part_start = 0;
    for (at, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.extend(leading_name(&text[part_start..at]));
                part_start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Whether code in `from` may use `to`.
fn is_allowed(from: &str, to: &str) -> bool {
    let (Some(floor), Some(below)) = (floor_of(from), floor_of(to)) else {
        return false;
    };
    from == to || below < floor || NEIGHBOURS.contains(&(from, to))
}

#[test]
fn imports_go_down_only() {
    // What the library re-exports or a macro brings is not a room.
    let mut edges: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    let mut rooms: BTreeSet<String> = BTreeSet::new();
    let sources = sources("src");
    rooms.extend(sources.iter().map(|source| source.room().to_owned()));
    for source in &sources {
        let from = source.room();
        assert!(
            floor_of(from).is_some(),
            "{}: the room {from} is on no floor",
            source.path
        );
        let lines: Vec<String> = source.code().into_iter().map(|(_, code)| code).collect();
        for to in imported_rooms(&lines.join("\n")) {
            let edge = (from.to_owned(), to);
            edges.entry(edge).or_default().push(source.path.clone());
        }
    }
    let wrong: Vec<String> = edges
        .iter()
        .filter(|((from, to), _)| rooms.contains(to) && !is_allowed(from, to))
        .map(|((from, to), files)| format!("{from} uses {to}: {}", files.join(", ")))
        .collect();
    assert!(
        wrong.is_empty(),
        "imports that do not go down:\n{}",
        wrong.join("\n")
    );
}

/// Every file is a module of the folder it lies in: a file that nobody names is not compiled, and
/// so neither tested nor kept up.
#[test]
fn no_file_is_orphaned() {
    let sources = sources("src");
    let text_of = |path: &str| {
        let source = sources.iter().find(|source| source.path == path);
        source.map_or("", |source| source.text.as_str())
    };
    let mut orphans = Vec::new();
    for path in sources.iter().map(|source| source.path.as_str()) {
        let stem = path.strip_suffix(".rs").expect("only such files are read");
        let stem = stem.strip_suffix("/mod").unwrap_or(stem);
        let (folder, name) = stem.rsplit_once('/').expect("it lies in src");
        let parents = match folder {
            "src" => ["src/lib.rs".to_owned(), "src/main.rs".to_owned()],
            _ => [format!("{folder}/mod.rs"), format!("{folder}.rs")],
        };
        let is_root = matches!(path, "src/lib.rs" | "src/main.rs");
        let declaration = format!("mod {name};");
        if !is_root
            && !parents
                .iter()
                .any(|parent| text_of(parent).contains(&declaration))
        {
            orphans.push(path);
        }
    }
    assert!(
        orphans.is_empty(),
        "no module names these files: {orphans:?}"
    );
}

#[test]
fn no_file_outgrows_its_idea() {
    let all = sources("src").into_iter().chain(sources("tests"));
    let long: Vec<String> = all
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(
        long.is_empty(),
        "more than {FILE_LINES_MAX} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        if UNSAFE_ROOMS
            .iter()
            .any(|room| source.path.starts_with(room))
        {
            continue;
        }
        for (line, code) in source.code() {
            if has_word(&code, "unsafe") {
                wrong.push(format!("{}:{line}", source.path));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "unsafe code outside its rooms:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn nothing_is_promised_for_later() {
    // Spelled in two parts, so that this file does not find itself.
    let macros = [concat!("to", "do!"), concat!("unimple", "mented!")];
    let notes = [
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X"),
    ];
    let mut wrong = Vec::new();
    for source in sources("src").into_iter().chain(sources("tests")) {
        for (index, line) in source.text.lines().enumerate() {
            let has_macro = macros.iter().any(|name| line.contains(name));
            if has_macro || notes.iter().any(|note| has_word(line, note)) {
                wrong.push(format!("{}:{}: {}", source.path, index + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "unfinished work:\n{}", wrong.join("\n"));
}

fn has_word(text: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(is_word) && !text[at + word.len()..].starts_with(is_word)
    })
}

/// The tools above see what they should: a checker that sees nothing would always pass.
#[test]
fn the_checker_sees_what_it_should() {
    let source = |path: &str, text: &str| Source {
        path: path.into(),
        text: text.into(),
    };
    let text = concat!(
        "use crate::{limits, wire::{parse, encode}, subject};\n",
        "// crate::server::x is only a remark\n",
        "let a = \"crate::cli\"; let b = 'x'; let c = '\"'; let d = crate::router::new();\n",
        "/* crate::ffi /* nested */ crate::ffi */ let r = r#\"crate::\"auth\"#;\n",
        "pub(crate) fn f<'a>(x: &'a u8) { unsafe { g(x) } }\n",
    );
    let source_in_router = source("src/router/trie.rs", text);
    assert_eq!(source_in_router.room(), "router");
    let code: Vec<String> = source_in_router
        .code()
        .into_iter()
        .map(|(_, code)| code)
        .collect();
    let rooms = imported_rooms(&code.join("\n"));
    let wanted = ["limits", "router", "subject", "wire"].map(str::to_owned);
    assert_eq!(rooms, BTreeSet::from(wanted));
    assert!(has_word(&code[4], "unsafe") && !has_word("forbid(unsafe_code)", "unsafe"));
    assert_eq!(source("src/clock.rs", "").room(), "clock");

    assert!(is_allowed("router", "subject") && is_allowed("wire", "subject"));
    assert!(!is_allowed("router", "session") && !is_allowed("subject", "wire"));
    assert!(!is_allowed("router", "unknown") && is_allowed("main", "server"));
}
