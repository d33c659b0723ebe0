//! The words of a statement, and values made of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smallvec::SmallVec;

use crate::error::Problem;
use crate::model::{Address, After, Family};
use crate::source::Span;
use crate::syntax::{Body, Kind, Statement, Token, missing_semicolon};

pub(super) type Checked<T> = std::result::Result<T, Problem>;

/// The words of one statement, read from left to right.
pub(super) struct Words<'s, 'a> {
    pub(super) statement: &'s Statement<'a>,
    pub(super) at: usize,
}

impl<'s, 'a> Words<'s, 'a> {
    /// Starts after the keyword.
    pub(super) fn of(statement: &'s Statement<'a>) -> Self {
        Words { statement, at: 1 }
    }

    pub(super) fn peek(&self) -> Option<&'s Token<'a>> {
        self.statement.words.get(self.at)
    }

    pub(super) fn next(&mut self) -> Option<&'s Token<'a>> {
        let token = self.peek()?;
        self.at += 1;
        Some(token)
    }

    /// The next word or string.
    pub(super) fn expect(&mut self, what: &str) -> Checked<&'s Token<'a>> {
        match self.peek() {
            Some(token) if token.kind != Kind::Punctuation => {
                self.at += 1;
                Ok(token)
            }
            _ => Err(self.expected(what)),
        }
    }

    pub(super) fn punctuation(&mut self, c: &str) -> Checked<()> {
        match self.peek() {
            Some(t) if t.kind == Kind::Punctuation && t.text == c => {
                self.at += 1;
                Ok(())
            }
            _ => Err(self.expected(&format!("\"{c}\""))),
        }
    }

    pub(super) fn take(&mut self, keyword: &str) -> bool {
        let found = self
            .peek()
            .is_some_and(|t| t.kind == Kind::Word && t.text == keyword);
        self.at += usize::from(found);
        found
    }

    /// The next word or string, if it is not there named by what it is for.
    pub(super) fn value_of(&mut self, name: &str) -> Checked<&'s Token<'a>> {
        match self.peek() {
            Some(token) if token.kind != Kind::Punctuation => {
                self.at += 1;
                Ok(token)
            }
            _ => Err(self.expected(&format!("a value for {name}"))),
        }
    }

    /// "expected …, found …" at the next word.
    pub(super) fn expected(&self, what: &str) -> Problem {
        match self.peek() {
            Some(t) => Problem::error(
                t.span,
                "syntax",
                format!("expected {what}, found {}", t.shown()),
            ),
            None => {
                let found = match self.statement.body {
                    Body::None => "\";\"",
                    Body::Block(_) => "\"{\"",
                };
                let text = format!("expected {what}, found {found}");
                Problem::error(self.statement.after, "syntax", text)
            }
        }
    }

    /// There must be nothing more, and then `;`.
    pub(super) fn end(&self) -> Checked<()> {
        let last = self.at - 1;
        match (self.peek(), &self.statement.body) {
            (None, Body::None) => Ok(()),
            (Some(t), _) => Err(missing_semicolon(self.statement.words, last, &t.shown())),
            (None, Body::Block(_)) => Err(missing_semicolon(self.statement.words, last, "\"{\"")),
        }
    }

    /// There must be nothing more, and then a block.
    pub(super) fn block(&self) -> Checked<&'s [Statement<'a>]> {
        match (self.peek(), &self.statement.body) {
            (None, Body::Block(block)) => Ok(block),
            _ => Err(self.expected("\"{\"")),
        }
    }
}

/// A problem with a value: what was expected.
pub(super) fn bad_value(token: &Token<'_>, code: &'static str, expected: &str) -> Problem {
    Problem::error(
        token.span,
        code,
        format!("expected {expected}, found {}", token.shown()),
    )
}

pub(super) fn unknown(st: &Statement<'_>, expected: &str) -> Problem {
    let text = format!("expected {expected}, found {}", st.words[0].shown());
    Problem::error(st.span(), "syntax", text)
}

pub(super) fn integer(token: &Token<'_>, what: &str, max: u64) -> Checked<u64> {
    let n = token
        .text
        .parse()
        .ok()
        .filter(|_| token.text.bytes().all(|b| b.is_ascii_digit()));
    match n {
        Some(n) if n <= max => Ok(n),
        Some(n) => {
            let text = format!("{what} {n} is out of range; at most {max}");
            Err(Problem::error(token.span, "out-of-range", text))
        }
        None => Err(bad_value(token, "syntax", &format!("{what} (a number)"))),
    }
}

