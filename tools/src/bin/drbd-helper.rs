//! The program the kernel's DRBD calls for its handlers (`usermode_helper`).
//!
//! It answers in bounded time and never calls back into DRBD, which waits for it:
//! 0 for every event but `fence-peer`, and for that the truth: 7 ("the peer is
//! off") only while a takeover on this node holds evidence of it. Of a split
//! brain it leaves word for `failover status`. What else is to happen for an
//! event stands in a small file.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tools::fence_peer;

/// What a user's program may take when the file says nothing.
const DEADLINE_S: u64 = 10;

/// The file of actions: a table for each event.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
struct Handlers(BTreeMap<String, Handler>);

/// What is run for an event.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Handler {
    /// The program and its arguments; `{event}` and `{object}` are replaced.
    run: Vec<String>,
    /// After so many seconds it is killed.
    #[serde(default = "deadline")]
    deadline_s: u64,
    /// Its exit status is ours: only for events where DRBD asks.
    #[serde(default)]
    decides: bool,
}

fn deadline() -> u64 {
    DEADLINE_S
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let event = arguments.next().unwrap_or_default();
    let object = arguments.next().unwrap_or_default();
    // DRBD 9 names the resource in the environment; 8.4 gives it in place of the minor where the
    // event concerns all of it, as fence-peer does.
    let resource = std::env::var_os("DRBD_RESOURCE").unwrap_or_else(|| object.clone());
    let status = answer(&event, &resource, Path::new(tools::FENCED_DIR));
    if event == "split-brain" {
        for name in [&object, &resource] {
            leave_word(name, Path::new(tools::SPLIT_BRAIN_DIR));
        }
    }
    log(&format!(
        "{} {}: {status}",
        event.display(),
        resource.display()
    ));
    let status = match handlers(Path::new(tools::HANDLERS)) {
        Ok(handlers) => act(&handlers, &event, &object, status),
        Err(why) => {
            log(&why);
            status
        }
    };
    ExitCode::from(status)
}

/// For people; the kernel log is the one place that is there at any time.
fn log(text: &str) {
    if let Ok(mut log) = fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("<6>drbd-helper: {text}\n").as_bytes());
    }
}

fn plain(name: &OsStr) -> bool {
    !name.is_empty() && name != ".." && !name.to_string_lossy().contains('/')
}

fn answer(event: &OsStr, resource: &OsStr, fenced: &Path) -> u8 {
    if event != "fence-peer" {
        return 0;
    }
    if plain(resource) && fenced.join(resource).is_file() {
        fence_peer::FENCED
    } else {
        fence_peer::NOT_FENCED
    }
}

fn leave_word(name: &OsStr, dir: &Path) {
    if !plain(name) {
        return;
    }
    let up = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let up = up.split_whitespace().next().unwrap_or("unknown");
    let text = format!("told by the kernel {up} s after boot");
    let written = fs::create_dir_all(dir).and_then(|()| fs::write(dir.join(name), text));
    if let Err(e) = written {
        log(&format!("{}: {e}", dir.join(name).display()));
    }
}

fn handlers(path: &Path) -> Result<Handlers, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Handlers::default()),
        Err(e) => return Err(format!("{}: {e}", path.display())),
    };
    let handlers: Handlers =
        toml::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    for (event, handler) in &handlers.0 {
        if handler.run.first().is_none_or(|p| !p.starts_with('/')) {
            return Err(format!(
                "{}: {event}: run must begin with the absolute path of a program",
                path.display()
            ));
        }
        // Everywhere else DRBD does not ask, or only evidence may answer.
        if handler.decides && event != "before-resync-target" {
            return Err(format!(
                "{}: {event}: only before-resync-target can be decided by a program",
                path.display()
            ));
        }
    }
    Ok(handlers)
}

/// Runs what is to be run for an event, and gives the status that DRBD gets.
fn act(handlers: &Handlers, event: &OsStr, object: &OsStr, answer: u8) -> u8 {
    let Some(handler) = event.to_str().and_then(|e| handlers.0.get(e)) else {
        return answer;
    };
    let (event, object) = (event.to_string_lossy(), object.to_string_lossy());
    let filled = |a: &String| a.replace("{event}", &event).replace("{object}", &object);
    let argv: Vec<String> = handler.run.iter().map(filled).collect();
    let shown = argv.join(" ");
    match run(&argv, Duration::from_secs(handler.deadline_s)) {
        Ok(status) => {
            log(&format!("{event} {object}: `{shown}` ended with {status}"));
            if handler.decides { status } else { answer }
        }
        Err(why) => {
            log(&format!("{event} {object}: `{shown}`: {why}"));
            // Who should have decided did not: DRBD goes no further.
            if handler.decides { 1 } else { answer }
        }
    }
}

