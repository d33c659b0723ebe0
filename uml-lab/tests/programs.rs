//! Running programs in a node: arguments, environment, input, output, status,
//! deadline, files, many at once. One node for all of it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc::channel;
use std::time::Duration;

use uml_lab::{Command, ErrorKind, Lab, Node};

const LONG: Duration = Duration::from_secs(120);

#[test]
fn programs() {
    let Some(lab) = Lab::builder()
        .name("programs")
        .node("node1", |n| n)
        .start_for_test()
    else {
        return;
    };
    let node = lab.node("node1");
    what_a_program_is_given(&node);
    how_a_program_ends(&node);
    a_program_that_cannot_start(&node);
    a_deadline_kills_the_group_and_keeps_the_output(&node);
    output_is_live_and_input_too(&node);
    an_unread_program_waits_and_an_abandoned_one_does_not(&node);
    a_daemon_does_not_hold_its_starter(&node);
    files(&node);
    big_streams_are_byte_exact(&node);
    many_at_once(&node);
    orphans_are_reaped(&node);
    node.run_test("inner_test").unwrap();
    a_failing_or_unknown_inner_test_is_an_error(&node);
    node.load_module("loop", ["max_loop=4"]).unwrap();
    let error = node.load_module("no_such_module", [""; 0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("no_such_module"), "{error}");
}

fn what_a_program_is_given(node: &Node) {
    let script = "echo \"$0|$1|$2\"; echo \"$A|$HOME|$UML_LAB_NODE\"; pwd; cat";
    let command = Command::new("sh")
        .args(["-c", script, "zero", "a b", "\u{fc}"])
        .env("A", "x=y")
        .current_dir("/usr/bin")
        .stdin("typed");
    let output = node.run(command).unwrap();
    assert_eq!(
        output.stdout_text(),
        "zero|a b|\u{fc}\nx=y|/root|node1\n/usr/bin\ntyped"
    );
    let output = node.run(["uname", "-n"]).unwrap();
    assert_eq!(output.stdout, b"node1\n");
    // Without input there is an end of input, not a wait.
    assert_eq!(node.run("cat").unwrap().stdout, b"");
}

fn how_a_program_ends(node: &Node) {
    let output = node
        .run(["sh", "-c", "echo out; echo err >&2; exit 7"])
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(
        (output.stdout_text().as_str(), output.stderr_text().as_str()),
        ("out\n", "err\n")
    );
    // Without a limit.
    let command = Command::new("sh").args(["-c", "sleep 0.1; kill -TERM $$"]);
    let output = node.run(command.deadline(Duration::MAX)).unwrap();
    assert_eq!(output.status.signal(), Some(15));
    let error = node
        .run_ok(["sh", "-c", "echo why >&2; exit 3"])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert_eq!(error.output().unwrap().status.code(), Some(3));
    assert!(
        error.to_string().contains("node node1: run sh -c"),
        "{error}"
    );
    assert!(error.to_string().contains("why"), "{error}");
}

fn a_program_that_cannot_start(node: &Node) {
    let error = node.run("/no/such/program").unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error()),
        (ErrorKind::Spawn, Some(2))
    );
    assert!(error.to_string().contains("/no/such/program"), "{error}");
    let error = node.run("/etc/passwd").unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error()),
        (ErrorKind::Spawn, Some(13))
    );
    let error = node
        .run(Command::new("true").current_dir("/no/such/dir"))
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error()),
        (ErrorKind::Spawn, Some(2))
    );
    let empty: [&str; 0] = [];
    assert_eq!(node.run(empty).unwrap_err().kind(), ErrorKind::Spawn);
}

