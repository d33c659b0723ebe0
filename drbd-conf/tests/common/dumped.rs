//! What is dumped and brought up, ours against drbdadm's.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use drbd_conf::{Config, HostName, NodeView, Step, adjust_all};
use drbd_nl::Dialect;

use crate::common::words_of;
use crate::plain::{Plain, ours, theirs};

/// Said instead of `drbdadm`, where a signal ended it.
pub(crate) const CRASHED: &str = "drbdadm crashed";

/// `drbdadm` of one of the versions.
pub(crate) struct Oracle {
    pub(crate) program: PathBuf,
    pub(crate) dialect: Dialect,
}

impl Oracle {
    /// What it prints in a dry run, or says.
    pub(crate) fn run(&self, file: &Path, node: &str, args: &[&str]) -> Result<String, String> {
        let out = crate::common::output(
            Command::new(&self.program)
                .env("__DRBD_NODE__", node)
                .env("DRBD_DRIVER_VERSION_OVERRIDE", "9.2.18")
                .arg("-c")
                .arg(file)
                .arg("-d")
                .args(args),
        );
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let said = match out.status.code() {
            Some(_) => text(out.stderr),
            None => CRASHED.to_owned(),
        };
        let nothing = [
            "nothing stacked for this host",
            "no normal resources defined",
        ];
        match out.status.success() || nothing.iter().any(|n| said.contains(n)) {
            true => Ok(text(out.stdout)),
            false => Err(text(out.stdout) + &said),
        }
    }

    /// Compares dumps, and what `up` and the proxies do on each node. Tells what differs; `None` for a
    /// text that drbdadm refuses since two inherited values differ, which is a warning here, or dies of.
    pub(crate) fn compare(&self, file: &Path, nodes: &[&str]) -> Option<Result<usize, String>> {
        let dumped = match self.run(file, nodes[0], &["-v", "dump", "all"]) {
            Err(said) if said.contains("ambiguous inheritance") => return None,
            // The same for "size", which it cannot compare.
            Err(said) if said.contains("option 'size' not known in this context") => return None,
            other => other,
        };
        let compared = self.compare_dumped(file, nodes, dumped);
        (compared.as_ref().err().map(String::as_str) != Some(CRASHED)).then_some(compared)
    }

    fn compare_dumped(
        &self,
        file: &Path,
        nodes: &[&str],
        dumped: Result<String, String>,
    ) -> Result<usize, String> {
        let theirs_text = dumped?;
        let config = Config::load(file).map_err(|e| e.to_string())?;
        let dumps = |c: &Config| match self.dialect {
            Dialect::V84 => Ok((c.dump_84()?, c.dump_xml_84()?)),
            Dialect::V9 => Ok((c.dump(), c.dump_xml())),
        };
        let dumps = |c: &Config| dumps(c).map_err(|e: drbd_conf::Error| e.to_string());
        let (dump, xml) = dumps(&config)?;
        let (a, mut b) = (tree(&dump), tree(&theirs_text));
        // With a template, what `common` says is only in the resources it is for.
        if let (true, Some((before, common))) = (
            theirs_text.contains("template-file"),
            b.split_once("\"common {\n"),
        ) {
            let after = common
                .find("\n\"resource")
                .map_or("", |at| &common[at + 1..]);
            b = format!("{before}{after}");
        }
        let split = |t: &str| t.lines().map(str::to_owned).collect::<Vec<_>>();
        if let Some(text) = differs(&split(&a), &split(&b)) {
            return Err(format!("dump: {text}"));
        }
        let theirs_xml = self.run(file, nodes[0], &["dump-xml", "all"])?;
        if let Some(text) = differs(&lines(&xml), &lines(&theirs_xml)) {
            return Err(format!("dump-xml: {text}"));
        }
        // A dump is a configuration that means the same, to us and to drbdadm.
        let again = Config::parse(&dump, "dump").map_err(|e| format!("{dump}\n{e}"))?;
        let (second, _) = dumps(&again)?;
        if second != dump {
            return Err(format!("not the same again: {dump}\n{second}"));
        }
        let copy = tempfile::NamedTempFile::new().unwrap();
        fs::write(&copy, &dump).unwrap();
        let mut steps = 0;
        for node in nodes {
            for stacked in [false, true] {
                let args: &[&str] = match stacked {
                    true => &["--stacked", "up", "all"],
                    false => &["up", "all"],
                };
                let up = self.run(file, node, args)?;
                let of_copy = self.run(copy.path(), node, args);
                let of_copy = of_copy.map_err(|e| format!("our dump: {e}"))?;
                let read = |text: &str| -> Vec<Plain> {
                    let lines = text.lines().filter(|l| !l.contains("proxy-ctl"));
                    lines.filter_map(theirs).collect()
                };
                let (up, of_copy) = (read(&up), read(&of_copy));
                if let Some(text) = differs(&of_copy, &up) {
                    return Err(format!("up of our dump on {node}: {text}"));
                }
                for c in [&config, &again] {
                    let all = up_all(&views(c, node, stacked)?, self.dialect);
                    let all = all.map_err(|e| e.to_string())?.into_iter();
                    let found: Vec<_> = all.map(|s| ours(s, self.dialect)).collect();
                    if let Some(text) = differs(&found, &up) {
                        return Err(format!("up on {node}, stacked {stacked}: {text}"));
                    }
                }
                steps += up.len();
            }
        }
        let hosts = (1..=4).map(|n| format!("pxy{n}"));
        for host in hosts.filter(|h| dump.contains(h)) {
            self.compare_proxy(file, &config, &host)?;
        }
        Ok(steps)
    }

