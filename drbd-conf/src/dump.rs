//! The resolved view as text: what `drbdadm --verbose dump` and `dump-xml` print.

use std::fmt::Write as _;
use std::path::Path;

use crate::edit::quoted;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Address, Config, Connection, Family, Global, Host, HostName, MetaDisk, PathEnd, Proxy,
    Resource, Sections, Settings, Volume,
};
use crate::name::Name;

impl Config {
    /// Returns the whole configuration in the form of DRBD 9, with everything that is inherited
    /// written where it applies: what `drbdadm --verbose dump` prints, without its comments.
    ///
    /// It can be read again, by [`Config::parse`] and by `drbdadm`, and means the same. What a template
    /// said is in its resource; then there is no `common` section, which does not hold for all.
    /// Secrets are in it.
    pub fn dump(&self) -> String {
        self.text(Form::V9)
    }

    /// Returns the same as XML, as `drbdadm dump-xml` prints it after inheritance (with `-d`). Files
    /// are named as they were given to [`Config::load`]. Secrets are in it.
    pub fn dump_xml(&self) -> String {
        self.xml(Form::V9)
    }

    /// Returns the whole configuration in the form of DRBD 8.4: what `drbdadm --verbose dump` prints
    /// where that version runs, which is the work of `drbdadm-84`.
    ///
    /// As [`Config::dump`] it can be read again and means the same.
    ///
    /// # Errors
    /// `Unsupported` if a resource has what 8.4 has no words for: written connections, or volumes
    /// without a disk.
    pub fn dump_84(&self) -> Result<String> {
        self.fits_84()?;
        Ok(self.text(Form::V84))
    }

    /// Returns the same as XML, as `drbdadm-84 -d dump-xml` prints it.
    ///
    /// # Errors
    /// As [`Config::dump_84`].
    pub fn dump_xml_84(&self) -> Result<String> {
        self.fits_84()?;
        Ok(self.xml(Form::V84))
    }

    fn fits_84(&self) -> Result<()> {
        for r in &self.resources {
            let diskless = r.hosts.iter().flat_map(|h| &h.volumes).any(|v| v.diskless);
            let what = match (r.connections.is_empty(), diskless) {
                (false, _) => "connections",
                (_, true) => "a volume without a disk",
                _ => continue,
            };
            let text = format!("resource {} has {what}, which 8.4 does not know", r.name);
            return Err(Error::plain(
                ErrorKind::Unsupported,
                "unsupported-option",
                text,
                None,
            ));
        }
        Ok(())
    }

    fn text(&self, form: Form) -> String {
        let mut out = Text::default();
        global(&self.global, form, &mut out);
        if self.resources.iter().all(|r| r.template.is_none()) {
            out.block("common", |out| sections(&self.common, form, out));
        }
        for r in &self.resources {
            out.block(&format!("resource {}", quoted(&r.name)), |out| {
                r.hosts.iter().for_each(|h| host(r, h, form, out));
                for (a, b, connection) in form.connected(r) {
                    // Written down, drbdadm would take the end that is stacked for another node's.
                    if connection.is_some() || !(a.is_stacked() || b.is_stacked()) {
                        self::connection(r, a, b, connection, out);
                    }
                }
                sections(&r.sections, form, out);
            });
        }
        out.text
    }

    fn xml(&self, form: Form) -> String {
        let mut out = Xml::default();
        let file = self.files().next().unwrap_or("".as_ref());
        out.element("config", &[("file", &file.to_string_lossy())], |out| {
            global_xml(&self.global, out);
            if !is_empty(&self.common, form) {
                out.element("common", &[], |out| sections_xml(&self.common, form, out));
            }
            for r in &self.resources {
                let at = r.location();
                let at = format!("{}:{}", at.file.display(), at.line);
                let attributes = [("name", r.name.as_str()), ("conf-file-line", &at)];
                out.element("resource", &attributes, |out| {
                    r.hosts.iter().for_each(|h| host_xml(r, h, form, out));
                    for (a, b, connection) in form.connected(r) {
                        connection_xml(r, a, b, connection, out);
                    }
                    sections_xml(&r.sections, form, out);
                });
            }
        });
        out.text
    }
}

