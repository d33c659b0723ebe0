//! The demo's configuration: it parses, with warnings, and means what it should on each node.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use drbd_conf::{Config, ErrorKind, MetaDisk};

fn seed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../story/seed/drbd.conf")
}

#[test]
fn it_parses_with_warnings() {
    let config = Config::load(seed()).unwrap();
    let mut codes: Vec<_> = config.warnings().iter().map(|w| w.code).collect();
    codes.sort_unstable();
    assert_eq!(
        codes,
        [
            "become-primary-on",
            "become-primary-on",
            "boot-promotion",
            "boot-promotion",
            "device-differs",
            "no-fencing",
            "no-fencing",
            "syncer",
            "wfc-order",
            "wfc-order",
        ]
    );
    let syncer = config
        .warnings()
        .iter()
        .find(|w| w.code == "syncer")
        .unwrap();
    let at = syncer.location.as_ref().unwrap();
    assert!(at.file.ends_with("drbd.d/global_common.conf"), "{at}");
    assert_eq!(
        syncer.remedy.as_deref(),
        Some("write disk { resync-rate 200M; } instead")
    );
    let device = config
        .warnings()
        .iter()
        .find(|w| w.code == "device-differs")
        .unwrap();
    assert!(
        device
            .message
            .contains("r1 is minor 2 on node2 but minor 1 on node1"),
        "{device}"
    );
    assert!(config.warnings().iter().all(|w| w.remedy.is_some()));
    assert_eq!(config.files().count(), 2);
}

#[test]
fn it_resolves_for_each_node() {
    let config = Config::load(seed()).unwrap();
    let r1 = config.require("r1").unwrap();
    let view = r1.for_node("node2").unwrap();
    let volume = view.volume(0).unwrap();
    assert_eq!(
        (volume.minor, &*volume.device),
        (2, Path::new("/dev/drbd2"))
    );
    assert_eq!(volume.disk.as_deref(), Some(Path::new("/dev/sdc1")));
    assert_eq!(volume.meta_disk, Some(MetaDisk::Internal));
    assert_eq!(volume.options.number("resync-rate"), Some(204_800));
    let peer = view.peer().unwrap();
    assert_eq!(peer.name, "node1");
    assert_eq!(peer.paths[0].0.to_string(), "ipv4:10.0.254.2:7789");
    assert_eq!(peer.paths[0].1.to_string(), "ipv4:10.0.254.1:7789");
    assert_eq!(peer.volumes, [(0, 1, Path::new("/dev/drbd1").into())]);
    assert_eq!(peer.net.text("protocol"), Some("C"));
    assert_eq!(view.startup.number("wfc-timeout"), Some(15));
    assert_eq!(r1.sections.become_primary_on, ["node1"]);

    let e = r1.for_node("node3").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::UnknownNode);
    assert!(e.to_string().contains("node1, node2"), "{e}");
    let e = config.require("r2").unwrap_err();
    assert!(e.to_string().contains("r0, r1"), "{e}");
}

#[test]
fn the_secret_is_nowhere_to_be_seen() {
    let config = Config::load(seed()).unwrap();
    let view = config.require("r0").unwrap().for_node("node1").unwrap();
    let secret = view.peer().unwrap().net.get("shared-secret").unwrap();
    assert_eq!(secret.raw(), "super_secret_random_code");
    for shown in [
        format!("{:?}", config.resources),
        format!("{view:?}"),
        secret.to_string(),
    ] {
        assert!(!shown.contains("super_secret"), "{shown}");
    }
}

#[cfg(feature = "drbd-nl")]
#[test]
fn it_becomes_the_operations_of_drbdadm() {
    use drbd_nl::Dialect;
    let config = Config::load(seed()).unwrap();
    let view = config.require("r1").unwrap().for_node("node2").unwrap();
    let show = |steps: Vec<drbd_conf::Step>| -> Vec<String> {
        steps.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        show(view.up(Dialect::V84).unwrap()),
        [
            "new-resource r1",
            "new-minor r1/0 minor 2",
            "apply-al r1 minor 2 of /dev/sdc1, metadata internal",
            "attach minor 2 to /dev/sdc1, metadata internal --resync-rate=204800",
            "connect r1 ipv4:10.0.254.2:7789 ipv4:10.0.254.1:7789 \
         --shared-secret=(not shown) --cram-hmac-alg=sha1 --protocol=C",
        ]
    );
    assert_eq!(show(view.down().unwrap()), ["down r1"]);
    assert_eq!(show(view.detach()), ["detach minor 2"]);
    assert_eq!(
        show(view.disconnect(Dialect::V84).unwrap()),
        ["disconnect r1 ipv4:10.0.254.2:7789 ipv4:10.0.254.1:7789"]
    );
    // What DRBD 9 needs and is not written follows from the addresses, as drbdadm has it.
    assert_eq!((view.node_id, view.peers[0].node_id), (Some(0), Some(1)));
    assert_eq!(
        show(view.up(Dialect::V9).unwrap())[0],
        "new-resource r1 node-id 0"
    );
}