    /// Compares what DRBD Proxy on a host is told.
    fn compare_proxy(&self, file: &Path, config: &Config, host: &str) -> Result<(), String> {
        type Commands = fn(&NodeView, &str) -> drbd_conf::Result<Vec<String>>;
        let verbs: [(&str, Commands); 2] = [
            ("proxy-up", NodeView::proxy_up),
            ("proxy-down", NodeView::proxy_down),
        ];
        for (verb, commands) in verbs {
            let mut found = Vec::new();
            for r in &config.resources {
                for name in r.hosts.iter().filter_map(|h| h.names().into_iter().next()) {
                    let view = r.for_node(&name).map_err(|e| e.to_string())?;
                    found.push(commands(&view, host));
                }
            }
            let found: drbd_conf::Result<Vec<_>> = found.into_iter().collect();
            let plain = self.run(file, host, &[verb, "all"]);
            let stacked = self.run(file, host, &["--stacked", verb, "all"]);
            let said = match plain.and_then(|plain| Ok(plain + &stacked?)) {
                // Of any connection, through a proxy or not.
                Err(said) if said.contains("Multiple paths") => continue,
                other => other?,
            };
            let arguments = |line: &str| {
                let words = words_of(line).into_iter().skip(1);
                words.filter(|w| w != "-c").collect::<Vec<_>>()
            };
            // drbdadm turns the order of plugins around each time they are inherited.
            let sorted = |commands: Vec<String>| {
                let mut all: Vec<_> = commands
                    .into_iter()
                    .map(|c| match c.splitn(5, ' ').collect::<Vec<_>>()[..] {
                        ["set", "plugin", name, _, line] => format!("plugin {name} {line}"),
                        _ => c,
                    })
                    .collect();
                all.sort();
                all
            };
            let theirs = sorted(said.lines().flat_map(arguments).collect());
            let found = sorted(found.map_err(|e| e.to_string())?.concat());
            if let Some(text) = differs(&found, &theirs) {
                return Err(format!("{verb} on {host}: {text}"));
            }
        }
        Ok(())
    }
}

/// What brings several resources up. drbdadm of 8.4 makes all objects of one before those of the next.
fn up_all(views: &[NodeView], dialect: Dialect) -> drbd_conf::Result<Vec<Step>> {
    if dialect == Dialect::V9 {
        return adjust_all(views.iter().map(|v| (v, None)), dialect);
    }
    let mut steps = Vec::new();
    for part in [NodeView::create, NodeView::attach, NodeView::connect] {
        for v in views {
            steps.extend(part(v, dialect)?);
        }
    }
    Ok(steps)
}

/// The views of all resources that are on a node, those that are stacked or the others.
pub(crate) fn views(config: &Config, node: &str, stacked: bool) -> Result<Vec<NodeView>, String> {
    let is_stacked = |r: &&drbd_conf::Resource| {
        let mut of = r
            .hosts
            .iter()
            .filter(|h| h.names().iter().any(|n| n == node));
        let host = of.next();
        host.is_some_and(|h| matches!(h.name, HostName::StackedOnTopOf(_)) == stacked)
    };
    let of = config.resources.iter().filter(is_stacked);
    of.map(|r| r.for_node(node))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())
}

