//! Text to statements: every statement of drbd.conf is words followed by `;` or by a block.
//!
//! What the words mean is not known here, with two exceptions that change the tokens themselves:
//! the content of a `skip` block is not looked at, and nothing else.

use std::borrow::Cow;

use crate::error::Problem;
use crate::source::Span;

/// Deeper nesting than any statement has.
const DEPTH_MAX: usize = 16;
/// Longest bare word and longest quoted string, as drbdadm has it.
const WORD_MAX: usize = 128;
const QUOTED_MAX: usize = 255;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Word,
    Quoted,
    /// `:`, `[` or `]`, inside addresses and after a metadata device.
    Punctuation,
    Semicolon,
    Open,
    Close,
    End,
}

#[derive(Clone, Debug)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: Cow<'a, str>,
    pub(crate) span: Span,
}

impl Token<'_> {
    /// The token as it is shown in messages.
    pub(crate) fn shown(&self) -> String {
        match self.kind {
            Kind::End => "the end of the file".into(),
            Kind::Quoted => "a quoted string".into(),
            _ => format!("\"{}\"", self.text),
        }
    }
}

/// One statement.
#[derive(Debug)]
pub(crate) struct Statement<'a> {
    /// At least one; the first is a bare word.
    pub(crate) words: &'a [Token<'a>],
    pub(crate) body: Body<'a>,
    /// The `;` or `{` after the words.
    pub(crate) after: Span,
    /// Behind its last byte: the `;` or the `}`.
    pub(crate) end: u32,
}

#[derive(Debug)]
pub(crate) enum Body<'a> {
    /// `;`
    None,
    /// `{ … }`
    Block(Vec<Statement<'a>>),
}

impl Statement<'_> {
    pub(crate) fn keyword(&self) -> &str {
        &self.words[0].text
    }

    pub(crate) fn span(&self) -> Span {
        self.words[0].span
    }
}

pub(crate) struct Lexer<'a> {
    text: &'a str,
    file: u32,
    at: usize,
}

/// Which bytes are in words.
static IN_WORD: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 128 {
        let c = b as u8;
        // "%" is in no bare word of the grammar, but in the scope of an IPv6 address.
        table[b] = c.is_ascii_alphanumeric() || matches!(c, b'/' | b'.' | b'_' | b'-' | b'%');
        b += 1;
    }
    table
};

fn is_word(b: u8) -> bool {
    IN_WORD[b as usize]
}

impl<'a> Lexer<'a> {
    fn span(&self, start: usize, end: usize) -> Span {
        Span {
            file: self.file,
            start: start as u32,
            end: end as u32,
        }
    }

