//! What the grammar takes and refuses, and where errors point.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;

use drbd_conf::{Config, ErrorKind, Family, HostName, MetaDisk};

fn parse(text: &str) -> Config {
    Config::parse(text, "test.conf").unwrap_or_else(|e| panic!("{e}"))
}

/// Parses what must fail; gives kind, line:column of the first diagnostic, and the whole text.
fn fails(text: &str) -> (ErrorKind, String, String) {
    let e = Config::parse(text, "test.conf").expect_err(text);
    let at = e.diagnostics()[0]
        .location
        .as_ref()
        .map(|l| format!("{}:{}", l.line, l.column));
    (e.kind(), at.unwrap_or_default(), e.to_string())
}

/// A resource of two nodes with something added to it.
fn with(extra: &str) -> String {
    format!(
        "resource r0 {{
  {extra}
  device /dev/drbd0; disk /dev/vdb; meta-disk internal;
  on alpha {{ address 10.0.0.1:7788; }}
  on beta {{ address 10.0.0.2:7788; }}
}}
"
    )
}

#[test]
fn an_error_shows_line_column_and_expectation() {
    let text = "resource r0 {\n\tprotocol C\n\tstartup { wfc-timeout 15; }\n}\n";
    let (kind, at, shown) = fails(text);
    assert_eq!((kind, at.as_str()), (ErrorKind::Syntax, "2:12"));
    assert_eq!(
        shown,
        "test.conf:2:12: error: expected \";\" after \"C\", found \"startup\" [syntax]\n \
         2 | \tprotocol C\n   | \t          ^"
    );
}

#[test]
fn errors_point_to_their_place() {
    for (text, kind, at, expected) in [
        (
            "resource r0 {",
            ErrorKind::Syntax,
            "1:13",
            "expected \"}\" to close this block",
        ),
        ("}", ErrorKind::Syntax, "1:1", "without a block to close"),
        (
            "resource { }",
            ErrorKind::Syntax,
            "1:10",
            "expected the name of the resource",
        ),
        (
            "resource \"a b\" { }",
            ErrorKind::Invalid,
            "1:10",
            "white space",
        ),
        (
            "resource all { }",
            ErrorKind::Invalid,
            "1:10",
            "every resource",
        ),
        (
            "resource a/b { }",
            ErrorKind::Invalid,
            "1:10",
            "cannot contain",
        ),
        (
            "frobnicate;",
            ErrorKind::Syntax,
            "1:1",
            "expected global, common, resource",
        ),
        (
            "global { usage-count maybe; }",
            ErrorKind::Invalid,
            "1:22",
            "\"yes\", \"no\" or \"ask\"",
        ),
        (
            "common { on a { } }",
            ErrorKind::Syntax,
            "1:10",
            "hosts and volumes belong into",
        ),
        (
            "common { net { timeout abc; } }",
            ErrorKind::Invalid,
            "1:24",
            "a number for timeout",
        ),
        (
            "common { net { timeout 601; } }",
            ErrorKind::Invalid,
            "1:24",
            "1 to 600 are possible",
        ),
        (
            "common { net { timeut 60; } }",
            ErrorKind::Invalid,
            "1:16",
            "\"timeout\" is similar",
        ),
        (
            "common { net { protocol D; } }",
            ErrorKind::Invalid,
            "1:25",
            "one of A, B, C",
        ),
        (
            "common { net { timeout; } }",
            ErrorKind::Syntax,
            "1:23",
            "expected a value for timeout",
        ),
        (
            "common { net { timeout 6 7; } }",
            ErrorKind::Syntax,
            "1:25",
            "expected \";\" after \"6\"",
        ),
        (
            "common { disk { disk-flushes maybe; } }",
            ErrorKind::Invalid,
            "1:30",
            "\"yes\", \"no\"",
        ),
        (
            "common { net { shared-secret = x; } }",
            ErrorKind::Syntax,
            "1:30",
            "double quotes",
        ),
        (
            "common { handlers { fence-peer \"a",
            ErrorKind::Syntax,
            "1:32",
            "the closing quote",
        ),
        (
            "include \"nowhere.conf\";",
            ErrorKind::Io,
            "1:9",
            "cannot be read",
        ),
        (
            "common { } common { }",
            ErrorKind::Invalid,
            "1:12",
            "a second \"common\"",
        ),
        (
            "common { syncer { foo 1; } }",
            ErrorKind::Syntax,
            "1:19",
            "the old syncer section",
        ),
        (
            "common { net { discard-my-data; } }",
            ErrorKind::Invalid,
            "1:16",
            "a wish at connect",
        ),
    ] {
        let (k, a, shown) = fails(text);
        assert_eq!((k, a.as_str()), (kind, at), "{text}\n{shown}");
        assert!(shown.contains(expected), "{text}\n{shown}");
    }
}

