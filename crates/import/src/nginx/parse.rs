//! The text as directives: words, blocks, and the files of a dump (`nginx -T`).
//!
//! Not read: Lua (its blocks are passed over as one directive each). A dump is told by its lines `# configuration file PATH:`; an
//! `include` is followed to the files in it, and to nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ledger::{Id, Ledger, Place};
use crate::{Broken, DEPTH_MAX};

/// One directive.
#[derive(Debug)]
pub(super) struct Directive {
    pub(super) id: Id,
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
}

impl Directive {
    pub(super) fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    pub(super) fn children(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// All files of a text.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) main: Vec<Directive>,
    named: HashMap<String, Vec<Directive>>,
    /// Directory of the first file, which relative names are under.
    base: String,
}

/// Files that an `include` of a dump names, at most this deep.
const INCLUDES_MAX: usize = 8;

impl Files {
    pub(super) fn read(text: &str, name: &str, ledger: &mut Ledger) -> Result<Files, Broken> {
        const MARK: &str = "# configuration file ";
        let mut parts: Vec<(&str, usize, usize)> = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            if let Some(path) = line.trim_end().strip_prefix(MARK).and_then(|rest| rest.strip_suffix(':')) {
                parts.push((path, start, start + line.len()));
            }
            start += line.len();
        }
        if parts.is_empty() {
            let main = Reader::new(text, name, ledger).block(0)?;
            return Ok(Files { main, named: HashMap::new(), base: String::new() });
        }
        let mut files = Files {
            main: Vec::new(),
            named: HashMap::new(),
            base: parts[0].0.rsplit_once('/').map_or("", |(base, _)| base).to_owned(),
        };
        for (index, (path, _, begin)) in parts.iter().enumerate() {
            let end = parts.get(index + 1).map_or(text.len(), |(_, mark, _)| *mark);
            let directives = Reader::new(&text[*begin..end], path, ledger).block(0)?;
            match index {
                0 => files.main = directives,
                _ => _ = files.named.insert((*path).to_owned(), directives),
            }
        }
        Ok(files)
    }

    /// The directives of a block, with those of included files in their place.
    pub(super) fn flat<'a>(&'a self, block: &'a [Directive], ledger: &mut Ledger) -> Vec<&'a Directive> {
        let mut flat = Vec::new();
        self.flatten(block, ledger, 0, &mut flat);
        flat
    }

    fn flatten<'a>(
        &'a self,
        block: &'a [Directive],
        ledger: &mut Ledger,
        depth: usize,
        flat: &mut Vec<&'a Directive>,
    ) {
        for directive in block {
            if flat.len() >= crate::STATEMENTS_MAX {
                return;
            }
            if directive.name != "include" {
                flat.push(directive);
                continue;
            }
            let pattern = match directive.arg(0) {
                path if path.starts_with('/') || self.base.is_empty() => path.to_owned(),
                path => format!("{}/{path}", self.base),
            };
            let glob = model::glob::Glob::new(&pattern);
            let mut found: Vec<&String> =
                self.named.keys().filter(|path| glob.matches(path.as_bytes())).collect();
            found.sort();
            if pattern.ends_with("mime.types") {
                ledger.not_needed(directive.id, "Content-Type comes from the origin");
            } else if found.is_empty() && !self.base.is_empty() && pattern.contains(['*', '?', '[']) {
                ledger.not_needed(directive.id, "no file has such a name");
            } else if found.is_empty() {
                let instead =
                    "the file is not part of this text: import what nginx -T prints, which has all files";
                ledger.not_mapped(directive.id, instead);
                flat.push(directive);
            } else if depth < INCLUDES_MAX {
                ledger.mapped(directive.id, "the directives of the file");
                for path in found {
                    self.flatten(&self.named[path], ledger, depth + 1, flat);
                }
            }
        }
    }

    /// Every directive of every file.
    pub(super) fn each<'a>(&'a self, mut take: impl FnMut(&'a Directive)) {
        fn walk<'a>(block: &'a [Directive], take: &mut impl FnMut(&'a Directive)) {
            for directive in block {
                take(directive);
                walk(directive.children(), take);
            }
        }
        walk(&self.main, &mut take);
        self.named.values().for_each(|block| walk(block, &mut take));
    }
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    file: Arc<str>,
    line: u32,
    column: u32,
    ledger: &'a mut Ledger,
}

/// What stands between words.
enum Token {
    Word(String),
    End,
    Open,
    Close,
    Over,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, file: &str, ledger: &'a mut Ledger) -> Reader<'a> {
        Reader { rest: text.chars().peekable(), file: file.into(), line: 1, column: 1, ledger }
    }

    fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line, column: self.column }
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.next()?;
        match next {
            '\n' => (self.line, self.column) = (self.line + 1, 1),
            _ => self.column += 1,
        }
        Some(next)
    }

    fn broken<T>(&self, place: Place, message: impl Into<String>, help: &str) -> Result<T, Broken> {
        Err(Broken { place, message: message.into(), help: help.into() })
    }

    /// Directives up to the end of the block, or of the text at depth 0.
    fn block(mut self, depth: usize) -> Result<Vec<Directive>, Broken> {
        self.directives(depth)
    }

    fn directives(&mut self, depth: usize) -> Result<Vec<Directive>, Broken> {
        let mut directives = Vec::new();
        loop {
            self.skip_blank();
            let place = self.place();
            let name = match self.token()? {
                Token::Word(word) => word,
                Token::Close if depth > 0 => return Ok(directives),
                Token::Over if depth == 0 => return Ok(directives),
                Token::Over => {
                    return self.broken(place, "the text ends within a block", "close it with \"}\"");
                }
                Token::Close => return self.broken(place, "\"}\" without \"{\"", "take it out"),
                Token::Open => return self.broken(place, "\"{\" without a name", "write e.g. server {"),
                // nginx refuses a lone ";"; it says nothing, so it is let through.
                Token::End => continue,
            };
            directives.push(self.directive(name, place, depth)?);
        }
    }

    fn directive(&mut self, name: String, place: Place, depth: usize) -> Result<Directive, Broken> {
        let mut args = Vec::new();
        loop {
            match self.token()? {
                Token::Word(word) => args.push(word),
                Token::End => {
                    let id = self.note(&place, &name, &args)?;
                    return Ok(Directive { id, name, args, block: None });
                }
                Token::Open if name.ends_with("_by_lua_block") => {
                    let id = self.note(&place, &name, &args)?;
                    self.skip_code(&place)?;
                    return Ok(Directive { id, name, args, block: None });
                }
                Token::Open if depth == DEPTH_MAX => {
                    return self.broken(place, format!("blocks lie more than {DEPTH_MAX} deep"), "");
                }
                Token::Open => {
                    let id = self.note(&place, &name, &args)?;
                    let block = self.directives(depth + 1)?;
                    return Ok(Directive { id, name, args, block: Some(block) });
                }
                Token::Close | Token::Over => {
                    return self.broken(
                        place,
                        format!("the directive {name:?} has no end"),
                        "end it with \";\"",
                    );
                }
            }
        }
    }

    fn note(&mut self, place: &Place, name: &str, args: &[String]) -> Result<Id, Broken> {
        self.ledger.add(place.clone(), &format!("{name} {}", args.join(" ")))
    }

    fn skip_blank(&mut self) {
        while let Some(&next) = self.rest.peek() {
            if next == '#' {
                while self.rest.peek().is_some_and(|next| *next != '\n') {
                    self.next();
                }
            } else if next.is_whitespace() {
                self.next();
            } else {
                return;
            }
        }
    }

    fn token(&mut self) -> Result<Token, Broken> {
        self.skip_blank();
        let place = self.place();
        let Some(&first) = self.rest.peek() else { return Ok(Token::Over) };
        match first {
            ';' => {
                self.next();
                return Ok(Token::End);
            }
            '{' => {
                self.next();
                return Ok(Token::Open);
            }
            '}' => {
                self.next();
                return Ok(Token::Close);
            }
            '"' | '\'' => {
                self.next();
                return self.quoted(first, &place).map(Token::Word);
            }
            _ => {}
        }
        let mut word = String::new();
        while let Some(&next) = self.rest.peek() {
            match next {
                ';' => break,
                '{' if word.ends_with('$') => {}
                '}' if word.rfind("${").is_some_and(|open| !word[open..].contains('}')) => {}
                '{' | '}' => break,
                '\\' => {
                    self.next();
                    self.escape(&mut word);
                    continue;
                }
                next if next.is_whitespace() => break,
                _ => {}
            }
            word.extend(self.next());
        }
        Ok(Token::Word(word))
    }

    fn quoted(&mut self, quote: char, place: &Place) -> Result<String, Broken> {
        let mut word = String::new();
        loop {
            match self.next() {
                None => {
                    let message = format!("the text that begins with {quote} has no end");
                    return self.broken(place.clone(), message, "close it");
                }
                Some('\\') => self.escape(&mut word),
                Some(next) if next == quote => return Ok(word),
                Some(next) => word.push(next),
            }
        }
    }

    /// What stands behind a backslash. Only quotes, blanks and the backslash itself lose it, so that expressions keep theirs.
    fn escape(&mut self, word: &mut String) {
        match self.next() {
            Some(next @ ('"' | '\'' | '\\')) => word.push(next),
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(next) => word.extend(['\\', next]),
            None => word.push('\\'),
        }
    }

    /// Code of Lua, up to the brace that closes it: none in a text or a comment does.
    fn skip_code(&mut self, place: &Place) -> Result<(), Broken> {
        let mut open = 1;
        while open > 0 {
            match self.next() {
                Some('{') => open += 1,
                Some('}') => open -= 1,
                Some(quote @ ('"' | '\'')) => {
                    while let Some(next) = self.next()
                        && next != quote
                    {
                        if next == '\\' {
                            self.next();
                        }
                    }
                }
                Some('[') => _ = self.skip_long(),
                Some('-') if self.rest.peek() == Some(&'-') => {
                    self.next();
                    let is_long = self.rest.peek() == Some(&'[') && self.next().is_some() && self.skip_long();
                    while !is_long && self.rest.peek().is_some_and(|next| *next != '\n') {
                        self.next();
                    }
                }
                Some(_) => {}
                None => {
                    return self.broken(place.clone(), "the text ends within a block", "close it with \"}\"");
                }
            }
        }
        Ok(())
    }

    /// Behind a `[` of Lua: skips what is between long brackets, `[[…]]`, `[=[…]=]`, …, if that is one.
    fn skip_long(&mut self) -> bool {
        let mut ahead = self.rest.clone();
        let level = std::iter::from_fn(|| ahead.next_if_eq(&'=')).count();
        if ahead.next() != Some('[') {
            return false;
        }
        let mut equals = None;
        while let Some(next) = self.next() {
            equals = match (next, equals) {
                (']', Some(count)) if count == level => break,
                (']', _) => Some(0),
                ('=', Some(count)) => Some(count + 1),
                _ => None,
            };
        }
        true
    }
}