/// A text of statements and blocks, with what does not matter taken out: layout, comments, the order
/// of statements within a block.
fn tree(text: &str) -> String {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            '"' => {
                let mut word = String::from("\"");
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    word.extend(if c == '\\' { chars.next() } else { Some(c) });
                }
                // The name of a floating host, which drbdadm does not quote.
                match word.strip_prefix("\"ipv6 ") {
                    Some(address) => tokens.extend(["\"ipv6".into(), format!("\"{address}")]),
                    None => tokens.push(word),
                }
            }
            '{' | '}' | ';' => tokens.push(c.to_string()),
            c if c.is_whitespace() => {}
            c => {
                let mut word = format!("\"{c}");
                while let Some(c) = chars.next_if(|c| !c.is_whitespace() && !"{};".contains(*c)) {
                    word.push(c);
                }
                tokens.push(word);
            }
        }
    }
    fn block(tokens: &mut dyn Iterator<Item = String>, of: &[String], stacked: bool) -> String {
        let (mut leaves, mut blocks) = (Vec::new(), Vec::new());
        let mut words: Vec<String> = Vec::new();
        while let Some(t) = tokens.next() {
            match t.as_str() {
                "}" => break,
                ";" if words.is_empty() => {}
                ";" => {
                    if words[0] == "\"protocol" {
                        words
                            .iter_mut()
                            .skip(1)
                            .for_each(|w: &mut String| w.make_ascii_uppercase());
                    }
                    leaves.push(format!("{};", words.join(" ")));
                    words.clear();
                }
                "{" => {
                    let stacked = stacked || words[0] == "\"stacked-on-top-of";
                    let inner = block(tokens, &words, stacked);
                    // drbdadm shows the settings of a host's only disk twice, and cannot read that.
                    let hosts = ["\"on", "\"floating", "\"stacked-on-top-of"];
                    let in_host = of.first().is_some_and(|w| hosts.contains(&w.as_str()));
                    // Nor can it of 8.4 read them where the disk is another resource.
                    let twice = (in_host || stacked) && words == ["\"disk"];
                    if !inner.is_empty() && !twice {
                        blocks.push(format!("{} {{\n{inner}}}", words.join(" ")));
                    }
                    words.clear();
                }
                _ => words.push(t),
            }
        }
        // What a template said is in the resource, and it is not asked for again.
        leaves.retain(|l| !l.starts_with("\"template-file"));
        // drbdadm-84 of 9.22 has the longest timeout where another one belongs, and none for itself.
        let mixed_up = ["\"cmd-timeout-medium \"600;", "\"cmd-timeout-long \"0;"];
        leaves.retain(|l| !mixed_up.contains(&l.as_str()));
        leaves.sort();
        // What is stacked and connected without a word about it is shown in a form that drbdadm
        // takes for something else.
        if blocks.iter().any(|b| b.starts_with("\"stacked-on-top-of")) {
            blocks.retain(|b| !b.starts_with("\"connection"));
        }
        leaves.extend(blocks);
        leaves.iter().map(|l| l.clone() + "\n").collect()
    }
    block(&mut tokens.into_iter(), &[], false)
}

/// The lines of an XML text, options that follow each other in any order.
fn lines(xml: &str) -> Vec<String> {
    let mut all: Vec<String> = xml
        .replace("><", ">\n<")
        .lines()
        .map(|l| l.trim().to_owned())
        .filter(|l| !l.is_empty() && !l.starts_with("<template"))
        .map(
            |l| match l.strip_prefix("<option name=\"protocol\" value=") {
                Some(value) => format!("<option name=\"protocol\" value={}", value.to_uppercase()),
                None => l,
            },
        )
        .collect();
    // An empty section says nothing.
    if let Some(at) = all.windows(2).position(|w| w == ["<common>", "</common>"]) {
        all.drain(at..at + 2);
    }
    for run in all.chunk_by_mut(|a, b| a.starts_with("<option") && b.starts_with("<option")) {
        run.sort();
    }
    all
}

pub(crate) fn differs<T: PartialEq + std::fmt::Debug>(ours: &[T], theirs: &[T]) -> Option<String> {
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    (ours != theirs).then(|| {
        let show = |of: &[T]| {
            let near = &of[at.saturating_sub(3).min(of.len())..(at + 3).min(of.len())];
            let lines = near.iter().map(|line| {
                let text = format!("{line:?}");
                let set: Vec<_> = text
                    .split(", ")
                    .filter(|s| !s.ends_with(": None"))
                    .collect();
                format!("\n    {}", set.join(", "))
            });
            lines.collect::<String>()
        };
        format!("at {at}: ours {}\ntheirs {}", show(ours), show(theirs))
    })
}
