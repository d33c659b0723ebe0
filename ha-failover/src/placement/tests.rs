#![allow(clippy::unwrap_used, reason = "tests")]
use super::parse::fence_deadline;
use super::*;

const GOOD: &str = r#"
version = 1

[[resource]]
name = "r0"
mount = "/srv/store1/"
lxcpath = "/srv/store1/containers"
owner = "node1"
nodes.node1.address = "10.0.254.1"
nodes.node2.address = "10.0.254.2"

[resource.fence]
method = "command"
status = ["/run/lab/power", "status", "{node}"]
off = ["/run/lab/power", "off", "{node}"]

[[resource.container]]
name = "app"
stop_deadline = "10s"
address = [{ ip = "10.1.0.20", mac = "00:16:3e:00:00:14", bridge = "br0" }]
ready.tcp = "10.1.0.20:7000"
"#;

fn refusal(text: &str) -> String {
    Placement::parse(text, "p.toml").unwrap_err().to_string()
}

#[test]
fn reads_a_whole_file() {
    let placement = Placement::parse(GOOD, "p.toml").unwrap();
    let r0 = placement.resource("r0").unwrap();
    assert_eq!(r0.mount, Path::new("/srv/store1"));
    assert_eq!(r0.peer_of("node2").unwrap(), "node1");
    assert_eq!(
        r0.containers[0].addresses[0].mac.to_string(),
        "00:16:3e:00:00:14"
    );
    assert_eq!(placement.local.drbd_conf, Path::new("/etc/drbd.conf"));
    let unknown = placement.resource("r7").unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::UnknownResource);
    assert_eq!(unknown.how_to_go_on(), Some("it has: r0"));
    assert_eq!(
        r0.peer_of("node9").unwrap_err().kind(),
        ErrorKind::Placement
    );
}

#[test]
fn the_example_shows_the_defaults() {
    let text = include_str!("../../examples/placement.toml");
    let placement = Placement::parse(text, "examples/placement.toml").unwrap();
    let r0 = placement.resource("r0").unwrap();
    assert_eq!(placement.local, Local::default());
    assert_eq!(r0.deadlines, Deadlines::default());
    assert!(matches!(&r0.fence, Fence::Command { deadline, .. } if *deadline == fence_deadline()));
    assert_eq!(r0.containers.len(), 2);
}

#[test]
fn says_where_it_is_wrong() {
    let at = refusal(&GOOD.replace("owner = \"node1\"", "onwer = \"node1\""));
    assert!(
        at.starts_with("placement p.toml:8:1: unknown field `onwer`"),
        "{at}"
    );
    let at = refusal(&GOOD.replace("owner = \"node1\"", "owner = \"node3\""));
    assert!(
        at.starts_with("placement p.toml:8:9: owner `node3` is not one of the nodes"),
        "{at}"
    );
    let at = refusal(&GOOD.replace("version = 1", "version = 2"));
    assert!(at.contains("p.toml:2:11"), "{at}");
    let at = refusal(&GOOD.replace("\"10s\"", "\"10 sec\""));
    assert!(
        at.contains("p.toml:19:") && at.contains("no duration"),
        "{at}"
    );
    let at = refusal("version = 1\n[[resource]\n");
    assert!(at.contains("p.toml:2:"), "{at}");
}

#[test]
fn refuses_what_cannot_be_right() {
    for (from, to, what) in [
        (
            "/srv/store1/containers",
            "/srv/store2/containers",
            "below the mount point",
        ),
        ("lxcpath = \"/srv", "lxcpath = \"srv", "absolute path"),
        (
            "name = \"app\"",
            "name = \"../app\"",
            "cannot be the name of a container",
        ),
        ("\"status\", \"{node}\"", "\"status\"", "{node}"),
        (
            "nodes.node2.address = \"10.0.254.2\"",
            "",
            "exactly two nodes",
        ),
        (
            "ready.tcp = \"10.1.0.20:7000\"",
            "ready = {}",
            "either `tcp`",
        ),
        ("00:16:3e:00:00:14", "00:16:3e:00:00", "no hardware address"),
        (
            "owner =",
            "mount_options = [\"degraded\"]\nowner =",
            "mount option `degraded`",
        ),
        (
            "version = 1",
            "version = 1\nlocal.state_dir = \"/srv/store1/state\"",
            "lies in the store",
        ),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let said = refusal(&GOOD.replace(from, to));
        assert!(said.contains(what), "{to}: {said}");
    }
}

#[test]
fn digest_names_what_both_nodes_share() {
    let one = Placement::parse(GOOD, "a").unwrap();
    let local = format!("local.state_dir = \"/elsewhere\"\n{GOOD}");
    let two = Placement::parse(&local, "b").unwrap();
    assert_eq!(one.resources[0].digest(), two.resources[0].digest());
    let other = Placement::parse(&GOOD.replace("\"10s\"", "\"20s\""), "c").unwrap();
    assert_ne!(one.resources[0].digest(), other.resources[0].digest());
    assert_eq!(
        differences(
            &one.resources[0].canonical(),
            &other.resources[0].canonical()
        ),
        ["containers[0].stop_deadline: \"10s\" here, \"20s\" there"]
    );
}

#[test]
fn containers_start_in_order() {
    let parse = |containers: &str| {
        let text = format!(
            r#"
version = 1
[[resource]]
name = "r0"
mount = "/srv/store1"
lxcpath = "/srv/store1/containers"
owner = "node1"
nodes.node1.address = "10.0.254.1"
nodes.node2.address = "10.0.254.2"
{containers}"#
        );
        Placement::parse(&text, "test").map(|p| {
            let names: Vec<_> = p.resources[0]
                .containers
                .iter()
                .map(|c| c.name.clone())
                .collect();
            names.join(" ")
        })
    };
    let container =
        |name: &str, rest: &str| format!("[[resource.container]]\nname = \"{name}\"\n{rest}\n");
    let order = parse(
        &[
            container("web", "after = [\"app\", \"db\"]\npriority = 9"),
            container("log", ""),
            container("app", "after = [\"db\"]"),
            container("db", "priority = 5"),
            container("last", "priority = -1"),
        ]
        .concat(),
    );
    assert_eq!(order.unwrap(), "db log app web last");
    let circle = [
        container("a", "after = [\"b\"]"),
        container("b", "after = [\"a\"]"),
        container("c", ""),
    ]
    .concat();
    let error = parse(&circle).unwrap_err().to_string();
    assert!(error.contains("wait for each other: a, b"), "{error}");
    for (wrong, says) in [("nobody", "no container"), ("a", "itself")] {
        let text = container("a", &format!("after = [\"{wrong}\"]"));
        let error = parse(&text).unwrap_err().to_string();
        assert!(
            error.contains(says) && error.contains("test:12:"),
            "{error}"
        );
    }
}
