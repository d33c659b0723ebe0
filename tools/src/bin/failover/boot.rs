//! `failover boot` and `failover shutdown`: what a node does when it boots, and before it goes.

use std::thread;

use ha_failover::{Request, World};
use serde_json::json;
use tools::exit;

use crate::group::worst;
use crate::output::Output;
use crate::{Context, LOOK, Result, execute, watchdog};

pub(crate) fn boot(context: &Context, only: &[String], output: &mut Output) -> Result<u8> {
    each(context, only, output, up_and_start)
}

pub(crate) fn shutdown(context: &Context, only: &[String], output: &mut Output) -> Result<u8> {
    each(context, only, output, stop_and_down)
}

type Work = fn(&Context, &str, &mut Output) -> Result<u8>;

/// All resources at once: each has its own peer to wait for.
fn each(context: &Context, only: &[String], output: &mut Output, work: Work) -> Result<u8> {
    let _ = std::env::set_current_dir("/");
    let mut names: Vec<&str> = only.iter().map(String::as_str).collect();
    if names.is_empty() {
        names = context
            .placement
            .resources
            .iter()
            .map(|r| r.name.as_str())
            .collect();
    }
    for name in &names {
        context.placement.resource(name)?;
    }
    watchdog::over(watchdog::MAIN);
    let shared = &*output;
    let statuses: Vec<u8> = thread::scope(|scope| {
        let all: Vec<_> = names
            .iter()
            .map(|name| scope.spawn(move || one(context, name, &mut shared.of(name), work)))
            .collect();
        all.into_iter()
            .map(|t| t.join().unwrap_or(exit::ERROR))
            .collect()
    });
    let status = worst(&statuses);
    Ok(output.end(
        if status == exit::DONE {
            "done"
        } else {
            "failed"
        },
        status,
        None,
    ))
}

fn one(context: &Context, name: &str, output: &mut Output, work: Work) -> u8 {
    let status = match work(context, name, output) {
        Ok(status) => status,
        Err(e) => {
            output.error(&e.chain(), e.how_to_go_on());
            output.end("error", exit::ERROR, None)
        }
    };
    watchdog::over(output.task());
    status
}

fn up_and_start(context: &Context, name: &str, output: &mut Output) -> Result<u8> {
    output.begins("look at the system", LOOK);
    let mut node = context.node(name)?;
    let _lock = node.lock(&format!("boot {name}"))?;
    for request in [Request::Boot, Request::Start] {
        output.begins("look at the system", LOOK);
        let facts = node.facts()?;
        if facts.ledger.handed_back {
            return Ok(others(output));
        }
        if request == Request::Start {
            node.note(&facts)?;
            let owner = node.ledger()?.owner;
            if owner.as_deref() != Some(context.node.as_str()) {
                let why = match owner {
                    Some(owner) => {
                        format!("stays Secondary: {owner} is the owner as far as this node knows")
                    }
                    None => "stays Secondary: nobody has served it yet".to_owned(),
                };
                output.event(&json!({"event": "stays", "why": why}));
                output.say(&why);
                return Ok(output.end("done", exit::DONE, None));
            }
        }
        match ha_failover::plan(&facts, node.resource(), &request) {
            Ok(plan) => {
                output.plan(&plan);
                let status = execute(&mut node, facts, plan, &request, output)?;
                if status != exit::DONE || request == Request::Start {
                    return Ok(status);
                }
            }
            // Not to serve is what a node should do that has nobody to ask.
            Err(refusal) if request == Request::Start => {
                output.refused(&refusal);
                output.event(&json!({"event": "stays", "why": refusal.to_string()}));
                output.say("stays Secondary");
                return Ok(output.end("done", exit::DONE, None));
            }
            Err(refusal) => {
                let status = output.refused(&refusal);
                return Ok(output.end("refused", status, None));
            }
        }
    }
    Ok(exit::DONE)
}

/// What was handed back is not touched.
fn others(output: &mut Output) -> u8 {
    let why = "left alone: it was handed back to other tools";
    output.event(&json!({"event": "stays", "why": why}));
    output.say(why);
    output.end("done", exit::DONE, None)
}

fn stop_and_down(context: &Context, name: &str, output: &mut Output) -> Result<u8> {
    output.begins("look at the system", LOOK);
    let mut node = context.node(name)?;
    let _lock = node.lock(&format!("shutdown {name}"))?;
    for request in [Request::Stop, Request::Down] {
        output.begins("look at the system", LOOK);
        let facts = node.facts()?;
        if facts.ledger.handed_back {
            return Ok(others(output));
        }
        if facts.drbd.is_none() {
            break;
        }
        match ha_failover::plan(&facts, node.resource(), &request) {
            Ok(plan) => {
                output.plan(&plan);
                let status = execute(&mut node, facts, plan, &request, output)?;
                if status != exit::DONE {
                    return Ok(status);
                }
            }
            Err(refusal) => {
                let status = output.refused(&refusal);
                return Ok(output.end("refused", status, None));
            }
        }
    }
    Ok(output.end("done", exit::DONE, None))
}
