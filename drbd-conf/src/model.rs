//! The configuration as it is written, before anything is inherited.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use crate::error::Problem;
use crate::name::Name;
use crate::schema::{Section, Unit};
use crate::source::{Location, Sources, Span};
use crate::{Diagnostic, Error};

/// A whole configuration: every file that was read.
#[derive(Debug)]
#[non_exhaustive]
pub struct Config {
    /// The `global` section.
    pub global: Global,
    /// What the `common` section gives to every resource.
    pub common: Sections,
    /// All resources, in the order of the files.
    pub resources: Vec<Resource>,
    pub(crate) shared: Arc<Shared>,
    /// What was noticed while reading, before its places are looked up.
    pub(crate) noticed: Vec<Problem>,
    pub(crate) warnings: OnceLock<Vec<Diagnostic>>,
}

/// The `global` section: settings of the tools, not of the driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Global {
    /// `usage-count`: `yes`, `no` or `ask`.
    pub usage_count: Option<String>,
    /// `minor-count`.
    pub minor_count: Option<u64>,
    /// `dialog-refresh`, seconds.
    pub dialog_refresh: Option<u64>,
    /// `disable-ip-verification`.
    pub disable_ip_verification: bool,
    /// `udev-always-use-vnr`.
    pub udev_always_use_vnr: bool,
    /// `cmd-timeout-short`, `-medium` and `-long`: seconds that drbdadm waits for other programs.
    pub cmd_timeouts: [Option<u32>; 3],
}

/// A value of an option, checked.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// `yes` or `no`.
    Flag(bool),
    /// A number in the unit of the option.
    Number {
        /// The number.
        value: u64,
        /// What it counts.
        unit: Unit,
    },
    /// One of the words the option takes.
    Word(&'static str),
    /// Any text.
    Text(Box<str>),
    /// `resync-after`: nothing (`-1`), a minor, or a resource with an optional volume.
    After(After),
}

/// What `resync-after` names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum After {
    /// Nothing: resync at once.
    Nothing,
    /// A minor number.
    Minor(u32),
    /// A volume of a resource; without a number its only one.
    Volume {
        /// The resource.
        resource: Box<str>,
        /// The volume.
        volume: Option<u32>,
    },
}

/// One option that is set somewhere.
#[derive(Clone)]
#[non_exhaustive]
pub struct Setting {
    /// The section it belongs to.
    pub section: Section,
    /// Its name today; an old name in the file was translated.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
    /// The value as it stands in the file, where `value` has something else.
    pub(crate) written: Written,
    pub(crate) span: Span,
}

/// A text that is mostly a short number, and then in no memory of its own.
pub(crate) type Written = SmallVec<[u8; 16]>;

impl Setting {
    /// Tells whether the value must not be shown.
    pub fn is_secret(&self) -> bool {
        self.name == "shared-secret"
    }

    /// Returns the value in the words of drbd.conf, as it was written.
    pub fn raw(&self) -> &str {
        match &self.value {
            Value::Flag(true) => "yes",
            Value::Flag(false) => "no",
            Value::Word(word) => word,
            Value::Text(text) => text,
            // It was made of a `str`.
            Value::Number { .. } | Value::After(_) => {
                std::str::from_utf8(&self.written).unwrap_or_default()
            }
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.is_secret() {
            "(not shown)"
        } else {
            self.raw()
        };
        write!(f, "{} {}", self.name, value)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Flag(b) => write!(f, "Flag({b})"),
            Value::Number { value, unit } => write!(f, "Number({value} {unit:?})"),
            Value::Word(w) => write!(f, "Word({w})"),
            // The one text that is a secret is not told apart here.
            Value::Text(_) => f.write_str("Text(…)"),
            Value::After(a) => write!(f, "{a:?}"),
        }
    }
}

/// The settings of one section, in the order in which they were found.
///
/// What is inherited as it is, is shared: a clone costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Settings(Option<Arc<Vec<Setting>>>);

impl Settings {
    /// All of them, also those that others with the same name follow.
    pub(crate) fn all(&self) -> &[Setting] {
        self.0.as_ref().map_or(&[], |all| &all[..])
    }

    pub(crate) fn push(&mut self, setting: Setting) {
        self.list(1).push(setting);
    }

