//! `failover`: what an operator runs on a node.

mod boot;
mod cli;
mod group;
mod output;
mod progress;
mod snapshots;
mod status;
mod watchdog;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{CommandFactory, Parser};
use ha_failover::plan::Takeover;
use ha_failover::{
    Attestation, CommandFencer, Error, Executor, Facts, FenceEvidence, Fencer, NewContainer, Node,
    Outcome, Placement, Plan, Request, Resource, Runnable, World, placement::Fence,
};
use tools::exit;

use cli::{Cli, Command, PeerPlacement, PlanCommand, RequestCommand};
use output::Output;
use progress::Progress;

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
    watchdog::run(cli.json, || {
        let mut output = Output::new(cli.json, cli.die_at.clone());
        match run(&cli, &mut output) {
            Ok(status) => status,
            Err(e) => {
                output.error(&e.chain(), e.how_to_go_on());
                let status = if e.kind() == ha_failover::ErrorKind::Usage {
                    exit::USAGE
                } else {
                    exit::ERROR
                };
                output.end("error", status, None)
            }
        }
    })
}

type Result<T> = ha_failover::Result<T>;

struct Context {
    placement: Placement,
    path: PathBuf,
    node: String,
    helper: PathBuf,
}

impl Context {
    fn new(cli: &Cli) -> Result<Self> {
        let path = std::path::absolute(&cli.placement).unwrap_or_else(|_| cli.placement.clone());
        let placement = Placement::load(&path)?;
        let node = match &cli.node {
            Some(node) => node.clone(),
            None => node_ops::host::hostname()
                .map_err(|e| {
                    Error::new(
                        ha_failover::ErrorKind::Observe,
                        "the host name cannot be read",
                    )
                    .caused_by(e)
                })?
                .to_string_lossy()
                .into_owned(),
        };
        let beside = std::env::current_exe().ok();
        let helper = beside.as_deref().and_then(Path::parent).map_or_else(
            || PathBuf::from("/usr/lib/ha-failover/drbd-helper"),
            |dir| dir.join("drbd-helper"),
        );
        Ok(Context {
            placement,
            path,
            node,
            helper,
        })
    }

    fn node(&self, resource: &str) -> Result<Node> {
        Node::new(&self.placement, resource, &self.node, &self.helper)
    }
}