/// Whose words are used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Two hosts that are connected, each with its proxy.
    V84,
    /// Node ids, and connections that are written down.
    V9,
}

impl Form {
    fn connected(self, r: &Resource) -> Vec<(&Host, &Host, Option<&Connection>)> {
        match self {
            Form::V84 => Vec::new(),
            Form::V9 => r.connected(),
        }
    }
}

/// Blocks and statements, indented.
#[derive(Default)]
struct Text {
    text: String,
    depth: usize,
}

impl Text {
    fn line(&mut self, line: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "{:1$}{line}", "", 4 * self.depth);
    }

    /// A block; nothing if it would be empty.
    fn block(&mut self, head: &str, inside: impl FnOnce(&mut Text)) {
        let start = self.text.len();
        self.line(&format!("{head} {{"));
        let inner = self.text.len();
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        match self.text.len() == inner {
            true => self.text.truncate(start),
            false => self.line("}"),
        }
    }

    fn setting(&mut self, name: &str, value: &str) {
        self.line(&format!("{name} {};", quoted(value)));
    }

    fn options<'s>(&mut self, section: &str, settings: impl Iterator<Item = &'s crate::Setting>) {
        self.block(section, |out| {
            settings.for_each(|s| out.setting(s.name, s.raw()))
        });
    }
}

fn global(g: &Global, form: Form, out: &mut Text) {
    out.block("global", |out| {
        if g.disable_ip_verification {
            out.line("disable-ip-verification;");
        }
        if let Some(count) = g.minor_count {
            out.line(&format!("minor-count {count};"));
        }
        if let Some(seconds) = g.dialog_refresh.filter(|n| *n != 1) {
            out.line(&format!("dialog-refresh {seconds};"));
        }
        if let Some(usage) = g.usage_count.as_ref().filter(|u| *u != "ask") {
            out.line(&format!("usage-count {usage};"));
        }
        // drbdadm of 9 has them and does not show them.
        let lengths = [("short", 5), ("medium", 121), ("long", 600)].into_iter();
        let timeouts = lengths.zip(g.cmd_timeouts).filter(|_| form == Form::V84);
        for ((which, default), seconds) in timeouts {
            if let Some(seconds) = seconds.filter(|s| *s != default) {
                out.line(&format!("cmd-timeout-{which} {seconds};"));
            }
        }
    });
}

fn sections(s: &Sections, form: Form, out: &mut Text) {
    out.options("options", s.options.iter());
    out.options("net", s.net.iter());
    out.options("disk", s.disk.iter());
    out.block("startup", |out| {
        s.startup.iter().for_each(|s| out.setting(s.name, s.raw()));
        if s.stacked_timeouts {
            out.line("stacked-timeouts;");
        }
        if form == Form::V84 && !s.become_primary_on.is_empty() {
            let names: Vec<_> = s.become_primary_on.iter().map(|n| quoted(n)).collect();
            out.line(&format!("become-primary-on {};", names.join(" ")));
        }
    });
    out.block("proxy", |out| {
        proxy_options(&s.proxy, &s.proxy_plugins, out)
    });
    out.options("handlers", s.handlers.iter());
}

fn proxy_options(options: &Settings, plugins: &[String], out: &mut Text) {
    options.iter().for_each(|s| out.setting(s.name, s.raw()));
    out.block("plugin", |out| {
        plugins
            .iter()
            .for_each(|line| out.line(&format!("{line};")));
    });
}

/// `ipv6 [fd00::1]:7788`
fn address(a: &Address) -> String {
    format!("{} {}", a.family, a.host_and_port())
}

