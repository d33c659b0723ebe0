//! Reads the recorded transcripts.

use drbd_nl::Dialect;
use serde_json::Value;
use std::io::Read;
use std::path::Path;
use std::sync::OnceLock;

/// One family of transcripts.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) dialect: Dialect,
    pub(crate) runs: Vec<Run>,
}

/// One run of a command.
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) argv: Vec<String>,
    pub(crate) scenario: String,
    pub(crate) node: String,
    pub(crate) messages: Vec<Message>,
    pub(crate) exit: Option<i64>,
    pub(crate) stdout: String,
    pub(crate) json: Option<Value>,
    /// DRBD's family id in this run.
    pub(crate) family: u16,
}

/// One datagram.
pub(crate) struct Message {
    pub(crate) sent: bool,
    pub(crate) bytes: Vec<u8>,
}

impl Message {
    /// `nlmsg_type` of the first message.
    pub(crate) fn kind(&self) -> u16 {
        u16::from_le_bytes([self.bytes[4], self.bytes[5]])
    }

    /// `genlmsghdr.cmd` of the first message.
    pub(crate) fn command(&self) -> u8 {
        self.bytes[16]
    }
}

impl Run {
    pub(crate) fn sent(&self, command: u8) -> impl Iterator<Item = &Message> {
        let family = self.family;
        self.messages
            .iter()
            .filter(move |m| m.sent && m.kind() == family && m.command() == command)
    }

    pub(crate) fn received(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|m| !m.sent)
    }

    pub(crate) fn args(&self) -> Vec<&str> {
        self.argv.iter().map(String::as_str).collect()
    }
}

/// All three, read once.
pub(crate) fn all() -> &'static [Family; 3] {
    static ALL: OnceLock<[Family; 3]> = OnceLock::new();
    ALL.get_or_init(|| {
        [
            load("drbd84", Dialect::V84),
            load("drbd9", Dialect::V9),
            load("drbd93", Dialect::V9),
        ]
    })
}

fn load(name: &'static str, dialect: Dialect) -> Family {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/{name}.jsonl.zst"));
    let file = std::fs::File::open(&path).unwrap();
    let mut text = String::new();
    ruzstd::decoding::StreamingDecoder::new(file)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
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
                let Some(hex) = value["hex"].as_str() else {
                    continue;
                };
                runs.last_mut().unwrap().messages.push(Message {
                    sent: value["dir"] == "tx",
                    bytes: unhex(hex),
                });
            }
            "result" => {
                let run = runs.last_mut().unwrap();
                run.exit = value["exit"].as_i64();
                run.stdout = string("stdout");
                run.json = value
                    .get("stdout_json")
                    .filter(|json| !json.is_null())
                    .cloned();
                run.family = family_id(run);
            }
            _ => {}
        }
    }
    Family {
        name,
        dialect,
        runs,
    }
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
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}
