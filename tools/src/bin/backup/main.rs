//! `backup`: containers on Btrfs, saved and restored.

mod cli;
mod containers;
mod store;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use btrfs_ops::retention::{Item, Pin, Schedule};
use btrfs_ops::{DeleteOptions, ErrorKind, delete_path, stream};
use clap::{CommandFactory, Parser};
use serde_json::{Value, json};
use tools::exit;

use cli::{Cli, Command};
use store::{State, Target};

fn main() -> ExitCode {
    if let Some(ended) = tools::man_pages(Cli::command()) {
        return ended;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() {
                exit::USAGE
            } else {
                exit::DONE
            });
        }
    };
    match run(&cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let text = format!("{error:#}");
            if cli.json {
                println!("{}", json!({ "error": text }));
            }
            eprintln!("backup: {text}");
            ExitCode::from(exit::ERROR)
        }
    }
}

fn run(cli: &Cli) -> Result<u8> {
    let value = match &cli.command {
        Command::Snapshot {
            containers,
            lxcpath,
            into,
            no_freeze,
            deadline,
        } => containers::snapshot(containers, lxcpath, into, !no_freeze, *deadline)?,
        Command::Send {
            containers,
            from,
            target,
        } => {
            let target = Target::new(target)?;
            let names = if containers.is_empty() {
                store::containers(from)?
            } else {
                containers.clone()
            };
            let mut sent = Vec::new();
            for name in names {
                sent.extend(store::send(from, &name, &target)?);
            }
            Value::Array(sent)
        }
        Command::Receive {
            into,
            name,
            config_bytes,
        } => store::receive_from(std::io::stdin().lock(), into, name, *config_bytes)?,
        Command::List { dir } => {
            let mut all = BTreeMap::new();
            // A target that has nothing yet is an empty one.
            if dir.exists() {
                for name in store::containers(dir)? {
                    all.insert(name.clone(), store::entries(&dir.join(name))?);
                }
            }
            serde_json::to_value(all)?
        }
        Command::Verify { files } => return verify(cli, files),
        Command::Prune {
            dir,
            policy,
            dry_run,
            target,
        } => prune(dir, policy, *dry_run, Target::optional(target)?.as_ref())?,
        Command::Restore { what, name } => containers::restore(what, name)?,
        Command::RestoreTest {
            what,
            run,
            deadline,
        } => containers::restore_test(what, run, *deadline)?,
    };
    show(cli, &value);
    Ok(exit::DONE)
}

fn show(cli: &Cli, value: &Value) {
    if cli.json {
        println!("{value}");
    } else {
        lines(value, "");
    }
}

/// A line for each object, with its keys in their order.
fn lines(value: &Value, before: &str) {
    match value {
        Value::Array(all) => all.iter().for_each(|value| lines(value, before)),
        Value::Object(map) if map.values().all(Value::is_array) => {
            for (key, value) in map {
                lines(value, &format!("{before}{key} "));
            }
        }
        Value::Object(map) => {
            let word = |(key, value): (&String, &Value)| match value {
                Value::String(text) => format!("{key}={text}"),
                other => format!("{key}={other}"),
            };
            let words: Vec<_> = map
                .iter()
                .filter(|(_, v)| !v.is_null() && !v.is_object())
                .map(word)
                .collect();
            println!("{before}{}", words.join(" "));
        }
        other => println!("{before}{other}"),
    }
}

fn verify(cli: &Cli, paths: &[PathBuf]) -> Result<u8> {
    let mut files = Vec::new();
    for path in paths {
        store::stream_files(path, &mut files)?;
    }
    ensure!(!files.is_empty(), "no stream files there");
    let mut bad = 0;
    let mut results = Vec::new();
    for file in files {
        let opened = fs::File::open(&file).with_context(|| file.display().to_string())?;
        results.push(match stream::verify(opened) {
            Ok(summary) => json!({ "file": file, "ok": true, "bytes": summary.bytes, "commands": summary.commands }),
            Err(error) => {
                bad += 1;
                json!({ "file": file, "ok": false, "error": error.to_string() })
            }
        });
    }
    show(cli, &Value::Array(results));
    Ok(if bad == 0 { exit::DONE } else { exit::ERROR })
}

fn prune(dir: &Path, policy: &Schedule, dry_run: bool, target: Option<&Target>) -> Result<Value> {
    let now = jiff::Zoned::now();
    let mut report = Vec::new();
    for container in store::containers(dir)? {
        let home = dir.join(&container);
        let entries = store::entries(&home)?;
        let common = match target {
            None => None,
            Some(target) => {
                let theirs = target.entries(&container)?;
                let has = |entry: &&store::Entry| {
                    let origin = entry.origin();
                    origin.is_some() && theirs.iter().any(|other| other.origin() == origin)
                };
                entries
                    .iter()
                    .rev()
                    .find(has)
                    .map(|entry| entry.name.clone())
            }
        };
        let items: Vec<_> = entries
            .iter()
            .filter_map(|entry| {
                let item = Item::new(entry.name.clone(), entry.time()?);
                let pinned = common.as_ref() == Some(&entry.name);
                Some(if pinned {
                    item.pinned(Pin::LastCommon)
                } else {
                    item
                })
            })
            .collect();
        let verdicts = policy.judge(&items, &now);
        // What a kept stream file builds on is needed as long as that is.
        let mut needed = Vec::new();
        for verdict in verdicts.iter().filter(|verdict| verdict.keep()) {
            let entry = entries.iter().find(|entry| entry.name == verdict.key);
            if let Some(State::Stream { .. }) = entry.map(|entry| &entry.state) {
                needed.extend(store::chain(&entries, &verdict.key)?);
            }
        }
        for verdict in verdicts {
            let path = home.join(&verdict.key);
            let mut keep = verdict.keep();
            let mut reasons = serde_json::to_value(&verdict.reasons)?;
            if !keep && needed.contains(&verdict.key) {
                (keep, reasons) = (true, json!(["needed-by-a-kept-one"]));
            }
            if !keep && !dry_run && !remove(&path, &entries, &verdict.key)? {
                (keep, reasons) = (true, json!([{ "pinned": "mounted" }]));
            }
            report.push(json!({
                "container": container,
                "snapshot": verdict.key,
                "keep": keep,
                "reasons": reasons,
            }));
        }
    }
    Ok(Value::Array(report))
}

/// False if it is in use.
fn remove(path: &Path, entries: &[store::Entry], name: &str) -> Result<bool> {
    let entry = entries.iter().find(|entry| entry.name == name);
    match entry.map(|entry| &entry.state) {
        Some(State::Stream { .. }) => {
            let stream = store::stream_path(path.parent().unwrap_or(Path::new(".")), name);
            fs::remove_file(&stream).with_context(|| stream.display().to_string())?;
        }
        _ => match delete_path(path, &DeleteOptions::new().absent_is_success().durable()) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Mounted => return Ok(false),
            Err(error) => return Err(error.into()),
        },
    }
    let config = store::config_path(path);
    match fs::remove_file(&config) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| config.display().to_string())
        }
        _ => Ok(true),
    }
}
