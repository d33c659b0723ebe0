//! Reads the recorded transcripts.

use drbd_nl::Dialect;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// One family of transcripts.
pub struct Family {
    pub name: &'static str,
    pub dialect: Dialect,
    pub runs: Vec<Run>,
}

/// One run of a command.
pub struct Run {
    pub name: String,
    pub argv: Vec<String>,
    pub scenario: String,
    pub node: String,
    pub messages: Vec<Message>,
    pub exit: Option<i64>,
    pub stdout: String,
    pub json: Option<Value>,
    /// DRBD's family id in this run.
    pub family: u16,
}

/// One datagram.
pub struct Message {
    pub sent: bool,
    pub bytes: Vec<u8>,
    pub stdout_pos: usize,
    pub groups: u64,
}

impl Message {
    /// `nlmsg_type` of the first message.
    pub fn kind(&self) -> u16 {
        u16::from_le_bytes([self.bytes[4], self.bytes[5]])
    }

    /// `genlmsghdr.cmd` of the first message.
    pub fn command(&self) -> u8 {
        self.bytes[16]
    }

    pub fn flags(&self) -> u16 {
        u16::from_le_bytes([self.bytes[6], self.bytes[7]])
    }
}

impl Run {
    pub fn sent(&self, command: u8) -> impl Iterator<Item = &Message> {
        let family = self.family;
        self.messages.iter().filter(move |m| m.sent && m.kind() == family && m.command() == command)
    }

    pub fn received(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|m| !m.sent)
    }

    pub fn args(&self) -> Vec<&str> {
        self.argv.iter().map(String::as_str).collect()
    }
}

pub fn all() -> [Family; 3] {
    [
        load("drbd84", Dialect::V84),
        load("drbd9", Dialect::V9),
        load("drbd93", Dialect::V9),
    ]
}

pub fn load(name: &'static str, dialect: Dialect) -> Family {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.jsonl.zst"));
    let file = std::fs::File::open(&path).unwrap();
    let mut text = String::new();
    ruzstd::decoding::StreamingDecoder::new(file).unwrap().read_to_string(&mut text).unwrap();
    let mut runs = Vec::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let string = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        match value["type"].as_str().unwrap() {
            "run" => runs.push(Run {
                name: string("name"),
                argv: value["argv"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|arg| arg.as_str().unwrap().to_owned())
                    .collect(),
                scenario: string("scenario"),
                node: string("node"),
                messages: Vec::new(),
                exit: None,
                stdout: String::new(),
                json: None,
                family: 0,
            }),
            "msg" => {
                let Some(hex) = value["hex"].as_str() else { continue };
                runs.last_mut().unwrap().messages.push(Message {
                    sent: value["dir"] == "tx",
                    bytes: unhex(hex),
                    stdout_pos: value["stdout_pos"].as_u64().unwrap_or(0) as usize,
                    groups: value["src_groups"].as_u64().unwrap_or(0),
                });
            }
            "result" => {
                let run = runs.last_mut().unwrap();
                run.exit = value["exit"].as_i64();
                run.stdout = string("stdout");
                run.json = value.get("stdout_json").filter(|json| !json.is_null()).cloned();
                run.family = family_id(run);
            }
            _ => {}
        }
    }
    Family { name, dialect, runs }
}

/// From the answer to CTRL_CMD_GETFAMILY; 0 where there was none.
fn family_id(run: &Run) -> u16 {
    run.received()
        .find(|m| m.kind() == 16)
        .and_then(|m| {
            drbd_nl::wire::Attrs::<drbd_nl::wire::Little>::new(&m.bytes[20..])
                .find(drbd_nl::schema::ctrl::CTRL_ATTR_FAMILY_ID)
                .unwrap()
        })
        .map_or(0, |id| u16::from_le_bytes(id.payload.try_into().unwrap()))
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