    /// The list itself, with room for so many as are known to come.
    pub(crate) fn list(&mut self, room: usize) -> &mut Vec<Setting> {
        let list = Arc::make_mut(self.0.get_or_insert_default());
        if list.is_empty() {
            list.reserve_exact(room);
        }
        list
    }

    pub(crate) fn extend(&mut self, settings: impl IntoIterator<Item = Setting>) {
        settings.into_iter().for_each(|s| self.push(s));
    }

    /// Changes settings in place.
    pub(crate) fn change(&mut self) -> &mut [Setting] {
        match &mut self.0 {
            Some(all) => Arc::make_mut(all).as_mut_slice(),
            None => &mut [],
        }
    }

    /// Returns the setting of this name. If the name is set more than once, the last one counts.
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.all().iter().rev().find(|s| s.name == name)
    }

    /// Tells whether a flag is set to `yes`; `None` if it is not set.
    pub fn flag(&self, name: &str) -> Option<bool> {
        match self.get(name)?.value {
            Value::Flag(b) => Some(b),
            _ => None,
        }
    }

    /// Returns a number in the unit of its option.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)?.value {
            Value::Number { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Returns a word or text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.get(name)?.value {
            Value::Word(word) => Some(word),
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Goes through the settings, each name once, the one that counts.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        let all = self.all();
        all.iter()
            .enumerate()
            .filter(|(i, s)| !all[i + 1..].iter().any(|t| t.name == s.name))
            .map(|(_, s)| s)
    }

    /// Tells whether the same is set to the same, wherever that is written.
    pub(crate) fn same(&self, other: &Settings) -> bool {
        let all_in = |a: &Settings, b: &Settings| {
            a.iter()
                .all(|s| b.get(s.name).is_some_and(|t| t.value == s.value))
        };
        all_in(self, other) && all_in(other, self)
    }

    /// Tells whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Takes over what `from` sets and this does not.
    pub(crate) fn inherit(&mut self, from: &Settings) {
        if self.is_empty() {
            self.0.clone_from(&from.0);
            return;
        }
        for s in from.iter() {
            if self.get(s.name).is_none() {
                self.push(s.clone());
            }
        }
    }
}

/// The sections a resource, or `common`, has.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Sections {
    /// `options`.
    pub options: Settings,
    /// `disk`.
    pub disk: Settings,
    /// `net`.
    pub net: Settings,
    /// `startup`.
    pub startup: Settings,
    /// `handlers`.
    pub handlers: Settings,
    /// `proxy`.
    pub proxy: Settings,
    /// `proxy { plugin { } }`: its lines.
    pub proxy_plugins: Vec<String>,
    /// `startup { become-primary-on }`: host names, or `both`.
    pub become_primary_on: Vec<String>,
    /// `startup { stacked-timeouts }`.
    pub stacked_timeouts: bool,
    pub(crate) become_primary_at: Option<Span>,
}

impl Sections {
    pub(crate) fn get_mut(&mut self, section: Section) -> &mut Settings {
        match section {
            Section::Options => &mut self.options,
            Section::Disk => &mut self.disk,
            Section::Net => &mut self.net,
            Section::Startup => &mut self.startup,
            Section::Handlers => &mut self.handlers,
            Section::Proxy => &mut self.proxy,
        }
    }
}

/// A resource as it is written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Resource {
    /// Its name.
    pub name: Name,
    /// Settings for the whole resource; those of `common` included.
    pub sections: Sections,
    /// Hosts, in the order of the file.
    pub hosts: Vec<Host>,
    /// Connections that are written down (9). Empty: two hosts are connected to each other.
    pub connections: Vec<Connection>,
    /// `template-file`: what stood for `common`.
    pub template: Option<PathBuf>,
    pub(crate) span: Span,
    pub(crate) shared: Arc<Shared>,
}

/// What all resources share: the texts, and what they refer to in each other.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) sources: Sources,
    /// Volumes by the name of their resource, for `resync-after` and `stacked-on-top-of`. Empty
    /// where nothing refers to another resource.
    pub(crate) volumes: HashMap<Name, Vec<VolumeOn>>,
}

/// A volume on one of the hosts of its resource.
#[derive(Debug)]
pub(crate) struct VolumeOn {
    pub(crate) host: Name,
    pub(crate) volume: u32,
    pub(crate) minor: u32,
    pub(crate) device: Arc<Path>,
}

