//! Two nodes and what can happen to them: wires, cuts, loss, boot on the same
//! disks, the power switch, layers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use uml_lab::{ErrorKind, Lab, Node};

#[test]
fn cluster() {
    let layers = tempfile::tempdir().unwrap();
    let (below, above) = (layers.path().join("below"), layers.path().join("above"));
    for (layer, text) in [(&below, "below"), (&above, "above")] {
        std::fs::create_dir_all(layer.join("etc")).unwrap();
        std::fs::write(layer.join("etc/layered"), text).unwrap();
        std::fs::write(layer.join("etc").join(text), text).unwrap();
    }
    let own_disk = layers.path().join("own-disk");
    std::fs::write(&own_disk, vec![7; 1 << 20]).unwrap();
    let Some(lab) = Lab::builder()
        .name("cluster")
        .node("node1", |n| {
            n.disk("64M").disk_file(&own_disk).keep("/var/lib/kept")
        })
        .node("node2", |n| n.disk("64M").memory("256M"))
        .wire("repl", |w| {
            w.port("node1", "10.0.254.1/30")
                .port("node2", "10.0.254.2/30")
        })
        .wire("service", |w| {
            w.mtu(4000)
                .port("node2", "fd00::2/64")
                .port("node1", "fd00::1/64")
        })
        .wire("bare", |w| w.port("node1", ""))
        .layer(&below)
        .layer(&above)
        .start_for_test()
    else {
        return;
    };
    interfaces(&lab);
    layers_lie_in_order(&lab.node("node1"));
    frames_flow_and_cuts_have_directions(&lab);
    bulk_traffic_is_byte_exact(&lab);
    disks_and_kept_directories_survive_loss(&lab, &own_disk);
    a_lost_node_is_noticed(&lab);
    a_panicking_kernel_is_noticed(&lab);
    the_power_switch(&lab);
    frames_flow_and_cuts_have_directions(&lab);
    assert_eq!(std::fs::read(&own_disk).unwrap()[..5], *b"mine!");
}

fn interfaces(lab: &Lab) {
    let show = "for i in /sys/class/net/*; do echo ${i##*/} $(cat $i/operstate); done";
    let output = lab.node("node1").run(["sh", "-c", show]).unwrap();
    let text = output.stdout_text();
    for name in ["lo", "vec0", "vec1", "vec2"] {
        assert!(text.contains(name), "{text}");
    }
    let mtu = |name: &str| {
        let file = format!("/sys/class/net/{name}/mtu");
        lab.node("node1").read_file(file).unwrap()
    };
    assert_eq!(
        (mtu("vec0"), mtu("vec1")),
        (b"1500\n".to_vec(), b"4000\n".to_vec())
    );
    let memory = lab.node("node2").read_file("/proc/meminfo").unwrap();
    let memory = String::from_utf8(memory).unwrap();
    let total: u64 = memory.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!((200_000..262_144).contains(&total), "{total} kB");
}

fn layers_lie_in_order(node: &Node) {
    assert_eq!(node.read_file("/etc/layered").unwrap(), b"above");
    assert_eq!(node.read_file("/etc/below").unwrap(), b"below");
    assert_eq!(node.read_file("/etc/above").unwrap(), b"above");
}

/// Frames an interface of a node has received.
fn received(node: &Node, interface: &str) -> u64 {
    let file = format!("/sys/class/net/{interface}/statistics/rx_packets");
    let text = String::from_utf8(node.read_file(file).unwrap()).unwrap();
    text.trim().parse().unwrap()
}

/// Sends ten datagrams from one node, which need no answer to find their way.
fn send_ten(from: &Node, to: &str) {
    from.run_test_with("inner_send", |c| c.env("TO", to))
        .unwrap();
}

#[test]
#[ignore = "runs inside a node"]
fn inner_send() {
    let to = std::env::var("TO").unwrap();
    let any = if to.starts_with('[') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_broadcast(true).unwrap();
    for _ in 0..10 {
        // Refused where nobody listens, which is for the second and later.
        let _ = socket.send_to(b"ping", &to);
    }
}

fn assert_arrives(from: &Node, to: &Node, interface: &str, address: &str) {
    let before = received(to, interface);
    send_ten(from, address);
    let until = Instant::now() + Duration::from_secs(60);
    while received(to, interface) < before + 10 {
        assert!(Instant::now() < until, "nothing came on {interface}");
    }
}

const BROADCAST: &str = "10.0.254.3:7000";
/// node2 on the wire "service".
const SERVICE: &str = "[fd00::2]:7000";

fn frames_flow_and_cuts_have_directions(lab: &Lab) {
    let (node1, node2) = (lab.node("node1"), lab.node("node2"));
    let wire = lab.wire("repl");
    assert_arrives(&node1, &node2, "vec0", BROADCAST);
    assert!(wire.carried("node1", "node2") >= 10);
    wire.cut("node1", "node2");
    assert!(wire.is_cut("node1", "node2") && !wire.is_cut("node2", "node1"));
    let (carried, before) = (wire.carried("node1", "node2"), received(&node2, "vec0"));
    send_ten(&node1, BROADCAST);
    // The way back is open, and what node1 sent before has had its time.
    assert_arrives(&node2, &node1, "vec0", BROADCAST);
    assert_eq!(wire.carried("node1", "node2"), carried);
    assert_eq!(received(&node2, "vec0"), before);
    // The other wire is whole.
    assert_arrives(&node1, &node2, "vec1", SERVICE);
    wire.heal("node1", "node2");
    assert_arrives(&node1, &node2, "vec0", BROADCAST);
    wire.cut_all();
    assert!(wire.is_cut("node2", "node1"));
    // The lab reaches nodes that are cut off from each other.
    assert_eq!(node2.run(["uname", "-n"]).unwrap().stdout, b"node2\n");
    wire.heal_all();
    assert!(!wire.is_cut("node2", "node1"));
}