fn a_deadline_kills_the_group_and_keeps_the_output(node: &Node) {
    // The shell's child ignores what ends ordinary programs.
    let script = "echo started; (trap '' TERM HUP; sleep 1000) & echo $! >/tmp/child; wait";
    let command = Command::new("sh")
        .args(["-c", script])
        .deadline(Duration::from_secs(3));
    let error = node.run(command).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deadline);
    assert_eq!(error.output().unwrap().stdout, b"started\n");
    let gone = "while kill -0 $(cat /tmp/child); do sleep 0.1; done";
    node.run(["sh", "-c", gone]).unwrap();
}

fn output_is_live_and_input_too(node: &Node) {
    let command =
        Command::new("sh").args(["-c", "while read x; do echo got $x; done; echo end >&2"]);
    let child = node.spawn(command.stdin_piped()).unwrap();
    assert!(child.id() > 1);
    let mut lines = BufReader::new(child.stdout()).lines();
    for n in 0..3 {
        child.write_stdin(format!("{n}\n").as_bytes()).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), format!("got {n}"));
        assert_eq!(child.try_status().unwrap(), None);
    }
    child.close_stdin().unwrap();
    assert!(lines.next().is_none());
    let output = child.wait(LONG).unwrap();
    assert!(output.status.success());
    assert_eq!(
        (output.stdout.len(), output.stderr_text().as_str()),
        (0, "end\n")
    );

    // Waiting takes nothing from a reader.
    let script =
        "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; sleep 0.2; echo last";
    let child = node.spawn(["sh", "-c", script]).unwrap();
    let lines = BufReader::new(child.stdout()).lines();
    let reader = std::thread::spawn(move || lines.map(Result::unwrap).collect::<Vec<_>>());
    assert!(child.wait(LONG).unwrap().stdout.is_empty());
    let lines = reader.join().unwrap();
    let expected = (0..300)
        .map(|n| format!("line {n}"))
        .chain(["last".to_owned()]);
    assert!(
        lines.iter().eq(expected.collect::<Vec<_>>().iter()),
        "{lines:?}"
    );

    let child = node.spawn(["sleep", "1000"]).unwrap();
    child.kill(15).unwrap();
    assert_eq!(child.wait(LONG).unwrap().status.signal(), Some(15));
    // It has ended; nobody minds.
    child.kill(15).unwrap();
}

fn an_unread_program_waits_and_an_abandoned_one_does_not(node: &Node) {
    let script = "head -c 8000000 /dev/zero; echo done >/tmp/unread";
    let child = node.spawn(["sh", "-c", script]).unwrap();
    let other = node.run(["echo", "the channel is free"]).unwrap();
    assert_eq!(other.stdout, b"the channel is free\n");
    assert!(node.read_file("/tmp/unread").is_err(), "8 MB went nowhere");
    let mut first = [0; 1000];
    child.stdout().read_exact(&mut first).unwrap();
    drop(child);
    node.run(["sh", "-c", "until test -e /tmp/unread; do sleep 0.1; done"])
        .unwrap();
}

fn a_daemon_does_not_hold_its_starter(node: &Node) {
    let script = "(sleep 2; head -c 300000 /dev/zero; echo >/tmp/daemon) & echo started";
    let output = node.run(["sh", "-c", script]).unwrap();
    assert_eq!(output.stdout, b"started\n");
    // Its output goes nowhere, but does not stop it.
    node.run(["sh", "-c", "until test -e /tmp/daemon; do sleep 0.1; done"])
        .unwrap();
}

