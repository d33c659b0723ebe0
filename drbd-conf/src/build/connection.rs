//! Connections that are written down (DRBD 9), and DRBD Proxy.

use super::words::{Checked, Seen, Words, address, integer32, port, unknown};
use super::{Builder, Mesh};
use crate::error::Problem;
use crate::model::{Connection, PathEnd, Sections, Settings};
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
            connection.paths.insert(0, two(ends, st.span())?);
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
            proxy: false,
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
                address(&mut w)?;
            } else if w.take("proxy") {
                end.proxy = true;
                if !w.take("on") {
                    return Err(w.expected("\"on\""));
                }
                self.proxy_block(w)?;
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
                "disk" => {
                    w.block()?;
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
    pub(super) fn proxy(&mut self, st: &Statement<'_>) -> Checked<()> {
        let mut w = Words::of(st);
        if !w.take("on") {
            return Err(w.expected("\"on\""));
        }
        self.proxy_block(w)
    }

    pub(super) fn proxy_block(&mut self, mut w: Words<'_, '_>) -> Checked<()> {
        w.expect("a host name")?;
        while w.peek().is_some_and(|t| t.kind != Kind::Punctuation) {
            w.expect("a host name")?;
        }
        for st in w.block()? {
            let mut w = Words::of(st);
            let result = match st.keyword() {
                "inside" | "outside" => address(&mut w).and_then(|_| w.end()),
                "options" => w.block().map(|block| {
                    self.settings(Section::Proxy, block, &mut Sections::default());
                }),
                _ => Err(unknown(st, "inside, outside or options")),
            };
            self.check(result);
        }
        Ok(())
    }
}

fn two(ends: Vec<PathEnd>, span: Span) -> Checked<[PathEnd; 2]> {
    let count = ends.len();
    ends.try_into().map_err(|_| {
        let text = format!("expected two \"host\" statements, found {count}");
        Problem::error(span, "missing-statement", text)
    })
}
