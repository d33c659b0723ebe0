//! Resources, hosts and volumes.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::words::{Checked, Seen, Words, address, address_at, bad_value, integer32, unknown};
use super::{Builder, Draft};
use crate::error::Problem;
use crate::model::{Host, HostName, MetaDisk, Resource, Sections, Settings, Volume, Volumes};
use crate::name::Name;
use crate::schema::Section;
use crate::source::Span;
use crate::syntax::{Body, Kind, Statement, Token};

impl Builder {
    pub(super) fn resource(&mut self, st: &Statement<'_>) -> Checked<()> {
        let mut w = Words::of(st);
        let name = w.expect("the name of the resource")?;
        let block = w.block()?;
        check_resource_name(name)?;
        let span = st.span().to(name.span);
        let shared_name = Name::from(&*name.text);
        if let Some(first) = self.names.insert(shared_name.clone(), span) {
            let at = self.sources.location(first);
            let text = format!("resource \"{}\" is defined twice", name.text);
            return Err(Problem::error(name.span, "duplicate-resource", text)
                .remedy(format!("the first one is at {at}")));
        }
        let mut resource = Resource {
            name: shared_name,
            sections: Sections::default(),
            hosts: Vec::new(),
            connections: Vec::new(),
            template: None,
            span,
            shared: Arc::clone(&self.shared),
        };
        let mut draft = Draft {
            volumes: Volumes::default(),
            meshes: Vec::new(),
            template: None,
            whole: true,
        };
        let mut seen = Seen::default();
        for st in block {
            let handled = self.section(st, &mut resource.sections, &mut seen);
            let result = match handled {
                Some(result) => result,
                None => self.resource_item(st, &mut resource, &mut draft, &mut seen),
            };
            self.check(result);
        }
        self.resources.push(resource);
        self.drafts.push(draft);
        Ok(())
    }

    pub(super) fn resource_item(
        &mut self,
        st: &Statement<'_>,
        resource: &mut Resource,
        draft: &mut Draft,
        seen: &mut Seen,
    ) -> Checked<()> {
        match st.keyword() {
            "skip" => Ok(()),
            "on" | "floating" | "stacked-on-top-of" => self.host(st, resource, draft),
            "volume" => {
                let volume = self.volume(st)?;
                add_volume(draft.volumes.list(), volume)
            }
            "device" | "disk" | "meta-disk" | "flexible-meta-disk" => {
                let what = if st.keyword() == "flexible-meta-disk" {
                    "meta-disk"
                } else {
                    keyword_of_volume(st.keyword())
                };
                seen.once(what, st.span())?;
                let volume = implicit_volume(draft.volumes.list(), st.span())?;
                self.volume_item(st, volume)
            }
            "connection" => {
                let connection = self.connection(st)?;
                resource.connections.push(connection);
                Ok(())
            }
            "connection-mesh" => {
                let mesh = self.mesh(st)?;
                draft.meshes.push(mesh);
                Ok(())
            }
            "template-file" => {
                let mut w = Words::of(st);
                let name = w.expect("a file name")?;
                w.end()?;
                seen.once("template-file", st.span())?;
                let path = self.directory(name.span.file).join(&*name.text);
                draft.template = Some(self.template(&path, name.span)?);
                resource.template = Some(PathBuf::from(&*name.text));
                Ok(())
            }
            "ignore-on" => {
                let mut w = Words::of(st);
                w.expect("a host name")?;
                w.end()?;
                let text = "\"ignore-on\" has no meaning any more";
                self.warnings.push(
                    Problem::warning(st.span(), "deprecated-option", text).remedy("remove it"),
                );
                Ok(())
            }
            _ => Err(unknown(
                st,
                "protocol, on, disk, net, startup, handlers, options, volume or connection",
            )),
        }
    }

    pub(super) fn host(
        &mut self,
        st: &Statement<'_>,
        resource: &mut Resource,
        draft: &mut Draft,
    ) -> Checked<()> {
        let mut w = Words::of(st);
        let mut host = Host {
            name: HostName::Floating,
            address: None,
            node_id: None,
            volumes: Volumes::default(),
            options: Settings::default(),
            proxy: None,
            span: st.span(),
            address_at: None,
            lower: Vec::new(),
        };
        let block = match st.keyword() {
            "floating" => {
                let (address, at) = address_at(&mut w)?;
                (host.address, host.address_at) = (Some(address), Some(at));
                if w.peek().is_none() && matches!(st.body, Body::None) {
                    &[][..]
                } else {
                    w.block()?
                }
            }
            "stacked-on-top-of" => {
                host.name = HostName::StackedOnTopOf(Name::from(&*w.expect("a resource")?.text));
                self.refers = true;
                w.block()?
            }
            _ => {
                let mut names = self.host_named(&w.expect("a host name")?.text);
                while w.peek().is_some_and(|t| t.kind != Kind::Punctuation) {
                    let more = self.host_named(&w.expect("a host name")?.text);
                    names = names.iter().chain(&*more).cloned().collect();
                }
                host.name = HostName::On(names);
                w.block()?
            }
        };
        let hosts = &resource.hosts;
        let taken = match &host.name {
            HostName::StackedOnTopOf(lower) => hosts
                .iter()
                .any(|h| h.name == host.name)
                .then(|| lower.clone()),
            _ => {
                let names = host.shared_names();
                let mut taken = names.iter().filter(|n| hosts.iter().any(|h| h.is_named(n)));
                taken.next().cloned()
            }
        };
        if let Some(name) = taken {
            let text = format!("a second section for host \"{name}\"");
            return Err(Problem::error(st.span(), "duplicate-host", text));
        }
        let before = self.errors.len();
        let mut seen = Seen::default();
        for st in block {
            let result = self.host_item(st, &mut host, &mut seen);
            self.check(result);
        }
        // What is missing is only said if nothing else is wrong with the section.
        draft.whole &= self.errors.len() == before;
        if resource.hosts.is_empty() {
            resource.hosts.reserve_exact(2);
        }
        resource.hosts.push(host);
        Ok(())
    }