fn files(node: &Node) {
    let bytes: Vec<u8> = (0..=255).cycle().take(1_000_000).collect();
    node.write_file("/srv/a/b/file", bytes.clone(), 0o640)
        .unwrap();
    assert_eq!(node.read_file("/srv/a/b/file").unwrap(), bytes);
    let mode = node.run(["stat", "-c", "%a", "/srv/a/b/file"]).unwrap();
    assert_eq!(mode.stdout, b"640\n");
    node.write_file("/srv/a/b/file", "short", 0o755).unwrap();
    assert_eq!(node.read_file("/srv/a/b/file").unwrap(), b"short");
    assert!(
        !std::path::Path::new("/srv/a/b/file").exists(),
        "written on the host"
    );
    node.write_file("/proc/sys/kernel/panic", "7", 0o644)
        .unwrap();
    assert_eq!(node.read_file("/proc/sys/kernel/panic").unwrap(), b"7\n");
    // Over a file of the host, which stays as it is.
    let on_host = std::fs::read("/etc/passwd").unwrap();
    node.write_file("/etc/passwd", "root:x:0:0::/:/bin/sh\n", 0o644)
        .unwrap();
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), on_host);
    let error = node.read_file("/no/such/file").unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error()),
        (ErrorKind::Failed, Some(2))
    );
    let error = node.write_file("/proc/x/y", "", 0o644).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("write /proc/x/y"), "{error}");
}

/// A program's checksum of what it read or wrote, against our bytes.
fn checksum(node: &Node, bytes: &[u8]) -> String {
    let output = node.run_ok(Command::new("sha256sum").stdin(bytes)).unwrap();
    output.stdout_text().split(' ').next().unwrap().to_owned()
}

fn big_streams_are_byte_exact(node: &Node) {
    let script = "head -c 20000000 /dev/urandom >/tmp/big; cat /tmp/big; sha256sum </tmp/big >&2";
    let output = node.run(["sh", "-c", script]).unwrap();
    assert_eq!(output.stdout.len(), 20_000_000);
    let said = output.stderr_text().split(' ').next().unwrap().to_owned();
    assert_eq!(
        checksum(node, &output.stdout),
        said,
        "bytes changed on the way"
    );

    // Both ways at once, through a program that echoes.
    let bytes = &output.stdout[..5_000_000];
    let child = node.spawn(Command::new("cat").stdin_piped()).unwrap();
    let back = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Pieces of all sizes, by the line and by file.
            let mut rest = bytes;
            for size in [1, 100, 2048, 2049, 70_000].into_iter().cycle() {
                let (now, later) = rest.split_at(rest.len().min(size));
                child.write_stdin(now).unwrap();
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            child.close_stdin().unwrap();
        });
        child.wait(LONG).unwrap()
    });
    assert!(
        back.stdout == bytes,
        "bytes changed on the way there and back"
    );

    // A program that does not want its input.
    let output = node
        .run(Command::new("true").stdin(vec![0; 3_000_000]))
        .unwrap();
    assert!(output.status.success());
    let child = node.spawn(Command::new("true").stdin_piped()).unwrap();
    child.write_stdin(&vec![0; 3_000_000]).unwrap();
    assert!(child.wait(LONG).unwrap().status.success());
}

fn many_at_once(node: &Node) {
    std::thread::scope(|scope| {
        for n in 0..24_u32 {
            scope.spawn(move || {
                let bytes: Vec<u8> = (0..150_000).map(|i| (i * n) as u8).collect();
                let script = "tee /tmp/many-$N | cat; sha256sum </tmp/many-$N >&2; exit $N";
                let command = Command::new("sh")
                    .args(["-c", script])
                    .env("N", n.to_string())
                    .stdin(bytes.clone());
                let output = node.run(command).unwrap();
                assert_eq!(output.status.code(), Some(n.cast_signed()));
                assert!(
                    output.stdout == bytes,
                    "program {n} has the bytes of another"
                );
                assert_eq!(output.stderr.len(), 64 + 4);
            });
        }
    });
}

fn orphans_are_reaped(node: &Node) {
    let script = "for i in 1 2 3 4 5; do (true & ) ; done; sleep 0.5; grep -l 'State:.Z' /proc/[0-9]*/status";
    let output = node.run(["sh", "-c", script]).unwrap();
    assert_eq!(output.stdout_text(), "", "zombies");
}