impl Resource {
    /// Returns where it starts.
    pub fn location(&self) -> Location {
        self.shared.sources.location(self.span)
    }

    /// The host a path's end means.
    pub(crate) fn host_of(&self, end: &PathEnd) -> Option<&Host> {
        self.hosts.iter().find(|h| match end.host.is_empty() {
            true => h.address == end.address,
            false => h.is_named(&end.host),
        })
    }

    /// Which hosts are connected, and by which connection if one is written down. Without any, all
    /// are; 8.4 has exactly two.
    pub(crate) fn connected(&self) -> Vec<(&Host, &Host, Option<&Connection>)> {
        let pair = |c: &'_ Connection| {
            let [a, b] = c.paths.first()?;
            Some((self.host_of(a)?, self.host_of(b)?))
        };
        if !self.connections.is_empty() {
            let all = self.connections.iter();
            return all
                .filter_map(|c| pair(c).map(|(a, b)| (a, b, Some(c))))
                .collect();
        }
        let hosts = self.hosts.iter().enumerate();
        let pairs = hosts.flat_map(|(i, a)| self.hosts[i + 1..].iter().map(move |b| (a, b, None)));
        pairs.collect()
    }

    /// `net` of a connection.
    pub(crate) fn net_of(&self, connection: Option<&Connection>) -> Settings {
        let mut net = connection.map(|c| c.net.clone()).unwrap_or_default();
        net.inherit(&self.sections.net);
        net
    }

    /// The device of the lower resource on its last host.
    pub(crate) fn lower_device(&self, lower: &str, volume: u32) -> Option<Arc<Path>> {
        let all = self.shared.volumes.get(lower)?;
        let last = all.iter().rev().find(|v| v.volume == volume)?;
        Some(last.device.clone())
    }
}

/// How a host of a resource is told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostName {
    /// `on NAME…`: the first name is its own, the others are those of nodes that share it.
    On(Arc<[Name]>),
    /// `floating ADDRESS`: whichever node has the address.
    Floating,
    /// `stacked-on-top-of RESOURCE`: whichever node is primary for the lower resource.
    StackedOnTopOf(Name),
}

/// One side of a resource.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Host {
    /// Who it is.
    pub name: HostName,
    /// `address`.
    pub address: Option<Address>,
    /// `node-id` (9). Where neither of two hosts has one, what `drbdadm` makes of their addresses.
    pub node_id: Option<u32>,
    /// Volumes in the order of their numbers; those of the resource included.
    pub volumes: Volumes,
    /// `options { }` of this host, which no version of `drbdadm` has ever used; nor does a view.
    pub options: Settings,
    /// The connection goes through this DRBD Proxy (8.4).
    pub proxy: Option<Box<Proxy>>,
    pub(crate) span: Span,
    /// The address as it is written, without port and brackets.
    pub(crate) address_at: Option<Span>,
    /// The hosts of the resource this one is stacked on.
    pub(crate) lower: Vec<Name>,
}

impl Host {
    /// Returns the names under which this host can be asked for. What is stacked has those of all
    /// hosts of the lower resource.
    pub fn names(&self) -> Vec<String> {
        self.shared_names().iter().map(|n| n.to_string()).collect()
    }

    /// The same, as they are kept.
    pub(crate) fn shared_names(&self) -> Arc<[Name]> {
        match &self.name {
            HostName::On(names) => Arc::clone(names),
            HostName::Floating => {
                let addresses = self.address.iter().map(|a| a.socket);
                let names = addresses.flat_map(|a| [a.to_string(), a.ip().to_string()]);
                names.map(Name::from).collect()
            }
            HostName::StackedOnTopOf(_) => self.lower.iter().cloned().collect(),
        }
    }

    /// Whether it is one of [`Host::names`].
    pub(crate) fn is_named(&self, name: &str) -> bool {
        match &self.name {
            HostName::On(names) => names.iter().any(|n| *n == name),
            HostName::StackedOnTopOf(_) => self.lower.iter().any(|n| *n == name),
            HostName::Floating => {
                self.connection_name() == name || self.names().iter().any(|n| n == name)
            }
        }
    }