fn run(argv: &[String], deadline: Duration) -> Result<u8, String> {
    let (program, arguments) = argv.split_first().ok_or("no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        // `failover` refuses to work inside a handler: the kernel would wait for itself.
        .env(tools::INSIDE_HANDLER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                let code = status.code().and_then(|c| u8::try_from(c).ok());
                return code.ok_or_else(|| status.to_string());
            }
            Ok(None) if begun.elapsed() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(None) => {
                let _ = child.kill();
                return Err(format!("not done after {} s, killed", deadline.as_secs()));
            }
            Err(e) => return Err(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_evidence_fences() {
        let dir = tempfile::tempdir().unwrap();
        let ask = |event: &str, resource: &str| {
            answer(OsStr::new(event), OsStr::new(resource), dir.path())
        };
        assert_eq!(ask("before-resync-target", "r0"), 0);
        assert_eq!(ask("split-brain", ""), 0);
        assert_eq!(ask("fence-peer", "r0"), fence_peer::NOT_FENCED);
        std::fs::write(dir.path().join("r0"), "node1 was off").unwrap();
        assert_eq!(ask("fence-peer", "r0"), fence_peer::FENCED);
        assert_eq!(ask("fence-peer", "r1"), fence_peer::NOT_FENCED);
        assert_eq!(ask("fence-peer", "../r0"), fence_peer::NOT_FENCED);
        assert_eq!(ask("fence-peer", ""), fence_peer::NOT_FENCED);
    }

    #[test]
    fn a_split_brain_leaves_word() {
        let dir = tempfile::tempdir().unwrap();
        let words = dir.path().join("words");
        for name in ["minor-0", "../r0", "", ".."] {
            leave_word(OsStr::new(name), &words);
        }
        let left: Vec<_> = fs::read_dir(&words).unwrap().collect();
        assert_eq!(left.len(), 1);
        assert!(
            fs::read_to_string(words.join("minor-0"))
                .unwrap()
                .contains("after boot")
        );
    }

    #[test]
    fn actions_are_configured() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("handlers.toml");
        let out = dir.path().join("out");
        let of = |text: &str| {
            fs::write(&file, text).unwrap();
            handlers(&file)
        };
        let ask = |handlers: &Handlers, event: &str, status: u8| {
            act(handlers, OsStr::new(event), OsStr::new("minor-0"), status)
        };
        assert_eq!(
            ask(
                &handlers(Path::new("/nonexistent")).unwrap(),
                "split-brain",
                0
            ),
            0
        );
        let text = format!(
            r#"
[split-brain]
run = ["/bin/sh", "-c", "echo $0 $1 $FAILOVER_INSIDE_HANDLER > {}; exit 3", "{{event}}", "{{object}}"]
[fence-peer]
run = ["/bin/sh", "-c", "exit 7"]
[before-resync-target]
run = ["/bin/sh", "-c", "exit 4"]
decides = true
[out-of-sync]
run = ["/bin/sleep", "100"]
deadline_s = 0
[local-io-error]
run = ["/nonexistent/program"]
"#,
            out.display()
        );
        let handlers = of(&text).unwrap();
        assert_eq!(ask(&handlers, "split-brain", 0), 0);
        assert_eq!(fs::read_to_string(&out).unwrap(), "split-brain minor-0 1\n");
        assert_eq!(
            ask(&handlers, "fence-peer", 1),
            1,
            "a program cannot say that the peer is off"
        );
        assert_eq!(ask(&handlers, "before-resync-target", 0), 4);
        assert_eq!(ask(&handlers, "out-of-sync", 0), 0, "bounded");
        assert_eq!(ask(&handlers, "local-io-error", 0), 0);
        assert_eq!(ask(&handlers, "unknown", 0), 0);
        for (wrong, says) in [
            ("[x]\nrun = [\"sh\"]", "absolute"),
            ("[x]\nrun = []", "absolute"),
            (
                "[fence-peer]\nrun = [\"/bin/true\"]\ndecides = true",
                "only before-resync-target",
            ),
            ("[x]\nruns = 1", "runs"),
            ("[", "handlers.toml"),
        ] {
            let error = of(wrong).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
