//! Whatever the bytes are: an answer, never a panic, and a place inside the text.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use drbd_conf::Config;
use proptest::prelude::*;

const SEED: &str = include_str!("../../story/seed/drbd.conf");
const COMMON: &str = include_str!("../../story/seed/drbd.d/global_common.conf");
const NINE: &str = r#"
global { usage-count yes; minor-count 5; }
resource a {
  options { quorum majority; auto-promote no; }
  disk { c-max-rate 4G; resync-after b/0; }
  volume 0 { device /dev/drbd_x minor 7; disk "/dev/v g"; meta-disk /dev/m[3]; disk { size 1G; } }
  on x x-b { node-id 0; address ipv6 [fd00::1%eth0]:7789; }
  on y { node-id 1; address 10.0.0.2:7789; volume 0 { disk none; } options { cpu-mask 3; } }
  connection { host x port 1; host y address 10.1.0.2:2 via proxy on h { inside 1.2.3.4:5; outside 1.2.3.4:6; } }
  connection { path { host x; host y; } net { protocol A; } volume 0 { disk { resync-rate 1M; } } }
  connection-mesh { hosts x y; net { tls; } }
  handlers { fence-peer "a \"b\" \\c"; }
  proxy { memlimit 1; plugin { zlib level 9; } }
  floating 10.0.0.9:1;
  stacked-on-top-of b { device minor 9; address 10.0.0.8:1; }
}
skip x { { ; } }
include "nothing/*.res";
"#;

/// Parses, and looks at everything that the outcome says.
fn try_all(text: &str) {
    let diagnostics = match Config::parse(text, "fuzz.conf") {
        Ok(config) => {
            for r in &config.resources {
                for node in r.nodes() {
                    if let Ok(view) = r.for_node(&node) {
                        let _ = view.peer();
                        #[cfg(feature = "drbd-nl")]
                        for dialect in [drbd_nl::Dialect::V84, drbd_nl::Dialect::V9] {
                            if let Ok(steps) = view.up(dialect) {
                                steps.iter().for_each(|s| drop(s.to_string()));
                            }
                        }
                    }
                }
            }
            config.warnings().to_vec()
        }
        Err(e) => {
            assert!(!e.diagnostics().is_empty());
            e.diagnostics().to_vec()
        }
    };
    for d in diagnostics {
        assert!(!d.to_string().is_empty() && !d.code.is_empty());
        // What was included is somewhere else.
        if let Some(at) = d.location.filter(|at| at.file.as_os_str() == "fuzz.conf") {
            let line = text
                .split('\n')
                .nth(at.line - 1)
                .expect("a line of the text");
            assert!(at.column <= line.chars().count() + 1, "{at} in {line:?}");
        }
    }
}

#[test]
fn the_texts_that_are_mutated_parse() {
    for text in [SEED, COMMON, NINE] {
        try_all(text);
    }
    assert!(Config::parse(NINE, "nine").is_err_and(|e| e.to_string().contains("stacked on")));
}

#[test]
fn every_cut_is_answered() {
    for text in [SEED, COMMON, NINE] {
        for (cut, _) in text.char_indices() {
            try_all(&text[..cut]);
        }
    }
}

/// Words that make more of the grammar reachable than random characters.
const WORDS: &[&str] = &[
    "{",
    "}",
    ";",
    "[",
    "]",
    ":",
    "\"",
    "#",
    "\\",
    "\n",
    " ",
    "resource r ",
    "common ",
    "net ",
    "disk ",
    "on h ",
    "volume 1 ",
    "device minor 4294967296 ",
    "address ipv6 [",
    "10.0.0.1:65536",
    "resync-after ",
    "shared-secret ",
    "shared-secret \"\u{e4}",
    "size 99999999999G",
    "\u{fffd}",
    "floating ",
    "stacked-on-top-of r ",
    "connection ",
    "path ",
    "host h ",
    "include \"*\";",
    "connection-mesh ",
    "hosts ",
    "syncer ",
    "skip ",
    "global ",
    "node-id 99 ",
    "%",
    "\0",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_text_is_answered(text in "\\PC{0,200}") {
        try_all(&text);
    }

    #[test]
    fn random_words_are_answered(words in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        try_all(&words.concat());
    }

    #[test]
    fn mutated_files_are_answered(
        which in 0usize..3,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..8, prop::sample::select(WORDS)), 1..6),
    ) {
        let mut text: Vec<char> = [SEED, COMMON, NINE][which].chars().collect();
        for (at, remove, insert) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + remove).min(text.len());
            text.splice(at..end, insert.chars());
        }
        try_all(&text.into_iter().collect::<String>());
    }
}
