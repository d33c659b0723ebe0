//! Corrected files: what is mended without asking anyone, and what is left as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use drbd_conf::{Config, Document, HostName, Resource};
use serde::Serialize;

use crate::Drbd;
use crate::checks::unknown_key;
use crate::tree::{Lines, Tree, key_value, sorted};

/// One change to one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fixed {
    node: String,
    /// Under the root of the node.
    file: String,
    what: String,
}

impl Fixed {
    pub(crate) fn print(&self) {
        println!("corrected: {} {}: {}", self.node, self.file, self.what);
    }
}

/// What goes wrong while corrected files are written, in words.
type Result<T, E = String> = std::result::Result<T, E>;

/// Writes the files of every tree into `into/NODE`, corrected.
pub(crate) fn write(trees: &BTreeMap<String, Tree>, into: &Path, drbd: Drbd) -> Result<Vec<Fixed>> {
    match fs::read_dir(into).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(format!("{}: not empty", into.display())),
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(format!("{}: {e}", into.display()));
        }
        _ => {}
    }
    let mut fixed = Vec::new();
    for tree in trees.values() {
        let mut writer = Writer {
            tree,
            into: into.join(&tree.name),
            drbd,
            fixed: &mut fixed,
        };
        fs::create_dir_all(&writer.into).map_err(|e| format!("{}: {e}", writer.into.display()))?;
        writer.drbd()?;
        let bridges = bridges(trees, tree);
        if let Some(file) = &tree.interfaces {
            writer.lines(file, &mut |text| interfaces(text, &bridges))?;
        }
        if let Some(file) = &tree.fstab {
            writer.each_line(file, fstab)?;
        }
        for file in &tree.modprobe {
            writer.each_line(file, modprobe)?;
        }
        for file in &tree.lxc {
            writer.each_line(file, lxc)?;
        }
    }
    Ok(fixed)
}

struct Writer<'a> {
    tree: &'a Tree,
    into: PathBuf,
    drbd: Drbd,
    fixed: &'a mut Vec<Fixed>,
}

impl Writer<'_> {
    /// A file's path under the root of its node. What is included from elsewhere stays there.
    fn inside(&self, file: &Path) -> Option<PathBuf> {
        file.strip_prefix(&self.tree.root).ok().map(Path::to_owned)
    }

    fn note(&mut self, file: &Path, what: impl IntoIterator<Item = String>) {
        for what in what {
            self.fixed.push(Fixed {
                node: self.tree.name.clone(),
                file: file.display().to_string(),
                what,
            });
        }
    }

    fn place(&self, file: &Path) -> Result<PathBuf> {
        let to = self.into.join(file);
        let dir = to.parent().unwrap_or(&self.into);
        fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        Ok(to)
    }

    /// Writes a file, changed by `change`, which says what it did.
    fn lines(
        &mut self,
        file: &Lines,
        change: &mut dyn FnMut(&str) -> (String, Vec<String>),
    ) -> Result<()> {
        let Some(name) = self.inside(&file.file) else {
            return Ok(());
        };
        let (text, what) = change(&file.text);
        let to = self.place(&name)?;
        fs::write(&to, text).map_err(|e| format!("{}: {e}", to.display()))?;
        self.note(&name, what);
        Ok(())
    }

    /// As [`Writer::lines`], a line at a time; those that are kept give `None`.
    fn each_line(
        &mut self,
        file: &Lines,
        change: fn(&str) -> Option<(String, String)>,
    ) -> Result<()> {
        self.lines(file, &mut |text| {
            let mut what = Vec::new();
            let line = |line: &str| match change(line) {
                Some((new, said)) => {
                    what.push(said);
                    new
                }
                None => line.to_owned(),
            };
            let lines: Vec<_> = text.split('\n').map(line).collect();
            (lines.join("\n"), what)
        })
    }

    fn drbd_as_it_is(&mut self) -> Result<()> {
        let mut files = sorted(&self.tree.root.join("etc/drbd.d"))?;
        files.push(self.tree.root.join("etc/drbd.conf"));
        for from in files.iter().filter(|f| f.is_file()) {
            let Some(name) = self.inside(from) else {
                continue;
            };
            let to = self.place(&name)?;
            // With its mode: it may hold a secret.
            fs::copy(from, &to).map_err(|e| format!("{}: {e}", to.display()))?;
        }
        Ok(())
    }

    fn drbd(&mut self) -> Result<()> {
        let config = match &self.tree.drbd {
            Some(Ok(config)) => config,
            // What it says is not known: it stays as it is.
            Some(Err(_)) => return self.drbd_as_it_is(),
            None => return Ok(()),
        };
        let codes: BTreeSet<&str> = config.warnings().iter().map(|w| w.code).collect();
        for path in config.files() {
            let Some(name) = self.inside(path) else {
                continue;
            };
            let mut document = Document::open(path).map_err(|e| e.to_string())?;
            let mut what = sections(&mut document, &codes, self.drbd).map_err(|e| e.to_string())?;
            what.extend(devices(&mut document, config).map_err(|e| e.to_string())?);
            let to = self.place(&name)?;
            document.save(&to).map_err(|e| e.to_string())?;
            self.note(&name, what);
        }
        Ok(())
    }
}

