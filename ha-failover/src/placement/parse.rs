//! From text to a checked placement, with the place of what is wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{Address, ContainerSpec, Deadlines, Fence, Local, Node, Ready, Resource};
use crate::duration;
use crate::error::{Error, ErrorKind, Result};

/// An error at a byte offset of the file, shown as line and column with the line itself.
pub(super) fn located(name: &str, text: &str, at: usize, what: &str) -> Error {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    let column = before[start..].chars().count() + 1;
    let shown = text[start..].lines().next().unwrap_or("").trim_end();
    Error::new(
        ErrorKind::Placement,
        format!(
            "placement {name}:{line}:{column}: {}: `{}`",
            what.trim_end(),
            shown.trim()
        ),
    )
    .remedy("correct the file; examples/placement.toml shows every key")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPlacement {
    pub(super) version: Spanned<i64>,
    #[serde(default)]
    pub(super) local: Local,
    #[serde(default)]
    pub(super) resource: Vec<RawResource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawResource {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    volume: u16,
    mount: Spanned<PathBuf>,
    #[serde(default)]
    mount_options: Vec<Spanned<String>>,
    lxcpath: Spanned<PathBuf>,
    owner: Spanned<String>,
    nodes: Spanned<BTreeMap<String, Node>>,
    fence: Option<Spanned<RawFence>>,
    #[serde(default)]
    deadlines: Deadlines,
    #[serde(default)]
    container: Vec<RawContainer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFence {
    method: FenceMethod,
    #[serde(default)]
    status: Vec<String>,
    #[serde(default)]
    off: Vec<String>,
    #[serde(default = "fence_deadline", deserialize_with = "duration::deserialize")]
    deadline: Duration,
}

pub(super) fn fence_deadline() -> Duration {
    Duration::from_secs(60)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FenceMethod {
    Operator,
    Command,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawContainer {
    name: Spanned<String>,
    #[serde(
        default = "container_deadline",
        deserialize_with = "duration::deserialize"
    )]
    start_deadline: Duration,
    #[serde(
        default = "container_deadline",
        deserialize_with = "duration::deserialize"
    )]
    stop_deadline: Duration,
    #[serde(default)]
    address: Vec<Address>,
    ready: Option<Spanned<RawReady>>,
    #[serde(default)]
    after: Vec<Spanned<String>>,
    #[serde(default)]
    priority: i32,
}

fn container_deadline() -> Duration {
    Duration::from_secs(30)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReady {
    tcp: Option<SocketAddr>,
    exec: Option<Vec<String>>,
}

pub(super) type Wrong = (usize, String);

/// Turns what the file says into a resource, or says where it cannot be right.
pub(super) fn check(raw: RawResource) -> Result<Resource, Wrong> {
    let name = plain_name(&raw.name, "resource")?;
    let mount = plain_path(&raw.mount, "mount")?;
    if mount == Path::new("/") {
        return Err((raw.mount.span().start, "mount cannot be `/`".into()));
    }
    let lxcpath = plain_path(&raw.lxcpath, "lxcpath")?;
    if !lxcpath.starts_with(&mount) || lxcpath == mount {
        return Err((
            raw.lxcpath.span().start,
            format!(
                "lxcpath {} must be a directory below the mount point {}",
                lxcpath.display(),
                mount.display()
            ),
        ));
    }
    let mut mount_options = Vec::new();
    for option in raw.mount_options {
        let word = option.get_ref().split('=').next().unwrap_or("");
        if [
            "ro",
            "degraded",
            "usebackuproot",
            "nologreplay",
            "rescue",
            "subvol",
            "subvolid",
            "device",
        ]
        .contains(&word)
        {
            return Err((
                option.span().start,
                format!("mount option `{word}` is not accepted for a store that serves"),
            ));
        }
        mount_options.push(option.into_inner());
    }
    let nodes_at = raw.nodes.span().start;
    let nodes = raw.nodes.into_inner();
    if nodes.len() != 2 {
        return Err((
            nodes_at,
            format!(
                "resource `{name}` needs exactly two nodes, the file has {}",
                nodes.len()
            ),
        ));
    }
    for node in nodes.keys() {
        if !is_plain_name(node) {
            return Err((nodes_at, format!("`{node}` cannot be the name of a node")));
        }
    }
    if !nodes.contains_key(raw.owner.get_ref()) {
        return Err((
            raw.owner.span().start,
            format!("owner `{}` is not one of the nodes", raw.owner.get_ref()),
        ));
    }
    let mut containers: Vec<ContainerSpec> = Vec::new();
    let names: Vec<String> = raw
        .container
        .iter()
        .map(|c| c.name.get_ref().clone())
        .collect();
    let containers_at = raw.container.first().map_or(0, |c| c.name.span().start);
    for container in raw.container {
        let at = container.name.span().start;
        let name = plain_name(&container.name, "container")?;
        if containers.iter().any(|c| c.name == name) {
            return Err((at, format!("container `{name}` is there twice")));
        }
        for other in &container.after {
            let unknown = !names.contains(other.get_ref());
            if unknown || *other.get_ref() == name {
                let what = if unknown {
                    "is no container of this resource"
                } else {
                    "is the container itself"
                };
                return Err((
                    other.span().start,
                    format!("after: `{}` {what}", other.get_ref()),
                ));
            }
        }
        containers.push(ContainerSpec {
            name,
            start_deadline: container.start_deadline,
            stop_deadline: container.stop_deadline,
            addresses: container.address,
            ready: container.ready.map(check_ready).transpose()?,
            after: container
                .after
                .into_iter()
                .map(Spanned::into_inner)
                .collect(),
            priority: container.priority,
        });
    }
    let containers = in_start_order(containers).map_err(|circle| {
        let what = format!("containers wait for each other: {}", circle.join(", "));
        (containers_at, what)
    })?;
    Ok(Resource {
        name,
        volume: raw.volume,
        mount,
        mount_options,
        lxcpath,
        owner: raw.owner.into_inner(),
        nodes,
        fence: raw.fence.map_or(Ok(Fence::Operator), check_fence)?,
        deadlines: raw.deadlines,
        containers,
    })
}

/// Sorts by `after`, then by priority, then as they are; or names those that never get their turn.
fn in_start_order(mut left: Vec<ContainerSpec>) -> Result<Vec<ContainerSpec>, Vec<String>> {
    let mut sorted: Vec<ContainerSpec> = Vec::new();
    while !left.is_empty() {
        let may_start =
            |c: &ContainerSpec| c.after.iter().all(|a| sorted.iter().any(|s| s.name == *a));
        // The first of the highest priority: `max_by_key` would give the last.
        let next = left
            .iter()
            .enumerate()
            .filter(|(_, c)| may_start(c))
            .min_by_key(|(_, c)| std::cmp::Reverse(c.priority))
            .map(|(i, _)| i);
        match next {
            Some(i) => sorted.push(left.remove(i)),
            None => return Err(left.into_iter().map(|c| c.name).collect()),
        }
    }
    Ok(sorted)
}

fn check_fence(raw: Spanned<RawFence>) -> Result<Fence, Wrong> {
    let at = raw.span().start;
    let raw = raw.into_inner();
    match raw.method {
        FenceMethod::Operator if raw.status.is_empty() && raw.off.is_empty() => Ok(Fence::Operator),
        FenceMethod::Operator => Err((
            at,
            "`status` and `off` belong to method = \"command\"".into(),
        )),
        FenceMethod::Command => {
            for (key, argv) in [("status", &raw.status), ("off", &raw.off)] {
                if argv.first().is_none_or(|program| !program.starts_with('/')) {
                    return Err((
                        at,
                        format!("fence.{key} must start with the absolute path of a program"),
                    ));
                }
                if !argv.iter().any(|arg| arg.contains("{node}")) {
                    return Err((
                        at,
                        format!("fence.{key} must name the node to act on by {{node}}"),
                    ));
                }
            }
            Ok(Fence::Command {
                status: raw.status,
                off: raw.off,
                deadline: raw.deadline,
            })
        }
    }
}

fn check_ready(raw: Spanned<RawReady>) -> Result<Ready, Wrong> {
    let at = raw.span().start;
    match raw.into_inner() {
        RawReady {
            tcp: Some(address),
            exec: None,
        } => Ok(Ready::Tcp(address)),
        RawReady {
            tcp: None,
            exec: Some(argv),
        } if !argv.is_empty() => Ok(Ready::Exec(argv)),
        _ => Err((at, "ready needs either `tcp` or a non-empty `exec`".into())),
    }
}

pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && !name.starts_with(['.', '-'])
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn plain_name(name: &Spanned<String>, what: &str) -> Result<String, Wrong> {
    if is_plain_name(name.get_ref()) {
        Ok(name.get_ref().clone())
    } else {
        Err((
            name.span().start,
            format!(
                "`{}` cannot be the name of a {what}: letters, digits, `.`, `_`, `-`, at most 64, not starting with `.` or `-`",
                name.get_ref()
            ),
        ))
    }
}

fn plain_path(path: &Spanned<PathBuf>, what: &str) -> Result<PathBuf, Wrong> {
    let value = path.get_ref();
    let plain = value.is_absolute()
        && value
            .components()
            .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if plain {
        Ok(value.components().collect())
    } else {
        Err((
            path.span().start,
            format!(
                "{what} {} must be an absolute path without `..`",
                value.display()
            ),
        ))
    }
}