#[test]
fn errors_in_a_resource_point_to_their_place() {
    for (extra, at, expected) in [
        (
            "on alpha { address 10.0.0.3:1; }",
            "4:3",
            "a second section for host \"alpha\"",
        ),
        ("on gamma { }", "2:3", "expected an \"address\" for gamma"),
        (
            "on gamma { address 10.0.0.3:70000; }",
            "2:31",
            "a port from 1 to 65535",
        ),
        (
            "on gamma { address 10.0.0.300:7; }",
            "2:22",
            "expected an address like",
        ),
        (
            "on gamma { address ipv6 [fd::zz]:7; }",
            "2:28",
            "expected an IPv6 address",
        ),
        (
            "on gamma { address ipv6 10.0.0.1:7; }",
            "2:27",
            "expected \"[\"",
        ),
        (
            "volume 0 { device minor 1; }",
            "3:3",
            "both \"volume\" blocks and",
        ),
        ("protocol C; protocol A;", "2:15", "a second \"protocol\""),
        ("net { } net { }", "2:11", "a second \"net\""),
        (
            "on c { address 10.0.0.1:7788; }",
            "4:3",
            "is used by resource r0 already",
        ),
        (
            "connection { host alpha; host delta; }",
            "2:28",
            "no host \"delta\" in resource r0",
        ),
        ("connection { host alpha; }", "2:3", "found 1"),
        ("connection-mesh { hosts alpha; }", "2:3", "at least two"),
        ("floating { }", "2:12", "expected an address"),
        (
            "connection { host alpha; path { host alpha; host beta; } }",
            "2:3",
            "both \"path\" blocks and \"host\" statements",
        ),
        (
            "connection { host alpha; host beta address 10.0.0.1:7788; }",
            "2:28",
            "is used for both ends",
        ),
        (
            "connection { address 10.0.0.9:1; host beta; }",
            "2:16",
            "no host with the address ipv4:10.0.0.9:1",
        ),
        (
            "connection { host alpha via proxy on p { inside 10.0.0.8:1; outside 10.0.0.8:2; } host beta; }",
            "2:85",
            "one end goes through a proxy",
        ),
        (
            "connection { host alpha via proxy on p { inside 10.0.0.8:1; } host beta; }",
            "2:16",
            "expected \"inside\" and \"outside\"",
        ),
        (
            "connection-mesh { hosts alpha beta; disk { } }",
            "2:39",
            "expected hosts or net",
        ),
        ("template-file \"nowhere.conf\";", "2:17", "cannot be read"),
    ] {
        let (_, a, shown) = fails(&with(extra));
        assert!(shown.contains(expected), "{extra}\n{shown}");
        assert_eq!(a, at, "{extra}\n{shown}");
    }
}

