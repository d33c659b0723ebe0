//! Connections that are written down (DRBD 9), and DRBD Proxy.

use super::words::{Checked, Seen, Words, address, address_at, integer32, port, unknown};
use super::{Builder, Mesh};
use crate::error::Problem;
use crate::model::{Connection, PathEnd, Proxy, Sections, Settings};
use crate::schema::Section;
use crate::source::Span;
use crate::syntax::{Kind, Statement};

impl Builder {
    pub(super) fn connection(&mut self, st: &Statement<'_>) -> Checked<Connection> {
        let mut w = Words::of(st);
        if let Some(name) = w.peek().filter(|t| t.kind != Kind::Punctuation) {
            let text = "connections have no names any more; this one is ignored";
            self.warnings
                .push(Problem::warning(name.span, "deprecated-option", text));
            w.next();
        }
        let block = w.block()?;
        let mut connection = Connection {
            paths: Vec::new(),
            net: Settings::default(),
            disk: Settings::default(),
            volumes: Vec::new(),
            implicit: false,
            one_path: false,
        };
        let mut ends = Vec::new();
        let mut seen = Seen::default();
        for st in block {
            let mut w = Words::of(st);
            let result = match st.keyword() {
                "skip" => Ok(()),
                "host" | "address" => self.path_end(st).map(|end| ends.push(end)),
                "path" => self.path(st).map(|path| connection.paths.push(path)),
                "net" => w.block().and_then(|block| {
                    seen.once("net", st.span())?;
                    let mut sections = Sections::default();
                    self.settings(Section::Net, block, &mut sections);
                    connection.net = sections.net;
                    Ok(())
                }),
                "disk" => w.block().map(|block| {
                    let mut sections = Sections::default();
                    self.settings(Section::Disk, block, &mut sections);
                    connection.disk = sections.disk;
                }),
                "volume" => (|| {
                    let number = integer32(w.expect("a volume number")?, "volume", 65535)?;
                    let mut sections = Sections::default();
                    for st in w.block()? {
                        if st.keyword() != "disk" {
                            return Err(unknown(st, "disk"));
                        }
                        self.settings(Section::Disk, Words::of(st).block()?, &mut sections);
                    }
                    connection.volumes.push((number, sections.disk));
                    Ok(())
                })(),
                _ => Err(unknown(st, "host, path, net, disk or volume")),
            };
            self.check(result);
        }
        if !ends.is_empty() {
            if !connection.paths.is_empty() {
                let text = "both \"path\" blocks and \"host\" statements outside of them";
                return Err(Problem::error(st.span(), "missing-statement", text));
            }
            connection.one_path = true;
            connection.paths.push(two(ends, st.span())?);
        }
        if connection.paths.is_empty() {
            let text = "expected two \"host\" statements or a \"path\" in this connection";
            return Err(Problem::error(st.span(), "missing-statement", text));
        }
        Ok(connection)
    }

    pub(super) fn path(&mut self, st: &Statement<'_>) -> Checked<[PathEnd; 2]> {
        let mut ends = Vec::new();
        for st in Words::of(st).block()? {
            match st.keyword() {
                "host" | "address" => ends.push(self.path_end(st)?),
                "skip" => {}
                _ => return Err(unknown(st, "host")),
            }
        }
        two(ends, st.span())
    }

    /// `host NAME [address A | port P] [via proxy on …]`
    pub(super) fn path_end(&mut self, st: &Statement<'_>) -> Checked<PathEnd> {
        let mut w = Words::of(st);
        let mut end = PathEnd {
            host: String::new(),
            address: None,
            port: None,
            proxy: None,
            outside_address: None,
            span: st.span(),
        };
        if st.keyword() == "address" {
            end.address = Some(address(&mut w)?);
        } else {
            end.host = w.expect("a host name")?.text.to_string();
            if w.take("address") {
                end.address = Some(address(&mut w)?);
            } else if w.take("port") {
                end.port = Some(port(w.expect("a port")?)?);
            }
        }
        if w.take("via") {
            if w.take("outside-address") {
                end.outside_address = Some(address(&mut w)?);
            } else if w.take("proxy") {
                if !w.take("on") {
                    return Err(w.expected("\"on\""));
                }
                end.proxy = Some(Box::new(self.proxy_block(w)?));
                return Ok(end);
            } else {
                return Err(w.expected("\"proxy\" or \"outside-address\""));
            }
        }
        w.end()?;
        Ok(end)
    }

    pub(super) fn mesh(&mut self, st: &Statement<'_>) -> Checked<Mesh> {
        let mut hosts = Vec::new();
        let mut net = Settings::default();
        for st in Words::of(st).block()? {
            let mut w = Words::of(st);
            match st.keyword() {
                "hosts" => {
                    while w.peek().is_some() {
                        let host = w.expect("a host name")?;
                        hosts.push((host.text.to_string(), host.span));
                    }
                    w.end()?;
                }
                "net" => {
                    let mut sections = Sections::default();
                    self.settings(Section::Net, w.block()?, &mut sections);
                    net = sections.net;
                }
                "skip" => {}
                _ => return Err(unknown(st, "hosts or net")),
            }
        }
        if hosts.len() < 2 {
            let text = "expected at least two \"hosts\" in this mesh";
            return Err(Problem::error(st.span(), "missing-statement", text));
        }
        Ok(Mesh { hosts, net })
    }

    /// `proxy on HOST { inside …; outside …; options { … } }`
    pub(super) fn proxy(&mut self, st: &Statement<'_>) -> Checked<Proxy> {
        let mut w = Words::of(st);
        if !w.take("on") {
            return Err(w.expected("\"on\""));
        }
        self.proxy_block(w)
    }

    pub(super) fn proxy_block(&mut self, mut w: Words<'_, '_>) -> Checked<Proxy> {
        let mut hosts = vec![w.expect("a host name")?.text.to_string()];
        while w.peek().is_some_and(|t| t.kind != Kind::Punctuation) {
            hosts.push(w.expect("a host name")?.text.to_string());
        }
        let (mut inside, mut outside) = (None, None);
        let mut sections = Sections::default();
        for st in w.block()? {
            let mut w = Words::of(st);
            match st.keyword() {
                "inside" => inside = Some(address(&mut w)?),
                "outside" => outside = Some(address_at(&mut w)?),
                "options" => {
                    self.settings(Section::Proxy, w.block()?, &mut sections);
                    continue;
                }
                _ => return Err(unknown(st, "inside, outside or options")),
            }
            w.end()?;
        }
        let (Some(inside), Some((outside, outside_at))) = (inside, outside) else {
            let text = "expected \"inside\" and \"outside\" for this proxy";
            let span = w.statement.span();
            return Err(Problem::error(span, "missing-statement", text));
        };
        Ok(Proxy {
            hosts,
            inside,
            outside,
            options: sections.proxy,
            plugins: sections.proxy_plugins,
            outside_at,
        })
    }
}

fn two(ends: Vec<PathEnd>, span: Span) -> Checked<[PathEnd; 2]> {
    let count = ends.len();
    ends.try_into().map_err(|_| {
        let text = format!("expected two \"host\" statements, found {count}");
        Problem::error(span, "missing-statement", text)
    })
}
