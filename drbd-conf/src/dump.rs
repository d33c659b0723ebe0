//! The resolved view as text: what `drbdadm --verbose dump` and `dump-xml` print.

use std::fmt::Write as _;
use std::path::Path;

use crate::edit::quoted;
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
        let mut out = Text::default();
        global(&self.global, &mut out);
        if self.resources.iter().all(|r| r.template.is_none()) {
            out.block("common", |out| sections(&self.common, out));
        }
        for r in &self.resources {
            out.block(&format!("resource {}", quoted(&r.name)), |out| {
                r.hosts.iter().for_each(|h| host(r, h, out));
                for (a, b, connection) in r.connected() {
                    // Written down, drbdadm would take the end that is stacked for another node's.
                    if connection.is_some() || !(a.is_stacked() || b.is_stacked()) {
                        self::connection(r, a, b, connection, out);
                    }
                }
                sections(&r.sections, out);
            });
        }
        out.text
    }

    /// Returns the same as XML, as `drbdadm dump-xml` prints it after inheritance (with `-d`). Files
    /// are named as they were given to [`Config::load`]. Secrets are in it.
    pub fn dump_xml(&self) -> String {
        let mut out = Xml::default();
        let file = self.files().next().unwrap_or("".as_ref());
        out.element("config", &[("file", &file.to_string_lossy())], |out| {
            global_xml(&self.global, out);
            if !is_empty(&self.common) {
                out.element("common", &[], |out| sections_xml(&self.common, out));
            }
            for r in &self.resources {
                let at = r.location();
                let at = format!("{}:{}", at.file.display(), at.line);
                let attributes = [("name", r.name.as_str()), ("conf-file-line", &at)];
                out.element("resource", &attributes, |out| {
                    r.hosts.iter().for_each(|h| host_xml(r, h, out));
                    for (a, b, connection) in r.connected() {
                        connection_xml(r, a, b, connection, out);
                    }
                    sections_xml(&r.sections, out);
                });
            }
        });
        out.text
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

fn global(g: &Global, out: &mut Text) {
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
    });
}

fn sections(s: &Sections, out: &mut Text) {
    out.options("options", s.options.iter());
    out.options("net", s.net.iter());
    out.options("disk", s.disk.iter());
    out.block("startup", |out| {
        s.startup.iter().for_each(|s| out.setting(s.name, s.raw()));
        if s.stacked_timeouts {
            out.line("stacked-timeouts;");
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

fn host(r: &Resource, h: &Host, out: &mut Text) {
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
        if let Some(id) = h.node_id {
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
                    out.options("disk", v.options.iter());
                    volume(h, v, out);
                });
            }
        }
        if let (Some(a), false) = (&h.address, h.name == HostName::Floating) {
            out.line(&format!("address {};", address(a)));
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
    let hosts: Vec<_> = proxy.hosts.iter().map(|h| quoted(h)).collect();
    let _ = write!(line, " via proxy on {}", hosts.join(" "));
    out.block(&line, |out| {
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

    fn section(&mut self, name: &str, settings: &Settings, more: &[String], sub: Option<&str>) {
        if settings.is_empty() && more.is_empty() {
            return;
        }
        let lines = |out: &mut Xml| {
            for line in more {
                out.empty("option", &[("name", line)]);
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
}

fn is_empty(s: &Sections) -> bool {
    let all = [
        &s.options,
        &s.disk,
        &s.net,
        &s.startup,
        &s.handlers,
        &s.proxy,
    ];
    all.iter().all(|s| s.is_empty()) && s.proxy_plugins.is_empty() && !s.stacked_timeouts
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

fn sections_xml(s: &Sections, out: &mut Xml) {
    out.section("options", &s.options, &[], None);
    out.section("net", &s.net, &[], None);
    out.section("disk", &s.disk, &[], None);
    let stacked = ["stacked-timeouts".to_owned()];
    let stacked = &stacked[usize::from(!s.stacked_timeouts)..];
    out.section("startup", &s.startup, stacked, None);
    out.section("proxy", &s.proxy, &s.proxy_plugins, Some("plugin"));
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

fn host_xml(r: &Resource, h: &Host, out: &mut Xml) {
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
        let Some(proxy) = end.proxy() else { return };
        let hosts = proxy.hosts.join(" ");
        out.element("proxy", &[("hostname", &hosts)], |out| {
            address_xml("inside", &proxy.inside, out);
            address_xml("outside", &proxy.outside, out);
            out.section("options", &proxy.options, &proxy.plugins, Some("plugin"));
        });
    });
}