#[test]
fn devices_are_checked() {
    let host = |device: &str| {
        format!(
            "resource r {{ on a {{ {device} disk /dev/x; meta-disk internal; address 1.2.3.4:5; }} }}"
        )
    };
    for (device, expected) in [
        ("device /dev/sda;", "starts with /dev/drbd"),
        ("device /dev/drbd_x;", "no minor number in its name"),
        ("device /dev/drbd1 minor 2;", "cannot have minor 2"),
        ("device /dev/drbdx minor 2;", "cannot have minor 2"),
        ("device minor 1048576;", "out of range"),
        ("", "expected a \"device\" for a"),
    ] {
        let (_, _, shown) = fails(&host(device));
        assert!(shown.contains(expected), "{device}\n{shown}");
    }
    for (device, path, minor) in [
        ("device drbd3;", "/dev/drbd3", 3),
        ("device /dev/drbd3 minor 3;", "/dev/drbd3", 3),
        ("device /dev/drbd_data minor 4;", "/dev/drbd_data", 4),
        ("device minor 5;", "/dev/drbd5", 5),
    ] {
        let config = parse(&host(device));
        let view = config.require("r").unwrap().for_node("a").unwrap();
        assert_eq!(
            (
                view.volumes[0].device.to_str().unwrap(),
                view.volumes[0].minor
            ),
            (path, minor)
        );
    }
}

#[test]
fn a_template_stands_for_common() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let conf = dir.path().join("drbd.conf");
    write(
        "drbd.conf",
        &format!(
            "common {{ net {{ timeout 50; }} }}\n{}",
            with("template-file \"t\"; net { ping-int 3; }")
        ),
    );
    write("t", "common { net { ping-int 9; protocol A; } }");
    let config = Config::load(&conf).unwrap();
    let net = &config.require("r0").unwrap().sections.net;
    assert_eq!(net.number("timeout"), None);
    assert_eq!(net.number("ping-int"), Some(3));
    assert_eq!(net.text("protocol"), Some("A"));
    for (template, said) in [
        ("resource x { }", "expected one common section"),
        ("common { } common { }", "expected one common section"),
        (
            "common { on a { } }",
            "hosts and volumes belong into a resource",
        ),
        ("common {", "to close this block"),
    ] {
        write("t", template);
        let e = Config::load(&conf).unwrap_err();
        assert!(e.to_string().contains(said), "{template}: {e}");
        let at = e.diagnostics()[0].location.as_ref().unwrap();
        assert_eq!(at.file, dir.path().join("t"), "{template}");
    }
}

#[test]
fn what_is_stacked_is_on_the_hosts_below() {
    let upper = |name: &str, n: u32| {
        format!(
            "resource {name} {{ stacked-on-top-of r0 {{ device /dev/drbd1{n}; address 10.0.2.1:779{n}; }} \
             on gamma {{ device /dev/drbd1{n}; disk /dev/vdx; address 10.0.0.3:779{n}; }} }}"
        )
    };
    let text = with("") + &upper("up", 1);
    let config = parse(&text);
    let up = config.require("up").unwrap();
    assert_eq!(up.nodes(), ["alpha", "beta", "gamma"]);
    let on_beta = up.for_node("beta").unwrap();
    assert_eq!(
        on_beta.volumes[0].disk.as_deref(),
        Some(Path::new("/dev/drbd0"))
    );
    assert_eq!(on_beta.volumes[0].meta_disk, Some(MetaDisk::Internal));
    assert_eq!(on_beta.peer().unwrap().connection, "gamma");
    let on_gamma = up.for_node("gamma").unwrap();
    assert_eq!(on_gamma.peer().unwrap().connection, "alpha_beta");
    for (text, said) in [
        (upper("up", 1), "no resource \"r0\" to be stacked on"),
        (text + &upper("more", 2), "is stacked on \"r0\" already"),
        (
            with("") + &upper("up", 1).replace("/dev/drbd11", "/dev/drbd0"),
            "minor 0 is used on alpha by r0/0 already",
        ),
    ] {
        let (_, _, shown) = fails(&text);
        assert!(shown.contains(said), "{text}\n{shown}");
    }
}

#[test]
fn every_error_is_reported_at_once() {
    let text = with("net { timeout 0; }\n disk { on-io-error x; }");
    let e = Config::parse(&text, "t").unwrap_err();
    assert_eq!(e.diagnostics().len(), 2, "{e}");
}