    fn next(&mut self) -> Result<Token<'a>, Problem> {
        let bytes = self.text.as_bytes();
        loop {
            match bytes.get(self.at) {
                Some(b' ' | b'\t' | b'\r' | b'\n') => self.at += 1,
                Some(b'#') => {
                    self.at = self.text[self.at..]
                        .find('\n')
                        .map_or(bytes.len(), |i| self.at + i);
                }
                _ => break,
            }
        }
        let start = self.at;
        let Some(first) = bytes.get(start) else {
            let span = self.span(start, start);
            return Ok(Token {
                kind: Kind::End,
                text: "".into(),
                span,
            });
        };
        let kind = match first {
            b'{' => Kind::Open,
            b'}' => Kind::Close,
            b';' => Kind::Semicolon,
            b':' | b'[' | b']' => Kind::Punctuation,
            b'"' => return self.quoted(),
            b if is_word(*b) => Kind::Word,
            _ => {
                let c = self.text[start..].chars().next().unwrap_or('\0');
                let end = start + c.len_utf8();
                self.at = end;
                let text = format!("unexpected character {c:?}");
                let problem = Problem::error(self.span(start, end), "syntax", text);
                return Err(problem.remedy("put the value in double quotes"));
            }
        };
        let mut end = start + 1;
        if kind == Kind::Word {
            while bytes.get(end).is_some_and(|b| is_word(*b)) {
                end += 1;
            }
        }
        self.at = end;
        let span = self.span(start, end);
        if end - start > WORD_MAX {
            let text = format!(
                "a word of {} characters; {WORD_MAX} are possible",
                end - start
            );
            return Err(Problem::error(span, "syntax", text));
        }
        Ok(Token {
            kind,
            text: self.text[start..end].into(),
            span,
        })
    }

    fn quoted(&mut self) -> Result<Token<'a>, Problem> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut end = start + 1;
        let mut escapes = false;
        loop {
            match bytes.get(end) {
                None | Some(b'\n') => {
                    self.at = end;
                    let span = self.span(start, end);
                    let text = "expected the closing quote before the end of the line";
                    return Err(Problem::error(span, "syntax", text));
                }
                Some(b'"') => break,
                Some(b'\\') => {
                    escapes = true;
                    end += 1;
                    if bytes.get(end).is_none_or(|b| *b == b'\n') {
                        continue;
                    }
                    // What is escaped may be longer than one byte.
                    end += self.text[end..].chars().next().map_or(1, char::len_utf8);
                }
                Some(_) => end += 1,
            }
        }
        self.at = end + 1;
        let span = self.span(start, end + 1);
        let inner = &self.text[start + 1..end];
        if inner.len() > QUOTED_MAX {
            let text = format!(
                "a string of {} bytes; {QUOTED_MAX} are possible",
                inner.len()
            );
            return Err(Problem::error(span, "syntax", text));
        }
        if inner.contains(char::REPLACEMENT_CHARACTER) {
            return Err(Problem::error(span, "syntax", "a string that is not UTF-8"));
        }
        let text = if escapes {
            unescape(inner).into()
        } else {
            inner.into()
        };
        Ok(Token {
            kind: Kind::Quoted,
            text,
            span,
        })
    }

    /// Goes past a `skip` block whose `{` has been read.
    fn skip_block(&mut self, open: Span) -> Result<(), Problem> {
        let mut depth = 1usize;
        while depth > 0 {
            match self.next() {
                Ok(Token {
                    kind: Kind::Open, ..
                }) => depth += 1,
                Ok(Token {
                    kind: Kind::Close, ..
                }) => depth -= 1,
                Ok(Token {
                    kind: Kind::End, ..
                }) => return Err(unclosed(open)),
                // Whatever else is in there does not matter.
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// A backslash stands for the character after it.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' {
            chars.next().unwrap_or(c)
        } else {
            c
        });
    }
    out
}

/// The statement made of `words` should have ended after the word `last`.
pub(crate) fn missing_semicolon(words: &[Token<'_>], last: usize, found: &str) -> Problem {
    let word = &words[last];
    let at = Span {
        start: word.span.end,
        ..word.span
    };
    // A secret is not repeated.
    let after = if last > 0 && words[0].text == "shared-secret" {
        "the secret".into()
    } else {
        word.shown()
    };
    Problem::error(
        at,
        "syntax",
        format!("expected \";\" after {after}, found {found}"),
    )
}

fn unclosed(open: Span) -> Problem {
    let text = "expected \"}\" to close this block before the end of the file";
    Problem::error(open, "syntax", text)
}

/// The tokens of one statement of the outermost level after the other, each with its block.
pub(crate) struct Reader<'a> {
    lexer: Lexer<'a>,
    /// Those of the present one; kept to be filled anew.
    tokens: Vec<Token<'a>>,
    ended: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn of(text: &'a str, file: u32) -> Reader<'a> {
        Reader {
            lexer: Lexer { text, file, at: 0 },
            tokens: Vec::new(),
            ended: false,
        }
    }

    /// The next statement. After an error there are no more.
    pub(crate) fn next(&mut self) -> Result<Option<Statement<'_>>, Problem> {
        self.tokens.clear();
        if self.ended {
            return Ok(None);
        }
        self.ended = true;
        let mut depth = 0usize;
        loop {
            let token = self.lexer.next()?;
            let kind = token.kind;
            let span = token.span;
            self.tokens.push(token);
            match kind {
                Kind::Open if self.starts_skip() => {
                    self.lexer.skip_block(span)?;
                    let end = self.lexer.at as u32;
                    let (start, kind, text) = (end - 1, Kind::Close, "}".into());
                    let span = Span { start, end, ..span };
                    self.tokens.push(Token { kind, text, span });
                    if depth == 0 {
                        break;
                    }
                }
                Kind::Open => depth += 1,
                Kind::Close if depth > 1 => depth -= 1,
                Kind::Semicolon if depth > 0 => {}
                Kind::Semicolon | Kind::Close => break,
                Kind::End => return statements(&self.tokens).map(|mut s| s.pop()),
                _ => {}
            }
        }
        let found = statements(&self.tokens)?.pop();
        self.ended = false;
        Ok(found)
    }

    /// Whether the block that was just opened is one of a `skip`.
    fn starts_skip(&self) -> bool {
        let ends = |t: &&Token<'_>| matches!(t.kind, Kind::Semicolon | Kind::Open | Kind::Close);
        let words = self.tokens.iter().rev().skip(1).take_while(|t| !ends(t));
        words.last().is_some_and(|t| t.text == "skip")
    }
}

