//! The examples do what their headers say.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::process::Command;

/// Runs an example, built beside this test, and returns what it printed.
fn run(name: &str, args: &[&str]) -> String {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}

#[test]
#[ignore = "deep: the parts of the examples are tested by themselves"]
fn deep_examples() {
    if let Err(error) = uml_lab::prerequisites() {
        assert!(std::env::var_os("LAB_REQUIRED").is_none(), "{error}");
        eprintln!("skipped, no lab: {error}");
        return;
    }
    let text = run("two_nodes", &[]);
    assert!(text.ends_with("node2 is back, on its disk: written before the loss\n"));
    let text = run("power_cut", &[]);
    let (synced, rest) = text.split_at(text.find("without").unwrap());
    assert_eq!(synced.matches("nothing lost").count(), 3, "{text}");
    assert_eq!(rest.matches("LOST").count(), 3, "{text}");
    let text = run("random_faults", &["7"]);
    assert!(text.starts_with("schedule of seed 7\n"), "{text}");
    assert!(text.ends_with("then sound again: node2\n"), "{text}");
}
