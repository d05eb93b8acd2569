//! VCL as statements: tokens up to `;` or a block. Enough of the language to know where each begins and ends.

use std::sync::Arc;

use crate::ledger::{Id, Ledger, Place};
use crate::{Broken, DEPTH_MAX};

/// A word, a text or a sign.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Names and numbers: `req.http.Host`, `1h`, `{` never.
    Word(String),
    /// A text without its quotes.
    Text(String),
    /// `=`, `==`, `~`, `(`, `&&` and the like.
    Sign(String),
}

impl Token {
    pub(super) fn text(&self) -> &str {
        match self {
            Token::Word(text) | Token::Text(text) | Token::Sign(text) => text,
        }
    }

    pub(super) fn is(&self, sign: &str) -> bool {
        matches!(self, Token::Sign(text) if text == sign)
    }
}

/// One statement, with its block.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) id: Id,
    pub(super) tokens: Vec<Token>,
    pub(super) block: Vec<Statement>,
}

impl Statement {
    /// The texts of its tokens.
    pub(super) fn words(&self) -> Vec<&str> {
        self.tokens.iter().map(Token::text).collect()
    }

    /// What stands in the parentheses of an `if`.
    pub(super) fn condition(&self) -> &[Token] {
        let open = self.tokens.iter().position(|token| token.is("("));
        let close = self.tokens.iter().rposition(|token| token.is(")"));
        match (open, close) {
            (Some(open), Some(close)) if open < close => &self.tokens[open + 1..close],
            _ => &[],
        }
    }

    /// It, and all within it.
    pub(super) fn each(&self, take: &mut impl FnMut(&Statement)) {
        take(self);
        self.block.iter().for_each(|one| one.each(take));
    }
}

/// Reads a program.
pub(super) fn read(text: &str, name: &str, ledger: &mut Ledger) -> Result<Vec<Statement>, Broken> {
    let mut reader = Reader { rest: text.chars().peekable(), file: name.into(), line: 1, column: 1, ledger };
    reader.statements(0)
}

/// A time: `120s`, `1.5h`, `10ms`, `1w`, `1y`.
pub(super) fn duration_ms(word: &str) -> Option<u64> {
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = word.split_at(end);
    let ms: f64 = match unit {
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 6e4,
        "h" => 3.6e6,
        "d" => 8.64e7,
        "w" => 6.048e8,
        "y" => 3.1536e10,
        _ => return None,
    };
    let total = number.parse::<f64>().ok()? * ms;
    (0.0..1e15).contains(&total).then_some(total as u64)
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    file: Arc<str>,
    line: u32,
    column: u32,
    ledger: &'a mut Ledger,
}

/// Two signs that are one.
const PAIRS: [&str; 10] = ["==", "!=", "!~", "&&", "||", "<=", ">=", "+=", "-=", "*="];

impl Reader<'_> {
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

    fn skip_blank(&mut self) -> Result<(), Broken> {
        loop {
            match self.rest.peek() {
                Some('#') => self.skip_line(),
                Some(next) if next.is_whitespace() => {
                    self.next();
                }
                Some('/') => {
                    let mut ahead = self.rest.clone();
                    ahead.next();
                    match ahead.peek() {
                        Some('/') => self.skip_line(),
                        Some('*') => self.skip_comment()?,
                        _ => return Ok(()),
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    fn skip_line(&mut self) {
        while self.rest.peek().is_some_and(|next| *next != '\n') {
            self.next();
        }
    }

    fn skip_comment(&mut self) -> Result<(), Broken> {
        let place = self.place();
        let mut last = ' ';
        self.next();
        self.next();
        loop {
            match self.next() {
                Some('/') if last == '*' => return Ok(()),
                Some(next) => last = next,
                None => return self.broken(place, "the comment has no end", "close it with */"),
            }
        }
    }

    fn statements(&mut self, depth: usize) -> Result<Vec<Statement>, Broken> {
        let mut statements = Vec::new();
        loop {
            self.skip_blank()?;
            let place = self.place();
            match self.rest.peek() {
                None if depth == 0 => return Ok(statements),
                None => return self.broken(place, "the text ends within a block", "close it with \"}\""),
                Some('}') if depth == 0 => return self.broken(place, "\"}\" without \"{\"", "take it out"),
                Some('}') => {
                    self.next();
                    return Ok(statements);
                }
                Some(';') => {
                    self.next();
                }
                Some(_) => statements.push(self.statement(place, depth)?),
            }
        }
    }

    fn statement(&mut self, place: Place, depth: usize) -> Result<Statement, Broken> {
        let mut tokens: Vec<Token> = Vec::new();
        loop {
            self.skip_blank()?;
            match self.rest.peek() {
                None | Some('}') => {
                    return self.broken(place, "the statement has no end", "end it with \";\"");
                }
                Some(';') => {
                    self.next();
                    let id = self.note(&place, &tokens)?;
                    return Ok(Statement { id, tokens, block: Vec::new() });
                }
                Some('{') => {
                    self.next();
                    // {"…"} is a text.
                    if self.rest.peek() == Some(&'"') {
                        self.next();
                        tokens.push(self.long_text(&place)?);
                        continue;
                    }
                    if depth == DEPTH_MAX {
                        return self.broken(place, format!("blocks lie more than {DEPTH_MAX} deep"), "");
                    }
                    let id = self.note(&place, &tokens)?;
                    let block = self.statements(depth + 1)?;
                    return Ok(Statement { id, tokens, block });
                }
                Some(_) => tokens.push(self.token(&place)?),
            }
        }
    }

    fn note(&mut self, place: &Place, tokens: &[Token]) -> Result<Id, Broken> {
        let mut text = String::new();
        for token in tokens {
            let shown = match token {
                Token::Text(text) => format!("\"{text}\""),
                token => token.text().to_owned(),
            };
            let is_tight = text.is_empty() || text.ends_with('(') || matches!(&*shown, ")" | ",");
            text.push_str(if is_tight { "" } else { " " });
            text.push_str(&shown);
        }
        self.ledger.add(place.clone(), &text)
    }

    fn long_text(&mut self, place: &Place) -> Result<Token, Broken> {
        let mut text = String::new();
        loop {
            match self.next() {
                Some('"') if self.rest.peek() == Some(&'}') => {
                    self.next();
                    return Ok(Token::Text(text));
                }
                Some(next) => text.push(next),
                None => return self.broken(place.clone(), "the text has no end", "close it with \"}"),
            }
        }
    }

    fn token(&mut self, place: &Place) -> Result<Token, Broken> {
        let Some(first) = self.next() else { return Ok(Token::Word(String::new())) };
        if first == '"' {
            let mut text = String::new();
            loop {
                match self.next() {
                    Some('"') => return Ok(Token::Text(text)),
                    Some('\n') | None => {
                        return self.broken(
                            place.clone(),
                            "a text has no end in its line",
                            "close it with \"",
                        );
                    }
                    Some(next) => text.push(next),
                }
            }
        }
        let is_of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | ':');
        if is_of_word(first) {
            let mut word = first.to_string();
            while let Some(next) = self.rest.peek().copied().filter(|next| is_of_word(*next)) {
                word.push(next);
                self.next();
            }
            return Ok(Token::Word(word));
        }
        let mut sign = first.to_string();
        if let Some(next) = self.rest.peek() {
            let pair = format!("{sign}{next}");
            if PAIRS.contains(&&*pair) {
                self.next();
                sign = pair;
            }
        }
        Ok(Token::Sign(sign))
    }
}