    /// The name of a host that has only this one.
    fn host_named(&mut self, name: &str) -> Arc<[Name]> {
        if let Some(known) = self.hosts.get(name) {
            return Arc::clone(known);
        }
        let name = Name::from(name);
        let names: Arc<[Name]> = Arc::from([name.clone()]);
        self.hosts.insert(name, Arc::clone(&names));
        names
    }

    pub(super) fn host_item(
        &mut self,
        st: &Statement<'_>,
        host: &mut Host,
        seen: &mut Seen,
    ) -> Checked<()> {
        let mut w = Words::of(st);
        match st.keyword() {
            "skip" => Ok(()),
            "address" => {
                seen.once("address", st.span())?;
                if host.name == HostName::Floating {
                    let text = "a floating host has its address in front of the block";
                    return Err(Problem::error(st.span(), "syntax", text));
                }
                let (address, at) = address_at(&mut w)?;
                (host.address, host.address_at) = (Some(address), Some(at));
                w.end()
            }
            "alternate-link-address" => {
                address(&mut w)?;
                w.end()
            }
            "node-id" => {
                seen.once("node-id", st.span())?;
                host.node_id = Some(integer32(w.expect("a node id")?, "node-id", 31)?);
                w.end()
            }
            "proxy" => {
                host.proxy = Some(Box::new(self.proxy(st)?));
                Ok(())
            }
            "options" => {
                let mut sections = Sections::default();
                self.settings(Section::Options, w.block()?, &mut sections);
                host.options = sections.options;
                let text = "options of one host are taken by drbdadm and never used";
                self.warnings.push(
                    Problem::warning(st.span(), "host-options", text)
                        .remedy("write them into the resource"),
                );
                Ok(())
            }
            "volume" => {
                let volume = self.volume(st)?;
                add_volume(host.volumes.list(), volume)
            }
            "device" | "disk" | "meta-disk" | "flexible-meta-disk" => {
                let what = match st.body {
                    Body::Block(_) => "disk {}",
                    Body::None => keyword_of_volume(st.keyword()),
                };
                seen.once(what, st.span())?;
                let volume = implicit_volume(host.volumes.list(), st.span())?;
                self.volume_item(st, volume)
            }
            _ => Err(unknown(
                st,
                "device, disk, meta-disk, address, volume, node-id or options",
            )),
        }
    }

    pub(super) fn volume(&mut self, st: &Statement<'_>) -> Checked<Volume> {
        let mut w = Words::of(st);
        let number = integer32(w.expect("a volume number")?, "volume", 65535)?;
        let block = w.block()?;
        let mut volume = empty_volume(number, false, st.span());
        let mut seen = Seen::default();
        for st in block {
            let result = match st.keyword() {
                "skip" => Ok(()),
                "device" | "disk" | "meta-disk" | "flexible-meta-disk" => {
                    let what = match st.body {
                        Body::Block(_) => "disk {}",
                        Body::None => keyword_of_volume(st.keyword()),
                    };
                    seen.once(what, st.span())
                        .and_then(|()| self.volume_item(st, &mut volume))
                }
                "tiebreaker" => {
                    let mut w = Words::of(st);
                    w.expect("\"yes\" or \"no\"").and_then(|_| w.end())
                }
                _ => Err(unknown(st, "device, disk or meta-disk")),
            };
            self.check(result);
        }
        Ok(volume)
    }

