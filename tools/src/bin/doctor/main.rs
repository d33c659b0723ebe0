//! `doctor`: what is wrong with a two-node set-up, read from its files before anything runs.

mod checks;
mod commands;
mod fix;
mod tree;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, ValueEnum};
use ha_failover::placement::Placement;
use serde::Serialize;
use tools::exit;

/// Finds what will go wrong in a set-up of DRBD, Btrfs and LXC on two nodes, from its files alone.
///
/// A tree is a directory that holds the files of one node as they lie under its root:
/// etc/drbd.conf, etc/network/interfaces, etc/lxc/, etc/fstab, etc/modprobe.d/, and the containers'
/// configurations. Nothing of it is changed and nothing is run; corrected copies are written where
/// `--fix-into` says.
#[derive(Debug, Parser)]
#[command(name = "doctor", version)]
struct Cli {
    /// The files of a node: NAME=DIRECTORY; once for each node.
    #[arg(long = "tree", value_name = "NAME=DIR", required = true, value_parser = tree_argument)]
    trees: Vec<(String, PathBuf)>,
    /// What belongs together, and who owns it.
    #[arg(long, value_name = "FILE")]
    placement: Option<PathBuf>,
    /// The commands of the set-up, one a line as "NODE: COMMAND" ("all" for every node), in order.
    #[arg(long, value_name = "FILE")]
    commands: Option<PathBuf>,
    /// Writes the files of each node, corrected as far as that needs no decision, into DIR/NAME, and
    /// then looks at those; DIR is new or empty.
    #[arg(long, value_name = "DIR")]
    fix_into: Option<PathBuf>,
    /// The DRBD that corrected files are for. Either refuses the other's place of "fencing".
    #[arg(long, value_name = "VERSION", value_enum, default_value_t = Drbd::V84)]
    drbd: Drbd,
    /// Prints one JSON document.
    #[arg(long)]
    json: bool,
}

/// Versions of DRBD that want something else in drbd.conf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Drbd {
    #[value(name = "8.4")]
    V84,
    #[value(name = "9")]
    V9,
}

fn tree_argument(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, dir)) if !name.is_empty() && !dir.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(dir)))
        }
        _ => Err("expected NAME=DIRECTORY".into()),
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Severity {
    /// It will fail, or lose data.
    Error,
    /// It works and should not be so.
    Warning,
}

/// A place in one of the files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Place {
    file: String,
    line: usize,
    column: usize,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    code: String,
    severity: Severity,
    /// The node whose files show it, if it is one node's.
    node: Option<String>,
    message: String,
    evidence: Vec<Place>,
    remedy: String,
}

impl Finding {
    fn print(&self) {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let node = self
            .node
            .as_ref()
            .map(|n| format!("{n}: "))
            .unwrap_or_default();
        println!("{severity}: {node}{} [{}]", self.message, self.code);
        for p in &self.evidence {
            println!("  {}:{}:{}: {}", p.file, p.line, p.column, p.text.trim());
        }
        println!("  = {}", self.remedy);
    }
}

#[derive(Serialize)]
struct Report<'a> {
    nodes: Vec<&'a str>,
    errors: usize,
    warnings: usize,
    findings: &'a [Finding],
    /// With `--fix-into`: what was changed; the findings are about what is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    fixed: Option<&'a [fix::Fixed]>,
}

fn main() -> ExitCode {
    if let Some(ended) = tools::man_pages(Cli::command()) {
        return ended;
    }
    let cli = Cli::parse();
    match run(&cli) {
        Ok((findings, fixed)) => {
            let errors = findings
                .iter()
                .filter(|f| f.severity == Severity::Error)
                .count();
            let report = Report {
                nodes: cli.trees.iter().map(|(name, _)| name.as_str()).collect(),
                errors,
                warnings: findings.len() - errors,
                findings: &findings,
                fixed: fixed.as_deref(),
            };
            if cli.json {
                match serde_json::to_string_pretty(&report) {
                    Ok(text) => println!("{text}"),
                    Err(e) => {
                        eprintln!("doctor: {e}");
                        return exit::ERROR.into();
                    }
                }
            } else {
                fixed.iter().flatten().for_each(fix::Fixed::print);
                findings.iter().for_each(Finding::print);
                println!("{errors} errors, {} warnings", report.warnings);
            }
            if errors == 0 {
                exit::DONE
            } else {
                exit::REFUSED
            }
            .into()
        }
        Err(text) => {
            eprintln!("doctor: {text}");
            exit::ERROR.into()
        }
    }
}

/// What is found; and what was corrected before, if that was asked for.
type Found = (Vec<Finding>, Option<Vec<fix::Fixed>>);

fn run(cli: &Cli) -> Result<Found, String> {
    let mut trees = BTreeMap::new();
    for (name, dir) in &cli.trees {
        if trees
            .insert(name.clone(), tree::Tree::read(name, dir)?)
            .is_some()
        {
            return Err(format!("two trees of {name}"));
        }
    }
    let mut fixed = None;
    if let Some(into) = &cli.fix_into {
        fixed = Some(fix::write(&trees, into, cli.drbd)?);
        for (name, tree) in &mut trees {
            *tree = tree::Tree::read(name, &into.join(name))?;
        }
    }
    let placement = match &cli.placement {
        Some(path) => Some(Placement::load(path).map_err(|e| e.to_string())?),
        None => None,
    };
    let commands = match &cli.commands {
        Some(path) => commands::read(path, trees.keys().map(String::as_str))?,
        None => Vec::new(),
    };
    let mut findings = checks::all(&trees, placement.as_ref(), &commands);
    findings.sort_by(|a, b| (a.severity, &a.evidence).cmp(&(b.severity, &b.evidence)));
    findings.dedup();
    Ok((findings, fixed))
}