    pub(crate) fn is_stacked(&self) -> bool {
        matches!(self.name, HostName::StackedOnTopOf(_))
    }

    /// The name the driver is told for a connection to it.
    pub(crate) fn connection_name(&self) -> Name {
        match (&self.name, &self.address) {
            (HostName::Floating, Some(a)) => match a.family {
                Family::Ipv6 => format!("ipv6 {}", a.host_and_port()).into(),
                _ => a.host_and_port().into(),
            },
            _ => match &*self.shared_names() {
                [one] => one.clone(),
                several => several.join("_").into(),
            },
        }
    }

    /// Returns the name for messages.
    pub(crate) fn shown(&self) -> String {
        match &self.name {
            HostName::On(names) => names.join(" "),
            HostName::Floating => self
                .address
                .as_ref()
                .map_or("floating".into(), |a| a.to_string()),
            HostName::StackedOnTopOf(r) => format!("stacked-on-top-of {r}"),
        }
    }
}

/// Volumes in the order of their numbers.
///
/// Hosts that say nothing of their own about them share those of the resource.
#[derive(Clone, Debug, Default)]
pub struct Volumes(Option<Arc<Vec<Volume>>>);

impl Volumes {
    /// The list itself.
    pub(crate) fn list(&mut self) -> &mut Vec<Volume> {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl Deref for Volumes {
    type Target = [Volume];
    fn deref(&self) -> &[Volume] {
        self.0.as_ref().map_or(&[], |all| &all[..])
    }
}

impl<'v> IntoIterator for &'v Volumes {
    type Item = &'v Volume;
    type IntoIter = std::slice::Iter<'v, Volume>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// A volume of a host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Volume {
    /// Its number.
    pub number: u32,
    /// The device: `/dev/drbdN`, or another name that starts with `/dev/drbd`.
    pub device: Option<Arc<Path>>,
    /// Its minor, as written or taken from the device's name.
    pub minor: Option<u32>,
    /// The backing disk; `None` for a diskless node (9).
    pub disk: Option<Arc<Path>>,
    /// `disk none` (9).
    pub diskless: bool,
    /// Where the metadata is.
    pub meta_disk: Option<MetaDisk>,
    /// `disk { }` of this volume.
    pub options: Settings,
    /// Written without `volume N { }`.
    pub(crate) implicit: bool,
    pub(crate) span: Span,
}

impl Volume {
    /// Its minor, and its device's name, which follows from it if it is not written.
    pub(crate) fn device_and_minor(&self) -> Option<(u32, Arc<Path>)> {
        let minor = self.minor?;
        let device = self.device.clone();
        let by_minor = || PathBuf::from(format!("/dev/drbd{minor}")).into();
        Some((minor, device.unwrap_or_else(by_minor)))
    }
}

/// Where the metadata of a volume is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetaDisk {
    /// At the end of the disk itself.
    Internal,
    /// On a device of its own, which it fills.
    Flexible(PathBuf),
    /// On a device of its own, in one of its slots of 128 MiB.
    Indexed(PathBuf, u32),
}

impl fmt::Display for MetaDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MetaDisk::Internal => f.write_str("internal"),
            MetaDisk::Flexible(path) => write!(f, "{}", path.display()),
            MetaDisk::Indexed(path, index) => write!(f, "{}[{index}]", path.display()),
        }
    }
}

/// Address family as it is written in front of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// IPv4; also if nothing is written.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Sockets Direct Protocol.
    Sdp,
    /// SuperSockets (formerly `sci`).
    Ssocks,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
            Family::Sdp => "sdp",
            Family::Ssocks => "ssocks",
        })
    }
}

/// An address and port. `Display` gives drbdsetup's form, `ipv4:10.0.0.1:7788`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Address {
    /// The family.
    pub family: Family,
    /// Address and port.
    pub socket: SocketAddr,
    /// Name of the interface of a link-local IPv6 address (`%eth0`).
    pub interface: Option<Box<str>>,
}

impl Address {
    /// `10.0.0.1:7788` or `[fd00::1%eth0]:7788`.
    pub(crate) fn host_and_port(&self) -> String {
        let text = self.to_string();
        text.split_once(':')
            .map_or(String::new(), |(_, rest)| rest.to_owned())
    }