fn bulk_traffic_is_byte_exact(lab: &Lab) {
    let (node1, node2) = (lab.node("node1"), lab.node("node2"));
    std::thread::scope(|scope| {
        scope.spawn(|| node1.run_test("inner_receive_bulk").unwrap());
        node2.run_test("inner_send_bulk").unwrap();
    });
}

const BULK: usize = 8_000_000;

fn bulk() -> Vec<u8> {
    (0..BULK)
        .map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8)
        .collect()
}

#[test]
#[ignore = "runs inside a node"]
fn inner_receive_bulk() {
    let listener = TcpListener::bind("10.0.254.1:7002").unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes == bulk());
}

#[test]
#[ignore = "runs inside a node"]
fn inner_send_bulk() {
    let until = Instant::now() + Duration::from_secs(60);
    let mut stream = loop {
        match TcpStream::connect("10.0.254.1:7002") {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > until => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let start = Instant::now();
    stream.write_all(&bulk()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    eprintln!("{} bytes in {:?}", BULK, start.elapsed());
}

fn disks_and_kept_directories_survive_loss(lab: &Lab, own_disk: &Path) {
    let node = lab.node("node1");
    let write = "printf mine! | dd of=/dev/ubdb conv=notrunc 2>&1 && \
                 printf theirs | dd of=/dev/ubda bs=4096 seek=100 conv=notrunc 2>&1 && \
                 blockdev --flushbufs /dev/ubda && blockdev --flushbufs /dev/ubdb && \
                 echo journal >/var/lib/kept/journal && echo gone >/etc/gone";
    node.run_ok(["sh", "-c", write]).unwrap();
    let size = node
        .run_ok(["blockdev", "--getsize64", "/dev/ubda"])
        .unwrap();
    assert_eq!(size.stdout_text(), "67108864\n");
    node.kill().unwrap();
    assert!(!node.is_running());
    // Twice is once.
    node.kill().unwrap();

    let mut disk = std::fs::File::open(node.disk_path(0)).unwrap();
    let mut found = [0; 6];
    disk.seek(SeekFrom::Start(409_600)).unwrap();
    disk.read_exact(&mut found).unwrap();
    assert_eq!(&found, b"theirs");
    assert_eq!(
        std::fs::canonicalize(node.disk_path(1)).unwrap(),
        own_disk.canonicalize().unwrap()
    );
    assert_eq!(
        std::fs::read(node.keep_path(0).join("journal")).unwrap(),
        b"journal\n"
    );

    let error = node.run("true").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NodeDown);
    assert!(
        error
            .to_string()
            .contains("node node1: run true: it was killed"),
        "{error}"
    );
    assert!(!error.console_lines().is_empty());

    node.boot().unwrap();
    assert_eq!(node.boot().unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(
        node.read_file("/var/lib/kept/journal").unwrap(),
        b"journal\n"
    );
    assert_eq!(
        node.read_file("/etc/gone").unwrap_err().raw_os_error(),
        Some(2)
    );
    let read = "dd if=/dev/ubda bs=4096 skip=100 count=1 2>/dev/null | head -c 6";
    assert_eq!(node.run(["sh", "-c", read]).unwrap().stdout, b"theirs");
}

fn a_lost_node_is_noticed(lab: &Lab) {
    let node = lab.node("node2");
    let child = node.spawn(["sh", "-c", "echo before; sleep 1000"]).unwrap();
    let mut first = [0; 7];
    child.stdout().read_exact(&mut first).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| child.wait(Duration::from_secs(120)));
        node.kill().unwrap();
        assert_eq!(
            waiting.join().unwrap().unwrap_err().kind(),
            ErrorKind::NodeDown
        );
    });
    let error = child.stdout().read(&mut first).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    assert_eq!(child.kill(9).unwrap_err().kind(), ErrorKind::NodeDown);
    node.boot().unwrap();
}

fn a_panicking_kernel_is_noticed(lab: &Lab) {
    let node = lab.node("node2");
    let error = node
        .run(["sh", "-c", "echo c >/proc/sysrq-trigger; sleep 1000"])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NodeDown, "{error}");
    let text = error.to_string();
    assert!(text.contains("its kernel ended by itself"), "{text}");
    assert!(text.contains("Kernel panic"), "{text}");
    assert!(!node.is_running());
    node.boot().unwrap();
}

fn the_power_switch(lab: &Lab) {
    let node = lab.node("node1");
    let power = |verb: &str, name: &str| {
        let output = node.run(["/run/lab/power", verb, name]).unwrap();
        (output.status.code(), output.stdout_text())
    };
    assert_eq!(power("status", "node2"), (Some(0), "on\n".to_owned()));
    assert_eq!(power("off", "node2"), (Some(0), "off\n".to_owned()));
    assert!(!lab.node("node2").is_running());
    assert_eq!(power("status", "node2"), (Some(2), "off\n".to_owned()));
    assert_eq!(power("off", "node2").0, Some(0));
    assert_eq!(power("on", "node2").0, Some(0));
    assert!(lab.node("node2").is_running());
    assert_eq!(power("on", "node2").0, Some(0));
    assert_eq!(power("status", "node9").0, Some(1));
    assert_eq!(power("explode", "node2").0, Some(1));
    // A node can switch itself off.
    let error = node.run(["/run/lab/power", "off", "node1"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NodeDown);
    node.boot().unwrap();
}