fn host(r: &Resource, h: &Host, form: Form, out: &mut Text) {
    let head = match &h.name {
        HostName::On(names) => {
            let names: Vec<_> = names.iter().map(|n| quoted(n)).collect();
            format!("on {}", names.join(" "))
        }
        HostName::Floating => {
            let at = h.address.as_ref().map(address).unwrap_or_default();
            format!("floating {at}")
        }
        HostName::StackedOnTopOf(lower) => format!("stacked-on-top-of {}", quoted(lower)),
    };
    out.block(&head, |out| {
        if let Some(id) = h.node_id.filter(|_| form == Form::V9) {
            out.line(&format!("node-id {id};"));
        }
        out.options("options", h.options.iter());
        for v in &h.volumes {
            // In a host itself there is no place for both a disk and its settings. They are those of
            // the resource, where they are written.
            if v.implicit && v.options.same(&r.sections.disk) {
                volume(h, v, out);
            } else {
                out.block(&format!("volume {}", v.number), |out| {
                    // Nor is there one in 8.4 where the disk is another resource.
                    if form == Form::V9 || !h.is_stacked() {
                        out.options("disk", v.options.iter());
                    }
                    volume(h, v, out);
                });
            }
        }
        if let (Some(a), false) = (&h.address, h.name == HostName::Floating) {
            out.line(&format!("address {};", address(a)));
        }
        if let (Some(p), Form::V84) = (&h.proxy, form) {
            proxy("", p, out);
        }
    });
}

fn volume(h: &Host, v: &Volume, out: &mut Text) {
    if let Some((minor, device)) = v.device_and_minor() {
        let device = quoted(&device.to_string_lossy());
        out.line(&format!("device {device} minor {minor};"));
    }
    if h.is_stacked() {
        return;
    }
    match &v.disk {
        Some(disk) => out.setting("disk", &disk.to_string_lossy()),
        None => out.line("disk none;"),
    }
    match &v.meta_disk {
        Some(MetaDisk::Indexed(path, index)) => {
            let path = quoted(&path.to_string_lossy());
            out.line(&format!("meta-disk {path} [{index}];"));
        }
        Some(MetaDisk::Flexible(path)) => out.setting("meta-disk", &path.to_string_lossy()),
        Some(MetaDisk::Internal) => out.line("meta-disk internal;"),
        None => {}
    }
}

/// A connection as it is dumped: its ends, and what was written about it, if anything was.
struct Ends<'r> {
    address: Option<Address>,
    /// Of a path that is written down.
    end: Option<&'r PathEnd>,
    host: &'r Host,
}

impl Ends<'_> {
    /// The name the end has; `None` if it is told by its address.
    fn name(&self) -> Option<Name> {
        match self.end {
            Some(end) if !end.host.is_empty() => Some(end.host.as_str().into()),
            Some(_) => None,
            None if self.host.is_stacked() => None,
            None => match &self.host.name {
                HostName::On(names) => names.first().cloned(),
                _ => Some(self.host.connection_name()),
            },
        }
    }

    fn proxy(&self) -> Option<&Proxy> {
        match self.end {
            Some(end) => end.proxy.as_deref(),
            None => self.host.proxy.as_deref(),
        }
    }
}

fn paths<'r>(
    r: &'r Resource,
    a: &'r Host,
    b: &'r Host,
    connection: Option<&'r Connection>,
) -> Vec<[Ends<'r>; 2]> {
    let Some(c) = connection else {
        let end = |host: &'r Host| Ends {
            address: host.address.clone(),
            end: None,
            host,
        };
        return vec![[end(a), end(b)]];
    };
    let end = |end: &'r PathEnd| {
        let host = r.host_of(end)?;
        Some(Ends {
            address: end.at(host),
            end: Some(end),
            host,
        })
    };
    let path = |[x, y]: &'r [PathEnd; 2]| Some([end(x)?, end(y)?]);
    c.paths.iter().filter_map(path).collect()
}

fn connection(r: &Resource, a: &Host, b: &Host, c: Option<&Connection>, out: &mut Text) {
    out.block("connection", |out| {
        for path in paths(r, a, b, c) {
            out.block("path", |out| {
                path.iter().for_each(|end| self::end(end, out))
            });
        }
        out.options("net", r.net_of(c).iter());
        if let Some(c) = c {
            out.options("disk", c.disk.iter());
        }
        for (volume, settings) in r.peer_devices(a, b, c) {
            out.block(&format!("volume {volume}"), |out| {
                out.options("disk", settings.iter());
            });
        }
    });
}

fn end(end: &Ends<'_>, out: &mut Text) {
    let at = end.address.as_ref().map(address).unwrap_or_default();
    let mut line = match end.name() {
        Some(name) => format!("host {} address {at}", quoted(&name)),
        None => format!("address {at}"),
    };
    if let Some(outside) = end.end.and_then(|e| e.outside_address.as_ref()) {
        let _ = write!(line, " via outside-address {}", address(outside));
    }
    let Some(proxy) = end.proxy() else {
        return out.line(&format!("{line};"));
    };
    self::proxy(&format!("{line} via "), proxy, out);
}