    /// Tells whether the same address may stand on several nodes.
    pub(crate) fn is_local(&self) -> bool {
        match self.socket.ip() {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.interface, self.socket) {
            (Some(interface), SocketAddr::V6(a)) => {
                write!(f, "{}:[{}%{interface}]:{}", self.family, a.ip(), a.port())
            }
            (_, socket) => write!(f, "{}:{socket}", self.family),
        }
    }
}

/// DRBD Proxy on one side of a connection: where DRBD connects to, and where the other proxy does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Proxy {
    /// The hosts it runs on.
    pub hosts: Vec<String>,
    /// Where DRBD connects to.
    pub inside: Address,
    /// Where the proxy of the other side connects to.
    pub outside: Address,
    /// Settings, with those of the resource.
    pub options: Settings,
    /// Lines of `plugin { }`.
    pub plugins: Vec<String>,
    pub(crate) outside_at: Span,
}

/// A connection that is written down (9), or one out of a mesh.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connection {
    /// The two ends; one path each. A mesh has one connection for each pair.
    pub paths: Vec<[PathEnd; 2]>,
    /// `net { }` of this connection.
    pub net: Settings,
    /// `disk { }` of this connection: settings of its peer devices.
    pub disk: Settings,
    /// `volume N { disk { } }` of this connection.
    pub volumes: Vec<(u32, Settings)>,
    /// Out of a mesh.
    pub(crate) implicit: bool,
    /// Written without `path { }`.
    pub(crate) one_path: bool,
}

/// One end of a path.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PathEnd {
    /// The host, as named.
    pub host: String,
    /// The address, if it is not the one of the host's section.
    pub address: Option<Address>,
    /// The port, if it is not the one of the host's section.
    pub port: Option<u16>,
    /// The path goes through this DRBD Proxy.
    pub proxy: Option<Box<Proxy>>,
    /// `via outside-address`: where the other side connects to.
    pub outside_address: Option<Address>,
    pub(crate) span: Span,
}

impl PathEnd {
    /// Where it is reached.
    pub(crate) fn at(&self, host: &Host) -> Option<Address> {
        let mut address = self.address.clone().or_else(|| host.address.clone())?;
        if let Some(port) = self.port {
            address.socket.set_port(port);
        }
        Some(address)
    }
}

impl Config {
    /// Finds a resource by its name.
    pub fn resource(&self, name: &str) -> Option<&Resource> {
        self.resources.iter().find(|r| r.name == name)
    }

    /// Returns what is worth knowing although the configuration can be used. It is looked for when
    /// this is first called.
    pub fn warnings(&self) -> &[Diagnostic] {
        self.warnings.get_or_init(|| {
            let lints = crate::lint::resources(&self.resources);
            let all = self.noticed.iter().cloned().chain(lints);
            all.map(|p| p.locate(&self.shared.sources)).collect()
        })
    }

    /// Returns the files that were read, in the order in which they were opened.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shared.sources.names()
    }

    /// Returns the place of a setting.
    pub fn location(&self, setting: &Setting) -> Location {
        self.shared.sources.location(setting.span)
    }

    /// Returns where a resource says `become-primary-on`, or `common` does for it.
    pub fn become_primary_location(&self, resource: &Resource) -> Option<Location> {
        let at = resource.sections.become_primary_at?;
        Some(self.shared.sources.location(at))
    }

    /// Returns the place of a host's section.
    pub fn host_location(&self, host: &Host) -> Location {
        self.shared.sources.location(host.span)
    }

    /// Returns the place of a volume, or of the statement that implies it.
    pub fn volume_location(&self, volume: &Volume) -> Location {
        self.shared.sources.location(volume.span)
    }

    /// Finds a resource by its name, or says which there are.
    ///
    /// # Errors
    /// `Invalid` if there is none of that name.
    pub fn require(&self, name: &str) -> Result<&Resource, Error> {
        self.resource(name).ok_or_else(|| {
            let names: Vec<_> = self.resources.iter().map(|r| r.name.as_str()).collect();
            let there = if names.is_empty() {
                "none".into()
            } else {
                names.join(", ")
            };
            Error::plain(
                crate::ErrorKind::Invalid,
                "unknown-resource",
                format!("no resource \"{name}\"; the configuration has: {there}"),
                None,
            )
        })
    }
}