pub(super) fn integer32(token: &Token<'_>, what: &str, max: u32) -> Checked<u32> {
    Ok(integer(token, what, max.into())? as u32)
}

pub(super) fn port(token: &Token<'_>) -> Checked<u16> {
    match token.text.parse() {
        Ok(n @ 1..) if token.text.bytes().all(|b| b.is_ascii_digit()) => Ok(n),
        _ => Err(bad_value(token, "out-of-range", "a port from 1 to 65535")),
    }
}

/// `resync-after`: `-1`, a minor, `RESOURCE` or `RESOURCE/VOLUME`.
pub(super) fn after(token: &Token<'_>) -> Checked<After> {
    let text = &*token.text;
    if text == "-1" {
        return Ok(After::Nothing);
    }
    if let Ok(minor) = text.parse() {
        return Ok(After::Minor(minor));
    }
    let (resource, volume) = match text.rsplit_once('/') {
        Some((resource, volume)) => match volume.parse() {
            Ok(n) => (resource, Some(n)),
            Err(_) => {
                let what = "a resource, RESOURCE/VOLUME, or a minor";
                return Err(bad_value(token, "bad-value", what));
            }
        },
        None => (text, None),
    };
    Ok(After::Volume {
        resource: resource.into(),
        volume,
    })
}

/// `[ipv4|ipv6|sdp|ssocks|sci] ADDRESS:PORT`, IPv6 in brackets; and where ADDRESS is.
pub(super) fn address_at(w: &mut Words<'_, '_>) -> Checked<(Address, Span)> {
    const WHAT: &str = "an address like 10.0.0.1:7788 or ipv6 [fd00::1]:7788";
    let family = match w.peek().map(|t| &*t.text) {
        Some("ipv4") => Some(Family::Ipv4),
        Some("ipv6") => Some(Family::Ipv6),
        Some("sdp") => Some(Family::Sdp),
        Some("ssocks" | "sci") => Some(Family::Ssocks),
        _ => None,
    };
    if family.is_some() {
        w.next();
    }
    let family = family.unwrap_or(Family::Ipv4);
    let mut interface = None;
    let at;
    let ip = if family == Family::Ipv6 {
        w.punctuation("[")?;
        let mut text = String::new();
        let first = w.peek().map_or(w.statement.after, |t| t.span);
        let mut last = first;
        while let Some(t) = w.next() {
            if t.kind == Kind::Punctuation && t.text == "]" {
                break;
            }
            text.push_str(&t.text);
            last = t.span;
        }
        at = first.to(last);
        let (ip, scope) = match text.split_once('%') {
            Some((ip, scope)) => (ip, Some(scope.into())),
            None => (text.as_str(), None),
        };
        interface = scope;
        match ip.parse::<Ipv6Addr>() {
            Ok(ip) => IpAddr::V6(ip),
            Err(_) => {
                let text = format!("expected an IPv6 address, found \"{text}\"");
                return Err(Problem::error(first, "bad-address", text));
            }
        }
    } else {
        let token = w.expect(WHAT)?;
        at = token.span;
        match token.text.parse::<Ipv4Addr>() {
            Ok(ip) => IpAddr::V4(ip),
            Err(_) => return Err(bad_value(token, "bad-address", WHAT)),
        }
    };
    w.punctuation(":")?;
    let port = port(w.expect("a port")?)?;
    let address = Address {
        family,
        socket: SocketAddr::new(ip, port),
        interface,
    };
    Ok((address, at))
}

/// As [`address_at`], wherever it is.
pub(super) fn address(w: &mut Words<'_, '_>) -> Checked<Address> {
    address_at(w).map(|(address, _)| address)
}

/// What stood in a block so far that may stand there once.
#[derive(Default)]
pub(super) struct Seen(SmallVec<[&'static str; 8]>);

impl Seen {
    pub(super) fn once(&mut self, what: &'static str, span: Span) -> Checked<()> {
        if self.0.contains(&what) {
            let what = what.trim_end_matches(" {}");
            let text = format!("a second \"{what}\" in the same place");
            return Err(Problem::error(span, "duplicate-statement", text));
        }
        self.0.push(what);
        Ok(())
    }
}