fn proxy(before: &str, proxy: &Proxy, out: &mut Text) {
    let hosts: Vec<_> = proxy.hosts.iter().map(|h| quoted(h)).collect();
    out.block(&format!("{before}proxy on {}", hosts.join(" ")), |out| {
        out.line(&format!("inside {};", address(&proxy.inside)));
        out.line(&format!("outside {};", address(&proxy.outside)));
        out.block("options", |out| {
            proxy_options(&proxy.options, &proxy.plugins, out)
        });
    });
}

/// Elements, indented.
#[derive(Default)]
struct Xml {
    text: String,
    depth: usize,
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

impl Xml {
    /// The start of a tag, without its end.
    fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        let _ = write!(self.text, "{:1$}<{name}", "", 4 * self.depth);
        for (key, value) in attributes {
            let _ = write!(self.text, " {key}=\"{}\"", escaped(value));
        }
    }

    fn empty(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.open(name, attributes);
        self.text.push_str("/>\n");
    }

    fn text(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.open(name, attributes);
        let _ = writeln!(self.text, ">{}</{name}>", escaped(text));
    }

    fn element(&mut self, name: &str, attributes: &[(&str, &str)], inside: impl FnOnce(&mut Xml)) {
        self.open(name, attributes);
        self.text.push_str(">\n");
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        let _ = writeln!(self.text, "{:1$}</{name}>", "", 4 * self.depth);
    }

    /// A section with its settings, and options that are none; those in a section of their own if it
    /// has a name.
    fn section(&mut self, name: &str, settings: &Settings, more: &[Line<'_>], sub: Option<&str>) {
        if settings.is_empty() && more.is_empty() {
            return;
        }
        let lines = |out: &mut Xml| {
            for (name, value) in more {
                let value = value.as_deref().map(|v| ("value", v));
                let all: Vec<_> = std::iter::once(("name", *name)).chain(value).collect();
                out.empty("option", &all);
            }
        };
        self.element("section", &[("name", name)], |out| {
            for s in settings.iter() {
                out.empty("option", &[("name", s.name), ("value", s.raw())]);
            }
            match sub {
                Some(sub) if !more.is_empty() => out.element("section", &[("name", sub)], lines),
                _ => lines(out),
            }
        });
    }

    /// Options of a proxy, and its plugins.
    fn proxy(&mut self, name: &str, options: &Settings, plugins: &[String]) {
        let lines: Vec<_> = plugins.iter().map(|line| (line.as_str(), None)).collect();
        self.section(name, options, &lines, Some("plugin"));
    }
}

/// An option by its name, and its value if it has one.
type Line<'l> = (&'l str, Option<String>);

fn is_empty(s: &Sections, form: Form) -> bool {
    let all = [
        &s.options,
        &s.disk,
        &s.net,
        &s.startup,
        &s.handlers,
        &s.proxy,
    ];
    let promoted = form == Form::V84 && !s.become_primary_on.is_empty();
    let more = promoted || s.stacked_timeouts || !s.proxy_plugins.is_empty();
    !more && all.iter().all(|s| s.is_empty())
}

fn global_xml(g: &Global, out: &mut Xml) {
    let refresh = g.dialog_refresh.filter(|n| *n != 1);
    if !g.disable_ip_verification && g.minor_count.is_none() && refresh.is_none() {
        return;
    }
    out.element("global", &[], |out| {
        if g.disable_ip_verification {
            out.empty("disable-ip-verification", &[]);
        }
        if let Some(count) = g.minor_count {
            out.empty("minor-count", &[("count", &count.to_string())]);
        }
        if let Some(seconds) = refresh {
            out.empty("dialog-refresh", &[("refresh", &seconds.to_string())]);
        }
    });
}