    /// `device`, `disk` or `meta-disk` of a volume.
    pub(super) fn volume_item(&mut self, st: &Statement<'_>, volume: &mut Volume) -> Checked<()> {
        let mut w = Words::of(st);
        match (st.keyword(), &st.body) {
            ("disk", Body::Block(block)) if st.words.len() == 1 => {
                let mut sections = Sections::default();
                self.settings(Section::Disk, block, &mut sections);
                volume.options.extend(sections.disk.all().iter().cloned());
                Ok(())
            }
            ("disk", _) => {
                let disk = w.expect("a device or \"{\"")?;
                w.end()?;
                volume.diskless = disk.text == "none";
                volume.disk = (!volume.diskless).then(|| path(&disk.text));
                Ok(())
            }
            ("device", _) => device(w, volume),
            (keyword, _) => {
                let disk = w.expect("\"internal\" or a device")?;
                volume.meta_disk = Some(if disk.text == "internal" {
                    MetaDisk::Internal
                } else if keyword == "meta-disk" && w.peek().is_some() {
                    w.punctuation("[")?;
                    let index = integer32(w.expect("an index")?, "index", 255)?;
                    w.punctuation("]")?;
                    MetaDisk::Indexed(PathBuf::from(&*disk.text), index)
                } else {
                    MetaDisk::Flexible(PathBuf::from(&*disk.text))
                });
                w.end()
            }
        }
    }
}

fn check_resource_name(name: &Token<'_>) -> Checked<()> {
    let text = &*name.text;
    let why = if text.is_empty() {
        "the name of a resource cannot be empty"
    } else if text.len() > 127 {
        "the name of a resource has at most 127 bytes"
    } else if text == "all" {
        "\"all\" means every resource and cannot be the name of one"
    } else if text == "." || text == ".." || text.contains(['/', '*', '"', '\\']) {
        "the name of a resource cannot contain / * \" or \\"
    } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "the name of a resource cannot contain white space"
    } else {
        return Ok(());
    };
    Err(Problem::error(name.span, "bad-name", why))
}

fn path(text: &str) -> Arc<Path> {
    Arc::from(Path::new(text))
}

/// `device /dev/drbdN [minor N];` or `device minor N;`
fn device(mut w: Words<'_, '_>, volume: &mut Volume) -> Checked<()> {
    if !w.take("minor") {
        let name = w.expect("/dev/drbdN or \"minor\"")?;
        let device = match name.text.strip_prefix("/dev/") {
            Some(_) => Cow::Borrowed(&*name.text),
            None => Cow::Owned(format!("/dev/{}", name.text)),
        };
        let Some(rest) = device.strip_prefix("/dev/drbd") else {
            return Err(bad_value(
                name,
                "bad-device",
                "a device name that starts with /dev/drbd",
            ));
        };
        let of_name = rest
            .parse::<u32>()
            .ok()
            .filter(|_| rest.bytes().all(|b| b.is_ascii_digit()));
        volume.device = Some(path(&device));
        if !w.take("minor") {
            let Some(minor) = of_name else {
                let text = format!("{device} has no minor number in its name");
                return Err(Problem::error(name.span, "bad-device", text)
                    .remedy(format!("device {device} minor 0;")));
            };
            volume.minor = Some(minor);
            return w.end();
        }
        let number = w.expect("a minor")?;
        let minor = integer32(number, "minor", MINOR_MAX)?;
        if of_name.map_or(!rest.starts_with('_'), |n| n != minor) {
            let text = format!("{device} cannot have minor {minor}");
            return Err(
                Problem::error(number.span, "bad-device", text).remedy(format!(
                    "device /dev/drbd{minor} minor {minor}; or a name that starts with /dev/drbd_"
                )),
            );
        }
        volume.minor = Some(minor);
        return w.end();
    }
    volume.minor = Some(integer32(w.expect("a minor")?, "minor", MINOR_MAX)?);
    w.end()
}

/// Most minors a device number has room for (20 bits).
const MINOR_MAX: u32 = (1 << 20) - 1;

fn keyword_of_volume(keyword: &str) -> &'static str {
    match keyword {
        "device" => "device",
        "disk" => "disk",
        _ => "meta-disk",
    }
}

pub(super) fn empty_volume(number: u32, implicit: bool, span: Span) -> Volume {
    Volume {
        number,
        device: None,
        minor: None,
        disk: None,
        diskless: false,
        meta_disk: None,
        options: Settings::default(),
        implicit,
        span,
    }
}

pub(super) const MIXED: &str = "\"volume\" blocks and device, disk or meta-disk outside of them";

fn implicit_volume(volumes: &mut Vec<Volume>, span: Span) -> Checked<&mut Volume> {
    if volumes.is_empty() {
        volumes.reserve_exact(1);
        volumes.push(empty_volume(0, true, span));
    }
    match &mut volumes[..] {
        [volume] if volume.implicit => Ok(volume),
        _ => Err(Problem::error(
            span,
            "mixed-volumes",
            format!("both {MIXED}"),
        )),
    }
}

fn add_volume(volumes: &mut Vec<Volume>, volume: Volume) -> Checked<()> {
    if volumes.iter().any(|v| v.implicit) {
        return Err(Problem::error(
            volume.span,
            "mixed-volumes",
            format!("both {MIXED}"),
        ));
    }
    match volumes.binary_search_by_key(&volume.number, |v| v.number) {
        Ok(_) => {
            let text = format!("a second volume {}", volume.number);
            Err(Problem::error(volume.span, "duplicate-statement", text))
        }
        Err(at) => {
            if volumes.is_empty() {
                volumes.reserve_exact(1);
            }
            volumes.insert(at, volume);
            Ok(())
        }
    }
}
