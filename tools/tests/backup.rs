#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
//! `backup` on two nodes: snapshots of a container that runs, sent to a directory, to files and to
//! the other node, pruned, restored there, and a restore tried.

use std::time::Duration;

use serde_json::Value;
use uml_lab::{Command, Lab, Node};

const BACKUP: &str = env!("CARGO_BIN_EXE_backup");
const DEADLINE: Duration = Duration::from_secs(240);

const CONFIG: &str = "\
lxc.rootfs.path = btrfs:/srv/store/containers/app/rootfs
lxc.uts.name = app
lxc.mount.auto = proc:mixed sys:ro
lxc.signal.halt = SIGUSR1
lxc.net.0.type = empty
";
const INITTAB: &str = "::respawn:/bin/busybox sleep 1000\n";

#[test]
fn on_two_nodes() {
    let lab = Lab::builder()
        .name("backup")
        .packages([
            "btrfs-progs",
            "busybox-static",
            "lxc",
            "openssh-client",
            "openssh-server",
        ])
        .node("node1", |n| n.disk("256M").disk("256M"))
        .node("node2", |n| n.disk("256M"))
        .wire("net", |w| {
            w.port("node1", "10.0.7.1/24").port("node2", "10.0.7.2/24")
        })
        .start_for_test();
    let Some(lab) = lab else { return };
    let (one, two) = (lab.node("node1"), lab.node("node2"));
    one.run_test("mount_node").unwrap();
    two.run_test("mount_node").unwrap();
    let containers = "/srv/store/containers";
    for (path, text) in [
        ("app/config", CONFIG),
        ("app/rootfs/etc/inittab", INITTAB),
        ("app/rootfs/data", "one"),
    ] {
        one.write_file(format!("{containers}/{path}"), text, 0o644)
            .unwrap();
    }
    one.run_ok(["lxc-start", "-P", containers, "-n", "app"])
        .unwrap();

    // The container is frozen for the snapshot, and runs on.
    let snapshot = || {
        let args = [
            "snapshot",
            "--lxcpath",
            containers,
            "--into",
            "/srv/store/snapshots",
        ];
        backup(&one, &args)
    };
    let first = snapshot();
    assert_eq!(
        (&first["frozen"], &first["containers"][0]),
        (&1.into(), &"app".into()),
        "{first}"
    );
    let state = one
        .run_ok(["lxc-info", "-P", containers, "-n", "app", "-sH"])
        .unwrap();
    assert_eq!(state.stdout_text().trim(), "RUNNING");
    // A name for each second.
    std::thread::sleep(Duration::from_millis(1100));
    one.write_file(format!("{containers}/app/rootfs/data"), "two", 0o644)
        .unwrap();
    let second = snapshot();
    let names = [text(&first["snapshot"]), text(&second["snapshot"])];

    // To three kinds of target: all, then the difference, then nothing.
    let server = serve_ssh(&one, &two);
    let via = format!("ssh -F /run/ssh/config node2 {BACKUP}");
    let from = "/srv/store/snapshots";
    let targets: [&[&str]; 3] = [
        &["--to", "/srv/second/backup"],
        &["--to", "/srv/files", "--files"],
        &["--to", OTHER, "--via", &via],
    ];
    for target in targets {
        let send = |what: &str| {
            let args = [&["send", "--from", from][..], target].concat();
            let sent = backup(&one, &args);
            eprintln!("{what}: {sent}");
            sent
        };
        let sent = send("first");
        assert_eq!(sent.as_array().unwrap().len(), 2, "{sent}");
        assert_eq!(sent[0]["parent"], Value::Null);
        assert_eq!(text(&sent[1]["parent"]), names[0]);
        assert!(sent[1]["bytes"].as_u64().unwrap() < sent[0]["bytes"].as_u64().unwrap() / 10);
        assert_eq!(send("again"), Value::Array(Vec::new()));
    }
    for (node, dir) in [
        (&one, "/srv/second/backup"),
        (&one, "/srv/files"),
        (&two, OTHER),
    ] {
        let listed = backup(node, &["list", dir]);
        let found: Vec<_> = listed["app"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| text(&e["name"]))
            .collect();
        assert_eq!(found, names, "{dir}");
    }
    let data = format!("{OTHER}/app/{}/data", names[0]);
    assert_eq!(two.read_file(data).unwrap(), b"one");
    // Pruned by what the other machine has.
    let prune = ["prune", from, "--policy", "min no", "--dry-run"];
    let remote = ["--to", OTHER, "--via", &via];
    let report = backup(&one, &[&prune[..], &remote].concat());
    assert_eq!(report[1]["reasons"][0]["pinned"], "last-common", "{report}");
    // The other machine is gone, and that is said.
    server.kill(15).unwrap();
    let send = ["send", "--from", from];
    let (status, output) = run(&one, &[&send[..], &remote].concat());
    assert_eq!(status, Some(1), "{output}");
    assert!(text(&output["error"]).contains("node2"), "{output}");

    // Files are verified; one that rots is found.
    assert_eq!(
        backup(&one, &["verify", "/srv/files"])
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let stream = format!("/srv/files/app/{}.stream", names[1]);
    let mut bytes = one.read_file(&stream).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    one.write_file("/srv/rotten.stream", bytes, 0o644).unwrap();
    let (status, output) = run(&one, &["verify", "/srv/rotten.stream"]);
    assert_eq!(
        (status, &output[0]["ok"]),
        (Some(1), &false.into()),
        "{output}"
    );

    // Restores: from a Btrfs, on the other node, and from files, which takes the whole chain.
    let restore_test = |node: &Node, from: &str, command: &str| {
        let lxcpath = "/srv/store/containers";
        let args = [
            "restore-test",
            "app",
            "--from",
            from,
            "--lxcpath",
            lxcpath,
            "--run",
            command,
            "--deadline",
            "200s",
        ];
        run(node, &args)
    };
    let right = r#"test "$(cat /data)" = two"#;
    for (node, from) in [
        (&two, OTHER),
        (&one, "/srv/files"),
        (&one, "/srv/second/backup"),
    ] {
        let (status, output) = restore_test(node, from, right);
        assert_eq!(status, Some(0), "{from}: {output}");
        eprintln!("{from}: {output}");
    }
    let (status, output) = restore_test(&two, OTHER, "false");
    assert_eq!(status, Some(1));
    assert!(
        text(&output["error"]).contains("in the restored container"),
        "{output}"
    );
    let left = two
        .run_ok(["/bin/busybox", "ls", "/srv/store/containers"])
        .unwrap();
    assert_eq!(left.stdout_text().trim(), "", "thrown away");
    let args = [
        "restore",
        "app",
        "--from",
        OTHER,
        "--snapshot",
        &names[0],
        "--lxcpath",
        containers,
        "--name",
        "again",
    ];
    backup(&two, &args);
    assert_eq!(
        two.read_file("/srv/store/containers/again/rootfs/data")
            .unwrap(),
        b"one"
    );
    two.run_ok(["lxc-start", "-P", containers, "-n", "again"])
        .unwrap();
    two.run_ok(["lxc-stop", "-k", "-P", containers, "-n", "again"])
        .unwrap();

    // Pruning: the newest stays, and with a policy of nothing the last common one; a stream file
    // that another builds on stays as long as that.
    let reasons = |report: &Value| -> Vec<(bool, String)> {
        let rows = report.as_array().unwrap().iter();
        rows.map(|row| (row["keep"].as_bool().unwrap(), row["reasons"].to_string()))
            .collect()
    };
    let report = backup(
        &one,
        &[
            "prune",
            from,
            "--policy",
            "min no",
            "--dry-run",
            "--to",
            "/srv/second/backup",
        ],
    );
    assert_eq!(
        reasons(&report),
        [
            (false, r#"["not-asked-for"]"#.to_owned()),
            (true, r#"[{"pinned":"last-common"}]"#.to_owned()),
        ]
    );
    let report = backup(&one, &["prune", "/srv/files", "--policy", "min latest"]);
    assert_eq!(
        reasons(&report)[0],
        (true, r#"["needed-by-a-kept-one"]"#.to_owned())
    );
    backup(&one, &["prune", from, "--policy", "min latest"]);
    let listed = backup(&one, &["list", from]);
    assert_eq!(listed["app"].as_array().unwrap().len(), 1, "{listed}");

    // What is wrong is said.
    for (args, words) in [
        (
            &[
                "restore",
                "none",
                "--from",
                from,
                "--lxcpath",
                containers,
                "--name",
                "x",
            ][..],
            "no such snapshot",
        ),
        (
            &[
                "restore",
                "app",
                "--from",
                from,
                "--lxcpath",
                containers,
                "--name",
                "app",
            ],
            "File exists",
        ),
        (
            &["snapshot", "none", "--lxcpath", containers, "--into", from],
            "none",
        ),
        (
            &[
                "snapshot",
                "app",
                "--lxcpath",
                containers,
                "--into",
                "/tmp/x",
            ],
            "not on a Btrfs file system",
        ),
        (&["verify", "/none"], "/none"),
    ] {
        let (status, output) = run(&one, args);
        assert_eq!(status, Some(1), "{args:?}: {output}");
        assert!(text(&output["error"]).contains(words), "{args:?}: {output}");
    }
    let (status, _) = run(&one, &["prune", from, "--policy", "sometimes"]);
    assert_eq!(status, Some(2));
    one.run_ok(["lxc-stop", "-k", "-P", containers, "-n", "app"])
        .unwrap();
}

/// Where the other machine keeps them; a shell has to be told that it is one word.
const OTHER: &str = "/srv/store/it's a backup";

/// An sshd on one node that the other one can log in to with its key.
fn serve_ssh(client: &Node, server: &Node) -> uml_lab::Child {
    let key = |node: &Node, path: &str| {
        let keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path];
        node.run_ok(["mkdir", "-p", "/run/ssh"]).unwrap();
        node.run_ok(keygen).unwrap();
        node.read_file(format!("{path}.pub")).unwrap()
    };
    let user = key(client, "/run/ssh/user");
    let host = key(server, "/run/ssh/host");
    server.write_file("/run/ssh/users", user, 0o600).unwrap();
    server
        .write_file("/run/ssh/sshd_config", SSHD, 0o600)
        .unwrap();
    // sshd gives up what it can do, to this user.
    let account =
        "id sshd || echo sshd:x:105:65534::/run/sshd:/bin/false >>/etc/passwd; mkdir -p /run/sshd";
    server.run_ok(["sh", "-c", account]).unwrap();
    let known = [b"node2 ", &host[..]].concat();
    client.write_file("/run/ssh/known", known, 0o644).unwrap();
    client.write_file("/run/ssh/config", SSH, 0o644).unwrap();
    let sshd = server
        .spawn(["/usr/sbin/sshd", "-D", "-e", "-f", "/run/ssh/sshd_config"])
        .unwrap();
    // Until it listens.
    let tried = ["ssh", "-F", "/run/ssh/config", "node2", "true"];
    let listens = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        client.run(tried).unwrap().status.success()
    });
    assert!(listens, "{:?}", sshd.try_status());
    sshd
}

const SSHD: &str = "\
HostKey /run/ssh/host
AuthorizedKeysFile /run/ssh/users
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
";
const SSH: &str = "\
Host node2
  HostName 10.0.7.2
  HostKeyAlias node2
  User root
  IdentityFile /run/ssh/user
  UserKnownHostsFile /run/ssh/known
  BatchMode yes
  ConnectTimeout 20
";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn run(node: &Node, arguments: &[&str]) -> (Option<i32>, Value) {
    let command = Command::new(BACKUP)
        .arg("--json")
        .args(arguments)
        .deadline(DEADLINE);
    let output = node.run(command).unwrap();
    let errors = output.stderr_text();
    if !errors.is_empty() {
        eprintln!("{arguments:?}: {errors}");
    }
    let value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), value)
}