fn sections_xml(s: &Sections, form: Form, out: &mut Xml) {
    out.section("options", &s.options, &[], None);
    out.section("net", &s.net, &[], None);
    out.section("disk", &s.disk, &[], None);
    let mut more = Vec::new();
    if s.stacked_timeouts {
        more.push(("stacked-timeouts", None));
    }
    if form == Form::V84 && !s.become_primary_on.is_empty() {
        more.push(("become-primary-on", Some(s.become_primary_on.join(" "))));
    }
    out.section("startup", &s.startup, &more, None);
    out.proxy("proxy", &s.proxy, &s.proxy_plugins);
    out.section("handlers", &s.handlers, &[], None);
}

fn address_xml(name: &str, a: &Address, out: &mut Xml) {
    let host = a.host_and_port();
    let host = host.rsplit_once(':').map_or("", |(host, _)| host);
    let host = match a.family {
        Family::Ipv6 => host.trim_matches(['[', ']']),
        _ => host,
    };
    let (family, port) = (a.family.to_string(), a.socket.port().to_string());
    out.text(name, &[("family", &family), ("port", &port)], host);
}

fn host_xml(r: &Resource, h: &Host, form: Form, out: &mut Xml) {
    let names = h.names().join(" ");
    let attribute = match h.name {
        HostName::Floating => ("floating", "1"),
        _ => ("name", names.as_str()),
    };
    out.element("host", &[attribute], |out| {
        out.section("options", &h.options, &[], None);
        for v in &h.volumes {
            out.element("volume", &[("vnr", &v.number.to_string())], |out| {
                out.section("disk", &v.options, &[], None);
                if let Some((minor, device)) = v.device_and_minor() {
                    let minor = minor.to_string();
                    out.text("device", &[("minor", &minor)], &device.to_string_lossy());
                }
                let disk = match &h.name {
                    HostName::StackedOnTopOf(lower) => r.lower_device(lower, v.number),
                    _ => v.disk.clone(),
                };
                let disk = disk.as_deref().unwrap_or(Path::new(""));
                out.text("disk", &[], &disk.to_string_lossy());
                match &v.meta_disk {
                    Some(MetaDisk::Indexed(path, index)) => {
                        let index = index.to_string();
                        let path = path.to_string_lossy();
                        out.text("meta-disk", &[("index", &index)], &path);
                    }
                    Some(MetaDisk::Flexible(path)) => {
                        out.text("meta-disk", &[], &path.to_string_lossy());
                    }
                    Some(MetaDisk::Internal) => out.text("meta-disk", &[], "internal"),
                    None if h.is_stacked() => out.text("meta-disk", &[], "internal"),
                    None => {}
                }
            });
        }
        if let Some(a) = &h.address {
            address_xml("address", a, out);
        }
        if let (Some(p), Form::V84) = (&h.proxy, form) {
            proxy_xml(p, out);
        }
    });
}

fn connection_xml(r: &Resource, a: &Host, b: &Host, c: Option<&Connection>, out: &mut Xml) {
    out.element("connection", &[], |out| {
        let paths = paths(r, a, b, c);
        match c {
            Some(c) if !c.one_path => {
                for path in &paths {
                    out.element("path", &[], |out| {
                        path.iter().for_each(|end| end_xml(end, out));
                    });
                }
            }
            _ => paths.iter().flatten().for_each(|end| end_xml(end, out)),
        }
        out.section("net", &r.net_of(c), &[], None);
        let Some(c) = c else { return };
        out.section("disk", &c.disk, &[], None);
        for (volume, settings) in r.peer_devices(a, b, Some(c)) {
            if c.volumes.iter().any(|(n, _)| *n == volume) {
                out.element("volume", &[("vnr", &volume.to_string())], |out| {
                    out.section("disk", &settings, &[], None);
                });
            }
        }
    });
}

fn end_xml(end: &Ends<'_>, out: &mut Xml) {
    let name = end.name().unwrap_or_else(|| end.host.connection_name());
    let Some(a) = &end.address else { return };
    out.element("host", &[("name", &name)], |out| {
        address_xml("address", a, out);
        if let Some(p) = end.proxy() {
            proxy_xml(p, out);
        }
    });
}

fn proxy_xml(proxy: &Proxy, out: &mut Xml) {
    let hosts = proxy.hosts.join(" ");
    out.element("proxy", &[("hostname", &hosts)], |out| {
        address_xml("inside", &proxy.inside, out);
        address_xml("outside", &proxy.outside, out);
        out.proxy("options", &proxy.options, &proxy.plugins);
    });
}
