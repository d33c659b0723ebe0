//! drbd.conf: what is parsed, resolved for every node, and expanded; and the
//! editor, which has to leave alone what it is not told to change.
#![no_main]

use drbd_conf::{Config, Document};
use drbd_nl::Dialect;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    // No file of this machine is to be read.
    if text.contains("include") {
        return;
    }
    match Config::parse(text, "fuzz.conf") {
        Ok(config) => {
            config.warnings().iter().for_each(|w| drop(w.to_string()));
            for resource in &config.resources {
                for node in resource.nodes() {
                    let Ok(view) = resource.for_node(&node) else {
                        continue;
                    };
                    let _ = view.peer();
                    for dialect in [Dialect::V84, Dialect::V9] {
                        if let Ok(steps) = view.up(dialect) {
                            steps.iter().for_each(|step| drop(step.to_string()));
                        }
                    }
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(mut document) = Document::parse(text, "fuzz.conf") {
        assert_eq!(document.text(), text);
        if document
            .set(&["resource r0", "net"], "protocol", "C")
            .is_ok()
        {
            let again = Document::parse(document.text(), "fuzz.conf");
            assert!(again.is_ok(), "{}", document.text());
        }
    }
});
