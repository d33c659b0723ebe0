//! The commands of a set-up, as a person would type them.

use std::path::Path;

use crate::Place;

/// One command on one node.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) node: String,
    /// Words, without `sudo`.
    pub(crate) words: Vec<String>,
    pub(crate) place: Place,
}

impl Command {
    /// The program's name, without its directory.
    pub(crate) fn program(&self) -> &str {
        let first = self.words.first().map_or("", String::as_str);
        first.rsplit('/').next().unwrap_or(first)
    }

    /// The words after the program that are no options.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = &str> {
        let words = self.words.iter().skip(1).map(String::as_str);
        words.filter(|w| !w.starts_with('-'))
    }

    /// Whether one of these options is given, alone or with its value attached.
    pub(crate) fn has(&self, short: &str, long: &str) -> bool {
        let attached = format!("{long}=");
        self.words.iter().skip(1).any(|w| {
            w == long || w.starts_with(&attached) || (!w.starts_with("--") && w.starts_with(short))
        })
    }

    /// The minor of the first `/dev/drbdN` among the arguments.
    pub(crate) fn minor(&self) -> Option<u32> {
        self.arguments()
            .find_map(|w| w.strip_prefix("/dev/drbd")?.parse().ok())
    }

    /// Whether it makes a resource primary, and which.
    pub(crate) fn promotes(&self) -> Option<&str> {
        if self.program() != "drbdadm" {
            return None;
        }
        let mut words = self.arguments().skip_while(|w| *w != "primary");
        words.next()?;
        words.next()
    }
}

/// Reads `NODE: COMMAND` lines; `all` stands for every node.
pub(crate) fn read<'a>(
    path: &Path,
    nodes: impl Iterator<Item = &'a str> + Clone,
) -> Result<Vec<Command>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut out = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let body = line.split_once(" #").map_or(line, |(body, _)| body).trim();
        if body.is_empty() || body.starts_with('#') {
            continue;
        }
        let at = || format!("{}:{}", path.display(), n + 1);
        let Some((who, command)) = body.split_once(':') else {
            return Err(format!("{}: expected NODE: COMMAND", at()));
        };
        let who = who.trim();
        if who != "all" && !nodes.clone().any(|n| n == who) {
            return Err(format!("{}: no tree of {who}", at()));
        }
        let words: Vec<String> = command
            .split_whitespace()
            .skip_while(|w| *w == "sudo")
            .map(str::to_owned)
            .collect();
        let offset = line.find(command.trim()).unwrap_or(0);
        let place = Place {
            file: path.display().to_string(),
            line: n + 1,
            column: 1 + line[..offset].chars().count(),
            text: line.to_owned(),
        };
        for node in nodes.clone().filter(|n| who == "all" || *n == who) {
            out.push(Command {
                node: node.to_owned(),
                words: words.clone(),
                place: place.clone(),
            });
        }
    }
    Ok(out)
}