/// A node's kernel that has much to do loses edges of its serial line now and
/// then, some of them in as many answers: each must come all the same.
#[test]
#[ignore = "deep: takes minutes"]
fn deep_answers_under_load() {
    const ANSWERS: u32 = 100_000;
    const HANGS: u32 = 50;
    let mut lab = Lab::builder().name("load");
    for name in ["node1", "node2"] {
        lab = lab.node(name, |n| n.disk("64M").disk("64M"));
    }
    for n in 0..3 {
        let address = |host| format!("10.0.{n}.{host}/24");
        lab = lab.wire(format!("wire{n}"), |w| {
            w.port("node1", address(1)).port("node2", address(2))
        });
    }
    let Some(lab) = lab.start_for_test() else {
        return;
    };
    let program = std::env::current_exe().unwrap();
    let mut load = Vec::new();
    for (name, peer) in [("node1", 2), ("node2", 1)] {
        let mut add = |command: Command| load.push(lab.node(name).spawn(command).unwrap());
        for disk in ["ubda", "ubdb"] {
            let read =
                format!("while dd if=/dev/{disk} of=/dev/null bs=4k iflag=direct; do :; done");
            add(Command::from(["sh", "-c", &read]));
        }
        for n in 0..3 {
            let send = ["--exact", "inner_send", "--include-ignored"];
            let peer = format!("10.0.{n}.{peer}:{}", 7000 + n);
            add(Command::new(&program).args(send).env("PEER", peer));
        }
    }
    std::thread::scope(|scope| {
        for name in ["node1", "node2"] {
            let cat = lab.node(name).spawn(Command::new("cat").stdin_piped());
            let cat = cat.unwrap();
            let (sender, answers) = channel();
            let mut output = cat.stdout();
            scope.spawn(move || {
                let mut byte = [0];
                while output.read_exact(&mut byte).is_ok() && sender.send(byte[0]).is_ok() {}
            });
            scope.spawn(move || {
                let missed = (0..ANSWERS).find(|n| {
                    let byte = n.to_le_bytes()[0];
                    cat.write_stdin(&[byte]).unwrap();
                    answers.recv_timeout(LONG) != Ok(byte)
                });
                cat.kill(9).unwrap();
                assert_eq!(missed, None, "{name}");
            });
        }
        let node = lab.node("node1");
        for _ in 0..HANGS {
            std::thread::sleep(Duration::from_secs(1));
            node.hang().unwrap();
            std::thread::sleep(Duration::from_millis(500));
            node.resume().unwrap();
        }
    });
}

#[test]
#[ignore = "runs inside a node"]
fn inner_send() {
    let peer: SocketAddr = std::env::var("PEER").unwrap().parse().unwrap();
    let socket = UdpSocket::bind(("0.0.0.0", peer.port())).unwrap();
    let wait = Duration::from_millis(5);
    socket.set_read_timeout(Some(wait)).unwrap();
    let mut datagram = [0; 1400];
    loop {
        // What is lost is lost.
        for _ in 0..4 {
            let _ = socket.send_to(&datagram, peer);
        }
        let _ = (0..8).any(|_| socket.recv(&mut datagram).is_err());
    }
}

#[test]
#[ignore = "runs inside a node"]
fn inner_test() {
    assert_eq!(std::env::var("UML_LAB_NODE").unwrap(), "node1");
    assert_eq!(
        std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap(),
        "node1\n"
    );
    assert!(
        std::path::Path::new("Cargo.toml").exists(),
        "not in the package's directory"
    );
}

fn a_failing_or_unknown_inner_test_is_an_error(node: &Node) {
    let error = node.run_test("inner_failing_test").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(
        error.to_string().contains("this text is in the error"),
        "{error}"
    );
    let error = node.run_test("inner_tset").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("no such test"), "{error}");
    let changed = node.run_test_with("inner_changed_test", |c| c.env("SAID", "yes"));
    changed.unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn inner_failing_test() {
    panic!("this text is in the error");
}

#[test]
#[ignore = "runs inside a node"]
fn inner_changed_test() {
    assert_eq!(std::env::var("SAID").unwrap(), "yes");
}
