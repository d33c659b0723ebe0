//! Writes what the targets begin with below `corpus/`: recorded messages, and
//! one of each form. Run it in this directory: `cargo run --example seed`.

use std::error::Error;
use std::fs;
use std::io::Read;
use std::path::Path;

use btrfs_ops::stream::{Command, Version, Writer};
use drbd_md::{CreateOptions, Target};
use ha_failover::ledger::{Current, Ledger, OwnerRecord, Tombstone};
use protocol::Message;
use serde_json::Value;

#[path = "../../uml-lab/src/protocol.rs"]
mod protocol;
#[path = "../../btrfs-ops/tests/lab/samples.rs"]
mod samples;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The family's id that the targets for drbd-nl expect.
const FAMILY: [u8; 2] = [28, 0];
/// This many datagrams of a run make a seed of the watcher.
const RUN: usize = 64;

fn main() -> Result<()> {
    transcripts()?;
    files()?;
    metadata()?;
    stream()?;
    records()?;
    messages()
}

/// Writes a seed; its name is a digest, so that one seen twice is kept once.
fn put(target: &str, bytes: &[u8]) -> Result<()> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut digest = DefaultHasher::new();
    bytes.hash(&mut digest);
    let dir = Path::new("corpus").join(target);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(format!("seed-{:016x}", digest.finish())), bytes)?;
    Ok(())
}

fn unhex(hex: &str) -> Result<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2);
    Ok(pairs
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16))
        .collect::<std::result::Result<_, _>>()?)
}

/// What real kernels said: each shape of a message, and the runs.
fn transcripts() -> Result<()> {
    for (name, dialect) in [("drbd84", 0u8), ("drbd9", 1), ("drbd93", 1)] {
        let file = fs::File::open(format!("../drbd-nl/tests/data/{name}.jsonl.zst"))?;
        let mut text = String::new();
        ruzstd::decoding::StreamingDecoder::new(file)?.read_to_string(&mut text)?;
        let mut shapes = std::collections::BTreeSet::new();
        let (mut run, mut datagrams) = (vec![dialect], 0);
        for line in text.lines() {
            let value: Value = serde_json::from_str(line)?;
            if value["type"] == "run" {
                if datagrams > 2 {
                    put("drbd_nl_watcher", &run)?;
                }
                (run, datagrams) = (vec![dialect], 0);
            }
            let Some(hex) = value["hex"].as_str().filter(|_| value["dir"] == "rx") else {
                continue;
            };
            let mut bytes = unhex(hex)?;
            // Not generic netlink's own.
            if bytes.len() < 20 || bytes[4..6] == [16, 0] {
                continue;
            }
            if bytes[5] != 0 || bytes[4] > 15 {
                bytes[4..6].copy_from_slice(&FAMILY);
            }
            if shapes.insert((bytes[4], bytes[16], bytes.len() / 32)) {
                put("drbd_nl_message", &[&[dialect], &bytes[..]].concat())?;
            }
            if datagrams < RUN {
                let answer = u8::from(bytes[8..12] != [0; 4]);
                run.push(answer);
                run.extend(u16::try_from(bytes.len())?.to_le_bytes());
                run.extend(&bytes);
                datagrams += 1;
            }
        }
    }
    Ok(())
}

fn files() -> Result<()> {
    for file in [
        "story/seed/drbd.conf",
        "story/seed/drbd.d/global_common.conf",
    ] {
        let text = fs::read_to_string(Path::new("..").join(file))?;
        put("drbd_conf", text.replace("include", "# ").as_bytes())?;
    }
    put("drbd_conf", include_bytes!("nine.conf"))?;
    for file in [
        "ha-failover/examples/placement.toml",
        "story/stage/placement.toml",
        "story/stage/placement-full.toml",
    ] {
        put(
            "ha_failover_placement",
            &fs::read(Path::new("..").join(file))?,
        )?;
    }
    put(
        "lxc_rs_config_file",
        &fs::read("../story/stage/container.conf")?,
    )?;
    put(
        "lxc_rs_config_file",
        b"# head\n\nlxc.uts.name=m1\r\n\tlxc.net.0.type = veth # no remark\nrubbish \xff\n\
          lxc.environment = \"B = 2\"\nlxc.environment =\nlxc.uts.name = m2",
    )
}