fn backup(node: &Node, arguments: &[&str]) -> Value {
    let (status, value) = run(node, arguments);
    assert_eq!(status, Some(0), "{arguments:?}: {value}");
    value
}

/// Inside a node: file systems, and the tree of a container.
#[test]
#[ignore = "runs inside a node"]
fn mount_node() {
    use std::fs;
    let node = std::env::var("UML_LAB_NODE").unwrap();
    for (device, at) in [("/dev/ubda", "/srv/store"), ("/dev/ubdb", "/srv/second")] {
        if !std::path::Path::new(device).exists() {
            continue;
        }
        let mkfs = std::process::Command::new("mkfs.btrfs")
            .args(["-q", device])
            .status()
            .unwrap();
        assert!(mkfs.success());
        fs::create_dir_all(at).unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "btrfs", device, at])
            .status();
        assert!(mount.unwrap().success());
    }
    fs::create_dir_all("/srv/store/containers").unwrap();
    fs::create_dir_all("/srv/files").unwrap();
    if node == "node1" {
        let root = std::path::Path::new("/srv/store/containers/app/rootfs");
        fs::create_dir(root.parent().unwrap()).unwrap();
        btrfs_ops::Subvolume::create_path(root).unwrap();
        for dir in ["bin", "sbin", "dev", "proc", "sys", "tmp", "etc"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        std::os::unix::fs::symlink("../bin/busybox", root.join("sbin/init")).unwrap();
        for name in ["sh", "cat", "test", "true", "false"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
        }
    }
}