#[test]
fn a_secret_is_masked_in_errors() {
    let (_, _, shown) = fails("common { net { shared-secret hunter2 } }");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("shared-secret ******* }"), "{shown}");
    let (_, _, shown) = fails("common { net { shared-secret hunter2 x; } }");
    assert!(!shown.contains("hunter2"), "{shown}");
    let (_, _, shown) = fails("common { net { timeout 0; shared-secret \"hun ter2\"; } }");
    assert!(!shown.contains("hun ter2"), "{shown}");
    let long = "x".repeat(64);
    let (_, _, shown) = fails(&format!("common {{ net {{ shared-secret {long}; }} }}"));
    assert!(!shown.contains(&long), "{shown}");
}

#[test]
fn forms_of_nine_are_taken() {
    let config = parse(
        r#"
# comment {
require-drbd-module-version-ge 9.0.16;
global { usage-count ask; minor-count 64; dialog-refresh 5; disable-ip-verification; udev-always-use-vnr; cmd-timeout-short 5; }
common { net { protocol C; tls no; } options { quorum majority; on-no-quorum io-error; } }
skip { resource nonsense { = ! ; "} }" ; ; } }
resource nine {
  options { auto-promote yes; quorum 2; }
  disk { c-max-rate 1G; resync-rate 10M; fencing resource-only; }
  volume 0 { device minor 0; disk /dev/vdb; meta-disk /dev/vdc[3]; disk { size 1G; } }
  volume 1 { device /dev/drbd_one minor 1; disk /dev/vdd; flexible-meta-disk /dev/vde; }
  on alpha alpha-old { node-id 0; address 10.0.0.1:7788; }
  on beta { node-id 1; address ipv6 [fd00::2]:7788; volume 1 { disk /dev/other; } options { cpu-mask f; } }
  on gamma { node-id 2; address sci 10.0.0.3:7788; volume 0 { disk none; } }
  connection-mesh { hosts alpha beta; net { ping-int 3; } }
  connection { host alpha port 7000; host gamma address 10.1.0.3:7001; net { protocol A; } disk { c-plan-ahead 0; } volume 1 { disk { c-fill-target 24M; } } }
  connection { path { host beta address 10.2.0.2:1; host gamma address 10.2.0.3:2; } path { host beta; host gamma; } }
  handlers { fence-peer "/usr/lib/drbd/x \"quoted\""; quorum-lost reboot; }
  startup { wfc-timeout 1; become-primary-on alpha beta; stacked-timeouts; }
}
resource floats {
  device /dev/drbd7; disk /dev/q; meta-disk internal;
  floating 10.9.0.1:7; floating ipv6 [fe80::1%eth1]:7 { }
}
resource upper {
  stacked-on-top-of floats { device /dev/drbd9; address 10.8.0.1:7; }
  on far { device /dev/drbd9; disk /dev/q9; meta-disk internal; address 10.8.0.2:7; }
  proxy { compression on; memlimit 100M; plugin { zlib level 9; } }
}
"#,
    );
    assert_eq!(config.global.usage_count.as_deref(), Some("ask"));
    let r = config.require("nine").unwrap();
    assert_eq!(r.nodes(), ["alpha", "alpha-old", "beta", "gamma"]);
    assert_eq!(r.sections.options.number("quorum"), Some(2));
    assert_eq!(r.sections.options.text("on-no-quorum"), Some("io-error"));
    let alpha = r.for_node("alpha-old").unwrap();
    assert_eq!(
        alpha.volumes[0].meta_disk,
        Some(MetaDisk::Indexed("/dev/vdc".into(), 3))
    );
    assert_eq!(
        alpha.volumes[1].meta_disk,
        Some(MetaDisk::Flexible("/dev/vde".into()))
    );
    assert_eq!(alpha.volumes[0].options.number("size"), Some(1 << 21));
    let names: Vec<_> = alpha.peers.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["gamma", "beta"]);
    let gamma = &alpha.peers[0];
    assert_eq!(gamma.paths[0].0.to_string(), "ipv4:10.0.0.1:7000");
    assert_eq!(gamma.paths[0].1.to_string(), "ipv4:10.1.0.3:7001");
    assert_eq!(gamma.net.text("protocol"), Some("A"));
    assert_eq!(gamma.peer_devices[1].1.number("c-fill-target"), Some(49152));
    assert_eq!(gamma.peer_devices[1].1.number("c-plan-ahead"), Some(0));
    assert_eq!(gamma.peer_devices[0].1.number("c-max-rate"), Some(1 << 20));
    assert_eq!(alpha.peers[1].net.number("ping-int"), Some(3));
    let beta = r.for_node("beta").unwrap();
    assert_eq!(
        beta.volumes[1].disk.as_deref(),
        Some(Path::new("/dev/other"))
    );
    assert_eq!(beta.options.text("cpu-mask"), None);
    let warned = config.warnings().iter().any(|w| w.code == "host-options");
    assert!(warned);
    let gamma = beta.peers.iter().find(|p| p.name == "gamma").unwrap();
    assert_eq!(gamma.paths.len(), 2);
    assert_eq!(gamma.paths[1].1.family, Family::Ssocks);
    assert_eq!(r.for_node("gamma").unwrap().volumes[0].disk, None);
    assert_eq!(
        r.sections.handlers.text("fence-peer"),
        Some("/usr/lib/drbd/x \"quoted\"")
    );
    assert_eq!(
        config
            .require("floats")
            .unwrap()
            .for_node("10.9.0.1")
            .unwrap()
            .peers
            .len(),
        1
    );
    let upper = config.require("upper").unwrap();
    assert!(matches!(&upper.hosts[0].name, HostName::StackedOnTopOf(n) if n == "floats"));
    assert_eq!(
        upper.for_node("x").unwrap_err().kind(),
        ErrorKind::UnknownNode
    );
}

