//! Writing: what is not touched stays, what is written is taken by drbdadm of 8.4 and 9.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use drbd_conf::{Config, Document, ErrorKind, MetaDisk, ResourceFile, Section};

const SEED: &str = include_str!("../../story/seed/drbd.conf");
const COMMON: &str = include_str!("../../story/seed/drbd.d/global_common.conf");

#[test]
fn the_defects_of_the_seed_are_edited_away_and_nothing_else() {
    let mut main = Document::parse(SEED, "drbd.conf").unwrap();
    for r in ["resource r0", "resource r1"] {
        assert!(main.remove(&[r, "startup"], "become-primary-on").unwrap());
        assert!(!main.remove(&[r, "startup"], "become-primary-on").unwrap());
        main.set(&[r, "startup"], "wfc-timeout", "120").unwrap();
        main.set(&[r, "disk"], "fencing", "resource-and-stonith")
            .unwrap();
        main.set(&[r, "handlers"], "fence-peer", "/usr/sbin/drbd-helper")
            .unwrap();
    }
    main.set(&["resource r1", "on node2"], "device", "/dev/drbd1")
        .unwrap();
    let mut common = Document::parse(COMMON, "global_common.conf").unwrap();
    assert!(common.remove(&["common"], "syncer").unwrap());
    common
        .set(&["common", "disk"], "resync-rate", "200M")
        .unwrap();
    // Every line that was not named is there, in its order.
    for (before, after) in [(SEED, main.text()), (COMMON, common.text())] {
        let mut rest = after.lines();
        for line in before.lines() {
            let named = [
                "become-primary-on",
                "wfc-timeout 15",
                "drbd2",
                "syncer",
                "rate 200M",
            ];
            if named.iter().any(|n| line.contains(n)) || line.trim() == "}" {
                continue;
            }
            assert!(rest.any(|l| l == line), "{line:?} is gone from\n{after}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("drbd.d")).unwrap();
    let path = dir.path().join("drbd.conf");
    main.save(&path).unwrap();
    common
        .save(dir.path().join("drbd.d/global_common.conf"))
        .unwrap();
    let config = Config::load(&path).unwrap();
    assert!(config.warnings().is_empty(), "{:#?}", config.warnings());
    // It holds secrets; the other file does not.
    let mode = |p: &str| {
        fs::metadata(dir.path().join(p))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("drbd.conf"), mode("drbd.d/global_common.conf")),
        (0o600, 0o644)
    );
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "something was left behind"
    );
    if let Some(drbdadm) = common::utils("DRBDADM84", "drbdadm-84") {
        let out = common::output(Command::new(drbdadm).env("__DRBD_NODE__", "node2").args([
            "-c",
            path.to_str().unwrap(),
            "-d",
            "up",
            "all",
        ]));
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
}

#[test]
fn layout_is_kept_in_every_form() {
    let edit = |text: &str, block: &[&str], keyword: &str, value: &str| {
        let mut d = Document::parse(text, "x").unwrap();
        d.set(block, keyword, value).unwrap();
        d.text().to_owned()
    };
    assert_eq!(
        edit("common { net { a 1; } }", &["common", "net"], "b", "x y"),
        "common { net { a 1; b \"x y\"; } }"
    );
    assert_eq!(
        edit(
            "common {\n\tnet {\n\t\ta 1; # why\n\t}\n}\n",
            &["common", "net"],
            "b",
            "2"
        ),
        "common {\n\tnet {\n\t\ta 1; # why\n\t\tb 2;\n\t}\n}\n"
    );
    assert_eq!(
        edit("", &["global"], "usage-count", "no"),
        "global {\n  usage-count no;\n}\n"
    );
    assert_eq!(
        edit("resource r0 { }", &["resource r0", "on a"], "node-id", "1"),
        "resource r0 { \n  on a {\n    node-id 1;\n  }\n}"
    );
    assert_eq!(
        edit(
            "skip { a {; } }\nglobal { a \"}\"; }",
            &["global"],
            "a",
            "b"
        ),
        "skip { a {; } }\nglobal { a b; }"
    );
    let mut d = Document::parse("global { a 1; }", "x").unwrap();
    assert_eq!(
        d.set(&["global"], "a", "1\n2").unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert!(d.set(&["global"], "a } b", "1").is_err());
    assert_eq!(d.text(), "global { a 1; }");
    assert_eq!(
        Document::parse("a {", "x").unwrap_err().kind(),
        ErrorKind::Syntax
    );
    assert_eq!(
        Document::open("/nowhere/x").unwrap_err().kind(),
        ErrorKind::Io
    );
    assert_eq!(d.save("/nowhere/x").unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn old_forms_are_rewritten() {
    let old = "common {\n  syncer { rate 10M; verify-alg sha1; use-rle; cpu-mask 3; } # then\n  \
               disk { no-disk-flushes; use-bmbv; }\n}\nresource r0 {\n  net { no-tcp-cork; }\n  \
               handlers { outdate-peer \"/bin/x y\"; }\n}\n";
    let mut d = Document::parse(old, "x").unwrap();
    let done = d.modernize().unwrap();
    assert_eq!(done.len(), 9, "{done:#?}");
    assert_eq!(d.modernize().unwrap(), [""; 0]);
    for (block, name, value) in [
        (["common", "disk"], "resync-rate", "10M"),
        (["common", "disk"], "disk-flushes", "no"),
        (["common", "net"], "verify-alg", "sha1"),
        (["common", "net"], "use-rle", "yes"),
        (["common", "options"], "cpu-mask", "3"),
        (["resource r0", "net"], "tcp-cork", "no"),
        (["resource r0", "handlers"], "fence-peer", "/bin/x y"),
    ] {
        assert_eq!(
            d.get(&block, name).as_deref(),
            Some(value),
            "{name}: {}",
            d.text()
        );
    }
    assert!(d.text().contains("# then"), "{}", d.text());
    assert!(!d.heads(&["common"]).contains(&"syncer".to_owned()));
    assert_eq!(d.get(&["common", "disk"], "use-bmbv"), None);
    assert_eq!(d.heads(&["no", "such"]), [""; 0]);
}

#[test]
fn a_new_file_is_taken_by_drbdadm() {
    let two = ResourceFile::new("r0")
        .set(Section::Net, "protocol", "C")
        .set(Section::Net, "shared-secret", "a \"b\" \\c")
        .set(Section::Net, "cram-hmac-alg", "sha256")
        .set(Section::Disk, "on-io-error", "detach")
        .set(Section::Handlers, "split-brain", "/bin/echo it; exit 0")
        .volume(0, 0, "/dev/vg/one two", MetaDisk::Internal)
        .volume(1, 1, "/dev/vdb", MetaDisk::Indexed("/dev/vdc".into(), 2))
        .host("alpha", "10.0.0.1:7788", Some(0))
        .host("beta", "[fd00::2]:7788", Some(1));
    let two = two.volume(2, 2, "/dev/vdd", MetaDisk::Flexible("/dev/vde".into()));
    assert!(!format!("{two:?}").contains("sha256"), "{two:?}");
    let three = ResourceFile::new("r1")
        .volume(0, 10, "/dev/vdf", MetaDisk::Internal)
        .host("alpha", "10.0.0.1:7789", Some(0))
        .host("beta", "10.0.0.2:7789", Some(1))
        .host("gamma", "10.0.0.3:7789", Some(2));
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("r0.res"), dir.path().join("r1.res"));
    two.save(&a).unwrap();
    three.save(&b).unwrap();
    assert_eq!(
        fs::metadata(&a).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let config = Config::load(&a).unwrap();
    let view = config.require("r0").unwrap().for_node("beta").unwrap();
    assert_eq!(
        view.peer().unwrap().net.text("shared-secret"),
        Some("a \"b\" \\c")
    );
    assert_eq!(
        view.volume(0).unwrap().disk.as_deref().unwrap().to_str(),
        Some("/dev/vg/one two")
    );
    assert_eq!(
        Config::load(&b)
            .unwrap()
            .require("r1")
            .unwrap()
            .for_node("gamma")
            .unwrap()
            .peers
            .len(),
        2
    );
    if let Some(drbdadm) = common::utils("DRBDADM", "drbdadm") {
        for name in ["r0.res", "r1.res"] {
            let file = dir.path().join("drbd.conf");
            let global = "global { usage-count no; disable-ip-verification; }";
            fs::write(&file, format!("{global}\ninclude \"{name}\";\n")).unwrap();
            let out = common::output(
                Command::new(&drbdadm)
                    .env("__DRBD_NODE__", "alpha")
                    .env("DRBD_DRIVER_VERSION_OVERRIDE", "9.2.18")
                    .args(["-c", file.to_str().unwrap(), "dump"]),
            );
            assert!(
                out.status.success(),
                "{}",
                String::from_utf8_lossy(&out.stderr)
            );
        }
    }
    for bad in [
        ResourceFile::new("a b"),
        ResourceFile::new("r").set(Section::Net, "protocol", "D"),
        ResourceFile::new("r").set(Section::Net, "no-such", "1"),
        ResourceFile::new("r").host("x", "10.0.0.1", None),
    ] {
        assert!(bad.text().is_err(), "{bad:?}");
    }
}