/// Corrects `common` and the resources of one file.
fn sections(
    file: &mut Document,
    codes: &BTreeSet<&str>,
    drbd: Drbd,
) -> drbd_conf::Result<Vec<String>> {
    let mut done = file.modernize()?;
    let blocks = file.heads(&[]).into_iter();
    let blocks = blocks.filter(|b| b == "common" || b.starts_with("resource "));
    for block in blocks {
        let block = block.as_str();
        let mut set = |file: &mut Document, place: &[&str], name: &str, value: &str| {
            file.set(place, name, value)?;
            done.push(format!("{}: {name} {value}", place.join(" ")));
            Ok::<_, drbd_conf::Error>(())
        };
        for place in [&[block][..], &[block, "net"]] {
            if file
                .get(place, "protocol")
                .is_some_and(|p| !p.eq_ignore_ascii_case("C"))
            {
                set(file, place, "protocol", "C")?;
            }
        }
        let net = [block, "net"];
        for (name, harmless) in [
            ("after-sb-0pri", &["disconnect", "discard-zero-changes"][..]),
            ("after-sb-1pri", &["disconnect", "consensus"]),
            ("after-sb-2pri", &["disconnect"]),
        ] {
            if file
                .get(&net, name)
                .is_some_and(|v| !harmless.contains(&v.as_str()))
            {
                set(file, &net, name, "disconnect")?;
            }
        }
        if codes.contains("two-primaries")
            && file
                .get(&net, "allow-two-primaries")
                .is_some_and(|v| v != "no")
        {
            set(file, &net, "allow-two-primaries", "no")?;
        }
        let secret = file.get(&net, "shared-secret").is_some();
        if codes.contains("no-peer-authentication") && secret {
            set(file, &net, "cram-hmac-alg", "sha256")?;
        }
        let disk = [block, "disk"];
        for name in ["disk-flushes", "md-flushes", "al-updates"] {
            if file.get(&disk, name).is_some_and(|v| v == "no") {
                set(file, &disk, name, "yes")?;
            }
        }
        let (place, other) = match drbd {
            Drbd::V84 => (&disk, &net),
            Drbd::V9 => (&net, &disk),
        };
        if block.starts_with("resource ") && codes.contains("no-fencing") {
            set(file, place, "fencing", "resource-and-stonith")?;
        } else if let Some(policy) = file.get(other, "fencing") {
            file.remove(other, "fencing")?;
            set(file, place, "fencing", &policy)?;
        }
        if block.starts_with("resource ")
            && (codes.contains("no-fencing") || codes.contains("no-fence-handler"))
        {
            set(
                file,
                &[block, "handlers"],
                "fence-peer",
                "/usr/sbin/drbd-helper",
            )?;
        }
        let startup = [block, "startup"];
        let order = ["wfc-timeout", "degr-wfc-timeout", "outdated-wfc-timeout"];
        let waits = order.map(|name| file.get(&startup, name).and_then(|v| v.parse::<u64>().ok()));
        let mut most = waits[0];
        for (name, wait) in order.iter().zip(waits).skip(1) {
            // 0 has no end.
            let longer = |wait: u64, most: u64| most != 0 && (wait == 0 || wait > most);
            match (wait, most) {
                (Some(wait), Some(limit)) if longer(wait, limit) => {
                    set(file, &startup, name, &limit.to_string())?;
                }
                (Some(wait), _) => most = Some(wait),
                _ => {}
            }
        }
        if file.remove(&startup, "become-primary-on")? {
            done.push(format!("{block} startup: become-primary-on is gone"));
        }
    }
    Ok(done)
}

/// Gives every volume the minor that it has on the first host, where nothing else has it.
fn devices(file: &mut Document, config: &Config) -> drbd_conf::Result<Vec<String>> {
    let mut done = Vec::new();
    for r in &config.resources {
        let Some((first, others)) = r.hosts.split_first() else {
            continue;
        };
        for host in others {
            for v in &host.volumes {
                let on_first = first.volumes.iter().find(|o| o.number == v.number);
                let Some(minor) = on_first
                    .and_then(|o| o.minor)
                    .filter(|m| v.minor != Some(*m))
                else {
                    continue;
                };
                let taken = host
                    .names()
                    .iter()
                    .any(|node| in_use(config, r, node, minor));
                let Some(block) = block_of(file, r, host).filter(|_| !taken) else {
                    continue;
                };
                let resource = format!("resource {}", r.name);
                let volume = format!("volume {}", v.number);
                let mut place = vec![resource.as_str(), block.as_str()];
                if file.heads(&place).contains(&volume) {
                    place.push(&volume);
                }
                let device = format!("/dev/drbd{minor}");
                file.set(&place, "device", &device)?;
                done.push(format!("{}: device {device}", place.join(" ")));
            }
        }
    }
    Ok(done)
}