#[test]
fn old_forms_are_taken_with_a_warning() {
    let config = parse(&with(
        "syncer { rate 10M; al-extents 257; verify-alg sha1; use-rle; cpu-mask 3; after r0; } \
         disk { no-disk-barrier; no-md-flushes; use-bmbv; } net { no-tcp-cork; } \
         handlers { outdate-peer /bin/true; } startup { become-primary-on both; }",
    ));
    let r = config.require("r0").unwrap();
    assert_eq!(r.sections.disk.number("resync-rate"), Some(10240));
    assert_eq!(r.sections.disk.flag("disk-barrier"), Some(false));
    assert_eq!(r.sections.net.flag("tcp-cork"), Some(false));
    assert_eq!(r.sections.net.flag("use-rle"), Some(true));
    assert_eq!(r.sections.handlers.text("fence-peer"), Some("/bin/true"));
    let syncer = config
        .warnings()
        .iter()
        .find(|w| w.code == "syncer")
        .unwrap();
    assert!(
        syncer
            .remedy
            .as_ref()
            .unwrap()
            .contains("net { verify-alg sha1; }"),
        "{syncer}"
    );
    let deprecated = config
        .warnings()
        .iter()
        .filter(|w| w.code == "deprecated-option")
        .count();
    assert_eq!(deprecated, 5);
}

#[test]
fn what_is_more_specific_wins_as_in_drbdadm() {
    let config = parse(
        "common { disk { resync-rate 1M; c-max-rate 10M; md-flushes no; } net { timeout 10; } }
         resource r {
           disk { c-max-rate 20M; }
           net { ping-int 5; }
           volume 3 { disk { resync-rate 4M; al-extents 100; } }
           on a { address 10.0.0.1:1; volume 3 { device minor 3; disk /dev/x; meta-disk internal; disk { md-flushes yes; } } }
         }",
    );
    let view = config.require("r").unwrap().for_node("a").unwrap();
    let o = &view.volumes[0].options;
    assert_eq!(o.number("c-max-rate"), Some(20480));
    assert_eq!(o.flag("md-flushes"), Some(true));
    assert_eq!(o.number("al-extents"), Some(100));
    // drbdadm hands the resource's options to the volumes before those of the resource's volume.
    assert_eq!(o.number("resync-rate"), Some(1024));
    assert!(
        config
            .warnings()
            .iter()
            .any(|w| w.code == "ambiguous-inheritance")
    );
}