fn run(cli: &Cli, output: &mut Output) -> Result<u8> {
    if std::env::var_os(tools::INSIDE_HANDLER).is_some() {
        return Err(Error::new(
            ha_failover::ErrorKind::Usage,
            "called from a handler of DRBD, which waits for its end: everything here would wait for DRBD",
        )
        .remedy("start it apart, for example by `systemd-run --no-block failover ...`"));
    }
    let context = Context::new(cli)?;
    match &cli.command {
        Command::Status { resource } => status::status(
            &context.placement,
            &context.path,
            &context.node,
            resource.as_deref(),
            output,
            |r| context.node(r),
        ),
        Command::Plan { request } => match request {
            PlanCommand::Request(request) => plan_only(&context, request, output),
            PlanCommand::Group(command) => group::plan_only(&context, command, output),
        },
        Command::Group(command) => group::operate(&context, command, output),
        Command::Boot { resources } => boot::boot(&context, resources, output),
        Command::Shutdown { resources } => boot::shutdown(&context, resources, output),
        Command::Snapshots {
            resource,
            container,
        } => snapshots::list(context.node(resource)?, container.as_deref(), output),
        Command::Space { resource } => snapshots::space(context.node(resource)?, output),
        Command::Request(request) => operate(&context, request, output),
        Command::WaitSync { resource, deadline } => {
            wait_sync(&context, resource, *deadline, output)
        }
        Command::CreateContainer {
            resource,
            name,
            rootfs,
            config,
            deadline,
        } => {
            let new = NewContainer::new(name, &absolute(rootfs), &absolute(config));
            create_container(&context, resource, &new, *deadline, output)
        }
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Turns the command line into a request. Asks the fence agent for the peer's power state, which changes nothing.
fn request(context: &Context, command: &RequestCommand) -> Result<Request> {
    let resource = context.placement.resource(command.resource())?;
    let attestation = |text: &Option<String>| text.as_deref().map(Attestation::new).transpose();
    Ok(match command {
        RequestCommand::Partition { erase, .. } => Request::Partition {
            erase: attestation(erase)?,
        },
        RequestCommand::Adopt { .. } => Request::Adopt,
        RequestCommand::HandBack { .. } => Request::HandBack,
        RequestCommand::Grow {
            peer_offers,
            wait_sync,
            ..
        } => Request::Grow {
            peer_offers: *peer_offers,
            wait_sync: *wait_sync,
        },
        RequestCommand::ResolveSplitBrain {
            victim,
            keep,
            accept,
            ..
        } => Request::ResolveSplitBrain {
            victim: victim.clone(),
            keep: keep.as_deref().map(absolute),
            accept: Attestation::new(accept)?,
        },
        RequestCommand::Snapshot {
            container, name, ..
        } => Request::Snapshot {
            container: container.clone(),
            name: name.clone().unwrap_or_else(snapshots::name_of_now),
        },
        RequestCommand::RestoreSnapshot {
            container,
            name,
            into,
            ..
        } => Request::RestoreSnapshot {
            container: container.clone(),
            name: name.clone(),
            into: into.clone(),
        },
        RequestCommand::DeleteSnapshot {
            container, name, ..
        } => Request::DeleteSnapshot {
            container: container.clone(),
            name: name.clone(),
        },
        RequestCommand::Prepare { .. } => Request::Prepare,
        RequestCommand::Up { .. } => Request::Up,
        RequestCommand::Down { .. } => Request::Down,
        RequestCommand::Initialize { wait_sync, .. } => Request::Initialize {
            wait_sync: *wait_sync,
        },
        RequestCommand::Start { .. } => Request::Start,
        RequestCommand::Stop { .. } => Request::Stop,
        RequestCommand::Release { peer, .. } => Request::Release {
            peer_placement: peer_digest(context, command.resource(), peer)?,
        },
        RequestCommand::Handover { peer, .. } => Request::Handover {
            peer_placement: peer_digest(context, command.resource(), peer)?,
        },
        RequestCommand::Takeover {
            attest,
            declare_data_current,
            promote_unfenced,
            ..
        } => {
            let mut takeover = Takeover::default();
            takeover.attest = attestation(attest)?;
            takeover.declare_data_current = attestation(declare_data_current)?;
            takeover.promote_unfenced = attestation(promote_unfenced)?;
            if takeover.attest.is_none()
                && let Some(mut fencer) = CommandFencer::from_placement(&resource.fence)
                && let Ok(peer) = resource.peer_of(&context.node)
            {
                watchdog::begin(
                    watchdog::MAIN,
                    "ask for the peer's power state",
                    fencing(resource),
                );
                takeover.peer_power = Some(fencer.status(peer)?);
                watchdog::begin(watchdog::MAIN, "look at the system", LOOK);
            }
            Request::Takeover(takeover)
        }
    })
}

fn peer_digest(context: &Context, resource: &str, peer: &PeerPlacement) -> Result<Option<String>> {
    match &peer.peer_placement {
        None => Ok(peer.peer_placement_digest.clone()),
        Some(path) => digest_in(context, resource, path).map(Some),
    }
}

/// The digest of a resource in a copy of the other node's placement; an error names what differs.
fn digest_in(context: &Context, resource: &str, path: &Path) -> Result<String> {
    let theirs = Placement::load(path)?;
    let theirs = theirs.resource(resource)?;
    let ours = context.placement.resource(resource)?;
    let differ = ha_failover::placement::differences(&ours.canonical(), &theirs.canonical());
    if !differ.is_empty() {
        return Err(Error::new(
            ha_failover::ErrorKind::Placement,
            format!(
                "placement-differs: {} and {}: {}",
                context.path.display(),
                path.display(),
                differ.join("; ")
            ),
        )
        .remedy("make the two files equal (all but [local]); nothing was changed"));
    }
    Ok(theirs.digest())
}

fn plan_only(context: &Context, command: &RequestCommand, output: &mut Output) -> Result<u8> {
    let mut node = context.node(command.resource())?;
    let request = request(context, command)?;
    let facts = node.facts()?;
    match ha_failover::plan(&facts, node.resource(), &request) {
        Ok(plan) => {
            output.plan(&plan);
            Ok(exit::DONE)
        }
        Err(refusal) => Ok(output.refused(&refusal)),
    }
}

fn operate(context: &Context, command: &RequestCommand, output: &mut Output) -> Result<u8> {
    let mut node = context.node(command.resource())?;
    let request = request(context, command)?;
    // A shell that stands in the store would hold the mount through us.
    let _ = std::env::set_current_dir("/");
    let lock = node.lock(&format!("{} {}", request.name(), command.resource()));
    let facts = match (&lock, node.facts()) {
        (Err(_), Err(e)) => return Err(e),
        (_, facts) => facts?,
    };
    let plan = match ha_failover::plan(&facts, node.resource(), &request) {
        Ok(plan) => plan,
        Err(refusal) => {
            let status = output.refused(&refusal);
            return Ok(output.end("refused", status, None));
        }
    };
    // Without the lock the findings above may still be of use; nothing is done.
    let _lock = lock?;
    output.plan(&plan);
    execute(&mut node, facts, plan, &request, output)
}

/// Runs a plan that was printed, with the lock held.
fn execute(
    node: &mut Node,
    facts: Facts,
    plan: Plan,
    request: &Request,
    output: &mut Output,
) -> Result<u8> {
    if plan.is_empty() {
        if let Some(open) = facts.open.filter(|open| open.request == request.name()) {
            ha_failover::exec::close(node, &open)?;
        }
        return Ok(output.end("done", exit::DONE, None));
    }
    let (runnable, facts) = match plan.evidence.clone() {
        None => {
            let runnable = plan
                .ready()
                .map_err(|_| internal("the plan needs evidence and does not say so"))?;
            (runnable, facts)
        }
        Some(need) => match proved(node, request, &need.node, output)? {
            Ok(proved) => proved,
            Err(status) => return Ok(status),
        },
    };
    node.note(&facts)?;
    let op = format!("{}-{}", node.wall(), std::process::id());
    let executor = Executor::new(runnable, op);
    watchdog::between(output.task());
    let (outcome, timings) =
        executor.run(node, &mut |event: &ha_failover::Event| output.step(event))?;
    node.keep_timings(&timings);
    let status = report(&outcome, output);
    if request.name() == "handover" && status != exit::DONE {
        let resource = &node.resource().name;
        output.complain(&format!(
            "  if the peer had let go, nobody serves {resource} now: run this again, or `failover handover {resource}` there"
        ));
    }
    Ok(status)
}

/// Looking has its own deadline; this one is for what does not even look.
const LOOK: Duration = Duration::from_secs(120);

/// What all runs of the fence agent may take: it is asked, told, and asked again.
fn fencing(resource: &Resource) -> Duration {
    match &resource.fence {
        Fence::Command { deadline, .. } => deadline.saturating_mul(3),
        _ => Duration::ZERO,
    }
}

fn internal(text: &str) -> Error {
    Error::new(ha_failover::ErrorKind::Observe, format!("internal: {text}"))
}

/// Gets the evidence, then plans again: a link that came back meanwhile makes the verdict worthless.
fn proved(
    node: &mut Node,
    request: &Request,
    peer: &str,
    output: &mut Output,
) -> Result<std::result::Result<(Runnable, Facts), u8>> {
    let begun = Instant::now();
    let mut request = request.clone();
    let Request::Takeover(takeover) = &mut request else {
        return Err(internal("only a takeover needs evidence"));
    };
    let evidence = match &takeover.attest {
        Some(text) => FenceEvidence::attested(peer, text.clone()),
        None => {
            let mut fencer = CommandFencer::from_placement(&node.resource().fence)
                .ok_or_else(|| internal("no fence method"))?;
            output.begins(
                &format!("prove that {peer} is off"),
                fencing(node.resource()),
            );
            let evidence = FenceEvidence::obtain(&mut fencer, peer)?;
            takeover.peer_power = Some(ha_failover::Power::Off);
            evidence
        }
    };
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    output.evidence(peer, &evidence.to_string(), ms);
    output.begins("look at the system", LOOK);
    let facts = node.facts()?;
    match ha_failover::plan(&facts, node.resource(), &request) {
        Ok(plan) => plan
            .with_evidence(evidence)
            .map(|runnable| Ok((runnable, facts)))
            .map_err(|_| internal("the evidence is about another node")),
        Err(refusal) => {
            let status = output.refused(&refusal);
            Ok(Err(output.end("refused", status, None)))
        }
    }
}

fn report(outcome: &Outcome, output: &Output) -> u8 {
    let (word, status, failure, text) = match outcome {
        Outcome::Done => ("done", exit::DONE, None, None),
        Outcome::Undone { step, cause } => (
            "undone",
            exit::UNDONE,
            Some((step.as_str(), cause)),
            Some(format!(
                "{step} failed: {cause}\n  what was changed before it was taken back"
            )),
        ),
        Outcome::Failed {
            step,
            cause,
            not_undone,
        } => {
            let mut text = format!("{step} failed: {cause}");
            for (what, why) in not_undone {
                text.push_str(&format!("\n  not undone: {what}: {why}"));
            }
            (
                "failed",
                exit::ERROR,
                Some((step.as_str(), cause)),
                Some(text),
            )
        }
        Outcome::Unknown { step, cause } => (
            "unknown",
            exit::UNKNOWN,
            Some((step.as_str(), cause)),
            Some(format!(
                "{step}: {cause}\n  run the same command again; it looks first"
            )),
        ),
        _ => ("failed", exit::ERROR, None, Some("stopped".to_owned())),
    };
    if let Some(text) = text {
        let remedy = failure.and_then(|(_, f)| f.remedy.as_deref());
        let remedy = remedy.map(|r| format!("\n  {r}")).unwrap_or_default();
        output.complain(&format!("{text}{remedy}"));
    }
    output.end(word, status, failure)
}

fn create_container(
    context: &Context,
    resource: &str,
    new: &NewContainer,
    deadline: Duration,
    output: &mut Output,
) -> Result<u8> {
    let mut node = context.node(resource)?;
    let _lock = node.lock(&format!("create-container {resource} {}", new.name))?;
    watchdog::begin(
        watchdog::MAIN,
        &format!("create container {}", new.name),
        deadline,
    );
    node.create_container(new, deadline)?;
    output.say(&format!(
        "container {} is made in {}",
        new.name,
        node.resource().lxcpath.display()
    ));
    Ok(output.end("done", exit::DONE, None))
}

/// Waits for both disks to be UpToDate and records that they are.
fn wait_sync(
    context: &Context,
    resource: &str,
    deadline: Duration,
    output: &mut Output,
) -> Result<u8> {
    let mut node = context.node(resource)?;
    let begun = Instant::now();
    let mut progress = Progress::new(output);
    loop {
        watchdog::begin(watchdog::MAIN, "look at the system", LOOK);
        let facts = node.facts()?;
        let Some(drbd) = &facts.drbd else {
            return Err(Error::new(
                ha_failover::ErrorKind::Observe,
                format!("{resource}: not configured in the kernel"),
            )
            .remedy(format!("run `failover up {resource}`")));
        };
        let left: u64 = drbd
            .volumes
            .values()
            .filter_map(|v| v.out_of_sync_kib)
            .sum();
        progress.shows(left, drbd.connected(), output);
        if drbd.in_sync() {
            progress.ends();
            let _lock = node.lock(&format!("wait-sync {resource}"))?;
            node.note(&facts)?;
            output.say("both disks are UpToDate");
            return Ok(output.end("done", exit::DONE, None));
        }
        if begun.elapsed() >= deadline {
            return Err(Error::new(
                ha_failover::ErrorKind::Observe,
                format!("{resource}: not in sync after {} s", deadline.as_secs()),
            )
            .remedy("look at `failover status` on both nodes"));
        }
        std::thread::sleep(
            Duration::from_millis(200).min(deadline.saturating_sub(begun.elapsed())),
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn helper_and_library_agree() {
        assert_eq!(tools::FENCED_DIR, ha_failover::node::FENCED_DIR);
        assert_eq!(tools::SPLIT_BRAIN_DIR, ha_failover::node::SPLIT_BRAIN_DIR);
    }
}