fn metadata() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("disk");
    for options in [
        CreateOptions::default(),
        CreateOptions::v09(1),
        CreateOptions::v09(7),
    ] {
        let file = fs::File::create(&path)?;
        file.set_len(256 << 10)?;
        let target = Target::internal(&path);
        drbd_md::create(&target, &options)?;
        let mut bytes = fs::read(&path)?;
        let block = bytes.split_off(bytes.len() - 4096);
        put("drbd_md_superblock", &block)?;
        let before = &bytes[bytes.len() - (40 << 10)..];
        put("drbd_md_superblock", &[&block[..], before].concat())?;
        put("drbd_md_dump", drbd_md::dump_to_string(&target)?.as_bytes())?;
    }
    put(
        "drbd_md_dump",
        b"16777216\t/dev/sda7\nuuid:0x0123456789abcdef\n",
    )
}

fn stream() -> Result<()> {
    for version in [Version::V1, Version::V2] {
        let mut writer = Writer::new(Vec::new(), version)?;
        // The one that is long is as all others.
        let short = |command: &Command<'_>| !matches!(command, Command::Write { data, .. } if data.len() > 1000);
        for command in samples::all(version).iter().filter(|c| short(c)) {
            writer.put(command)?;
        }
        put("btrfs_ops_stream", &writer.finish()?)?;
    }
    Ok(())
}

fn records() -> Result<()> {
    let put =
        |kind: u8, text: String| put("ha_failover_journal", &[&[kind], text.as_bytes()].concat());
    let line = |entry: Value| {
        let mut line = serde_json::json!({"op": "a", "mono_ms": 1, "wall": "then"});
        if let (Some(line), Value::Object(entry)) = (line.as_object_mut(), entry) {
            line.extend(entry);
        }
        line.to_string()
    };
    let step = serde_json::json!({
        "action": {"do": "demote"}, "deadline_ms": 1000, "predicted_ms": null, "in_gap": true,
        "optional": false
    });
    let lines = [
        serde_json::json!({"entry": "begin", "pid": 1, "plan": {
            "request": {"request": "stop"}, "resource": "r0", "node": "node1", "boot_id": "b",
            "evidence": null, "findings": [], "steps": [step], "undo": [], "running": ["app"],
            "resumes": null
        }}),
        serde_json::json!({"entry": "intent", "n": 1, "action": {"do": "demote"}}),
        serde_json::json!({"entry": "result", "n": 1, "outcome": "done", "ms": 5, "note": "well"}),
        serde_json::json!({"entry": "end", "outcome": "done"}),
    ]
    .map(line);
    // The targets skip what they cannot read; a seed is there to be read.
    for line in &lines {
        serde_json::from_str::<ha_failover::journal::Record>(line)?;
    }
    put(0, lines[..3].join("\n"))?;
    put(0, lines.join("\n"))?;
    let mut ledger = Ledger::default();
    ledger.owner = Some("node1".to_owned());
    ledger.current = Some(Current::new("boot", "then", Some(5)));
    ledger.tombstone = Some(Tombstone::new("node2", 3, "then", "power"));
    put(1, serde_json::to_string(&ledger)?)?;
    let record = OwnerRecord::new("node1", 3, serde_json::json!({"nodes": ["node1"]}));
    put(2, serde_json::to_string(&record)?)
}

fn messages() -> Result<()> {
    use protocol::{Spawn, Stdin, Stream, ToKeeper, ToLab, ToNode};
    let put = |kind: u8, bytes: Vec<u8>| put("uml_lab_protocol", &[&[kind], &bytes[..]].concat());
    let spawn = Spawn {
        argv: vec![b"/bin/echo".to_vec()],
        env: vec![(b"A".to_vec(), b"b".to_vec())],
        cwd: b"/".to_vec(),
        stdin: Stdin::File(b"/x".to_vec()),
    };
    let to_node = ToNode::Spawn { id: 7, spawn };
    let to_lab = ToLab::Output {
        id: 3,
        stream: Stream::Stdout,
        bytes: vec![9; 100],
    };
    let mut frames = Vec::new();
    to_lab.frame(&mut frames);
    to_lab.frame(&mut frames);
    put(0, to_node.encode())?;
    put(1, to_lab.encode())?;
    put(1, frames)?;
    put(2, ToKeeper::Hang { id: 1, hang: true }.encode())
}