/// All tokens of a text; the inside of `skip` blocks is left out.
pub(crate) fn tokens(text: &str, file: u32) -> Result<Vec<Token<'_>>, Problem> {
    let mut reader = Reader::of(text, file);
    let mut all = Vec::new();
    while reader.next()?.is_some() {
        all.append(&mut reader.tokens);
    }
    Ok(all)
}

/// A block being read: the statement it belongs to, and what is in it so far.
struct Frame<'a> {
    words: &'a [Token<'a>],
    open: Span,
    statements: Vec<Statement<'a>>,
}

/// Makes statements of tokens. Uses no recursion.
pub(crate) fn statements<'a>(tokens: &'a [Token<'a>]) -> Result<Vec<Statement<'a>>, Problem> {
    let mut outer: Vec<Frame<'a>> = Vec::new();
    let mut here: Vec<Statement<'a>> = Vec::new();
    // Where the words of the present statement begin.
    let mut first = 0;
    for (at, token) in tokens.iter().enumerate() {
        let words = &tokens[first..at];
        match token.kind {
            Kind::Word => continue,
            Kind::Quoted | Kind::Punctuation if !words.is_empty() => continue,
            Kind::Quoted | Kind::Punctuation | Kind::Semicolon | Kind::Open if words.is_empty() => {
                let text = format!("expected a keyword, found {}", token.shown());
                return Err(Problem::error(token.span, "syntax", text));
            }
            Kind::Close | Kind::End if !words.is_empty() => {
                return Err(missing_semicolon(words, words.len() - 1, &token.shown()));
            }
            Kind::Open => {
                if outer.len() == DEPTH_MAX {
                    let text = "blocks nested more deeply than any statement allows";
                    return Err(Problem::error(token.span, "syntax", text));
                }
                outer.push(Frame {
                    words,
                    open: token.span,
                    statements: std::mem::take(&mut here),
                });
            }
            Kind::Close => {
                let Some(frame) = outer.pop() else {
                    let text = "expected a statement, found \"}\" without a block to close";
                    return Err(Problem::error(token.span, "syntax", text));
                };
                let block = std::mem::replace(&mut here, frame.statements);
                here.push(Statement {
                    words: frame.words,
                    body: Body::Block(block),
                    after: frame.open,
                    end: token.span.end,
                });
            }
            Kind::End => break,
            _ => here.push(Statement {
                words,
                body: Body::None,
                after: token.span,
                end: token.span.end,
            }),
        }
        first = at + 1;
    }
    match outer.last() {
        Some(frame) => Err(unclosed(frame.open)),
        None => Ok(here),
    }
}
