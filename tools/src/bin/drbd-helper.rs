//! The program the kernel's DRBD calls for its handlers (`usermode_helper`).
//!
//! It answers at once and never calls back into DRBD, which waits for it:
//! 0 for every event but `fence-peer`, and for that the truth: 7 ("the peer is
//! off") only while a takeover on this node holds evidence of it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use tools::fence_peer;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let event = arguments.next().unwrap_or_default();
    let minor = arguments.next().unwrap_or_default();
    // DRBD 9 names the resource in the environment; 8.4 gives it in place of the minor where the
    // event concerns all of it, as fence-peer does.
    let resource = std::env::var_os("DRBD_RESOURCE").unwrap_or_else(|| minor.clone());
    let status = answer(&event, &resource, Path::new(tools::FENCED_DIR));
    // For people; the kernel log is the one place that is there at any time.
    if let Ok(mut log) = std::fs::OpenOptions::new().write(true).open("/dev/kmsg") {
        let line = format!(
            "<6>drbd-helper: {} {}: {status}\n",
            event.display(),
            resource.display()
        );
        let _ = log.write_all(line.as_bytes());
    }
    ExitCode::from(status)
}

fn answer(event: &OsStr, resource: &OsStr, fenced: &Path) -> u8 {
    if event != "fence-peer" {
        return 0;
    }
    let plain = !resource.is_empty() && !resource.to_string_lossy().contains('/');
    if plain && fenced.join(resource).is_file() {
        fence_peer::FENCED
    } else {
        fence_peer::NOT_FENCED
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
}