#[test]
fn resync_after_becomes_a_minor_of_the_node() {
    let config = parse(
        "resource a { on x { device /dev/drbd4; disk /dev/a; meta-disk internal; address 1.0.0.1:1; } }
         resource b { disk { resync-after a; } on x { device /dev/drbd5; disk /dev/b; meta-disk internal; address 1.0.0.1:2; } }
         resource c { disk { resync-after nope/0; } on x { device /dev/drbd6; disk /dev/c; meta-disk internal; address 1.0.0.1:3; } }",
    );
    let view = config.require("b").unwrap().for_node("x").unwrap();
    assert_eq!(
        view.volumes[0].options.get("resync-after").unwrap().raw(),
        "4"
    );
    let e = config.require("c").unwrap().for_node("x").unwrap_err();
    assert!(
        e.to_string()
            .contains("resync-after nope/0 names 0 volumes"),
        "{e}"
    );
}

#[test]
fn includes_are_relative_sorted_and_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    fs::create_dir(d.join("drbd.d")).unwrap();
    fs::create_dir(d.join("drbd.d/more")).unwrap();
    let resource = |n: u32| {
        format!(
            "resource r{n} {{ on a {{ device minor {n}; disk /dev/x{n}; meta-disk internal; address 10.0.0.1:{n}; }} }}"
        )
    };
    fs::write(
        d.join("drbd.conf"),
        "include \"drbd.d/*.res\"; include \"drbd.d/1.res\"; include \"none/*.res\";",
    )
    .unwrap();
    fs::write(d.join("drbd.d/2.res"), resource(2)).unwrap();
    fs::write(
        d.join("drbd.d/1.res"),
        format!("{} include \"more/3.res\";", resource(1)),
    )
    .unwrap();
    fs::write(d.join("drbd.d/more/3.res"), resource(3)).unwrap();
    fs::write(d.join("drbd.d/.hidden.res"), "nonsense").unwrap();
    let config = Config::load(d.join("drbd.conf")).unwrap();
    let names: Vec<_> = config.resources.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["r1", "r3", "r2"]);

    // A cycle, directly and through another file.
    fs::write(d.join("drbd.d/more/3.res"), "include \"../1.res\";").unwrap();
    let e = Config::load(d.join("drbd.conf")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::IncludeCycle, "{e}");
    let at = e.diagnostics()[0].location.as_ref().unwrap();
    assert!(at.file.ends_with("more/3.res") && at.line == 1, "{at}");

    let e = Config::load(d.join("missing.conf")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Io);
    assert!(e.to_string().contains("missing.conf"), "{e}");
    assert_eq!(e.raw_os_error(), Some(2));
    assert!(e.to_string().contains("No such file"), "{e}");
}

#[test]
fn deep_nesting_is_refused_and_wide_files_are_not() {
    let (kind, _, shown) = fails(&"a {".repeat(100_000));
    assert_eq!(kind, ErrorKind::Syntax);
    assert!(shown.contains("nested"), "{shown}");
    parse(&format!(
        "skip {}{}",
        "{ x ".repeat(100_000),
        "}".repeat(100_000)
    ));
    let many: String = (0..2000)
        .map(|n| format!("resource r{n} {{ on a {{ device minor {n}; disk /dev/x{n}; meta-disk internal; address 10.0.0.1:{}; }} }}\n", n + 1))
        .collect();
    assert_eq!(parse(&many).resources.len(), 2000);
}

#[test]
fn comments_in_any_encoding_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.conf");
    fs::write(&path, b"# caf\xe9 {\nskip { }\n").unwrap();
    assert!(Config::load(&path).is_ok());
    fs::write(&path, b"common { handlers { fence-peer \"caf\xe9\"; } }").unwrap();
    let e = Config::load(&path).unwrap_err();
    assert!(e.to_string().contains("not UTF-8"), "{e}");
}