/// Whether a node has this minor for another volume.
fn in_use(config: &Config, but: &Resource, node: &str, minor: u32) -> bool {
    let others = config.resources.iter().filter(|r| r.name != but.name);
    others.into_iter().any(|r| {
        let view = r.for_node(node);
        view.is_ok_and(|v| v.volumes.iter().any(|v| v.minor == minor))
    })
}

/// The words in front of a host's block, if it is in this file.
fn block_of(file: &Document, r: &Resource, host: &drbd_conf::Host) -> Option<String> {
    let HostName::On(names) = &host.name else {
        return None;
    };
    let wanted = format!("on {}", names.join(" "));
    let heads = file.heads(&[&format!("resource {}", r.name)]);
    heads.contains(&wanted).then_some(wanted)
}

/// Bridges that containers are plugged into, other nodes have, and this one has not; with the port
/// they have there.
fn bridges(trees: &BTreeMap<String, Tree>, of: &Tree) -> Vec<(String, String)> {
    let mut wanted = BTreeSet::new();
    for (_, line) in trees.values().flat_map(|t| &t.lxc).flat_map(Lines::each) {
        // The keys may still be wrong; what they mean is clear.
        if let Some((key, value)) = key_value(line)
            && key.ends_with(".link")
        {
            wanted.insert(value.to_owned());
        }
    }
    let has = |tree: &Tree, bridge: &str| {
        let lines = tree.interfaces.iter().flat_map(Lines::each);
        lines.into_iter().any(|(_, l)| is_stanza(l, bridge))
    };
    let port = |bridge: &str| {
        let tree = trees.values().find(|t| has(t, bridge))?;
        let lines = tree.interfaces.as_ref()?.each().map(|(_, l)| l);
        let inside = lines.skip_while(|l| !is_stanza(l, bridge)).skip(1);
        inside
            .take_while(|l| !l.starts_with("iface "))
            .find_map(|l| l.strip_prefix("bridge_ports ").map(|p| p.trim().to_owned()))
    };
    let missing = wanted.into_iter().filter(|b| !has(of, b));
    missing.filter_map(|b| port(&b).map(|p| (b, p))).collect()
}

fn is_stanza(line: &str, interface: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("iface") && words.next() == Some(interface)
}

/// The interface that is the bridge's port elsewhere hands its address to the bridge.
fn interfaces(text: &str, bridges: &[(String, String)]) -> (String, Vec<String>) {
    let (mut text, mut what) = (text.to_owned(), Vec::new());
    for (bridge, port) in bridges {
        if !text.lines().any(|l| is_stanza(l.trim(), port)) {
            continue;
        }
        let mut lines = Vec::new();
        for line in text.split('\n') {
            let mut words: Vec<&str> = line.split_whitespace().collect();
            if is_stanza(line.trim(), port) {
                words[1] = bridge;
                lines.push(words.join(" "));
                lines.push(format!("\tbridge_ports {port}"));
            } else if matches!(words.first(), Some(&("auto" | "allow-hotplug"))) {
                let here = words.iter_mut().skip(1).filter(|w| *w == port);
                here.for_each(|w| *w = bridge);
                lines.push(words.join(" "));
            } else {
                lines.push(line.to_owned());
            }
        }
        text = lines.join("\n");
        what.push(format!(
            "{port} is a port of {bridge}, which has its address now"
        ));
    }
    (text, what)
}

fn fstab(line: &str) -> Option<(String, String)> {
    let mut words = line.split_whitespace();
    let device = words.next().filter(|d| d.starts_with("/dev/drbd"))?;
    let automatic = words
        .nth(2)
        .is_none_or(|o| !o.split(',').any(|o| o == "noauto"));
    automatic.then(|| {
        (
            format!("# {line}"),
            format!("{device} is not mounted at boot"),
        )
    })
}

fn modprobe(line: &str) -> Option<(String, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let drbd = matches!(words[..], ["options", "drbd", ..]);
    let off = ["disabled", "/bin/true", "/usr/bin/true"];
    let is_off = |w: &str| {
        w.strip_prefix("usermode_helper=")
            .is_some_and(|h| off.contains(&h))
    };
    if !drbd || !words.iter().any(|w| is_off(w)) {
        return None;
    }
    let left: Vec<&str> = words.into_iter().filter(|w| !is_off(w)).collect();
    let line = match left.len() {
        2 => format!("# {line}"),
        _ => left.join(" "),
    };
    Some((line, "handlers are run".into()))
}

fn lxc(line: &str) -> Option<(String, String)> {
    let (key, value) = key_value(line).filter(|_| !line.trim_start().starts_with('#'))?;
    if key == "lxc.start.auto" && value != "0" {
        return Some((
            format!("{key} = 0"),
            "the container is not started at boot".into(),
        ));
    }
    let remedy = unknown_key(key)?;
    let now = remedy
        .strip_prefix("write ")
        .filter(|k| k.starts_with("lxc.") && !k.contains(' '))?;
    Some((format!("{now} = {value}"), format!("{key} is now {now}")))
}
