//! Booting, running programs, files, many at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use uml_lab::Lab;

#[test]
fn smoke() {
    let Some(lab) = Lab::builder()
        .name("smoke")
        .node("node1", |n| n.disk("64M"))
        .start_for_test()
    else {
        return;
    };
    let node = lab.node("node1");
    let out = node
        .run(["/bin/sh", "-c", "ls -la /dev/ubd*; ps aux; echo $?"])
        .unwrap();
    println!("{}{}", out.stdout_text(), out.stderr_text());
    let out = node
        .run([
            "/bin/sh",
            "-c",
            "dd if=/dev/urandom of=/tmp/x bs=1M count=40; time cat /tmp/x; sha256sum /tmp/x >&2",
        ])
        .unwrap();
    println!("{} {}", out.stdout.len(), out.stderr_text());
    let t = std::time::Instant::now();
    let out2 = node
        .run(uml_lab::Command::new("sha256sum").stdin(out.stdout.clone()))
        .unwrap();
    println!("{} {:?}", out2.stdout_text(), t.elapsed());
    let t = std::time::Instant::now();
    for _ in 0..10 {
        node.run(["/bin/true"]).unwrap();
    }
    println!("true {:?}", t.elapsed() / 10);
    let t = std::time::Instant::now();
    for _ in 0..10 {
        node.read_file("/etc/passwd").unwrap();
    }
    println!("read_file {:?}", t.elapsed() / 10);
    let child = node
        .spawn(uml_lab::Command::new("cat").stdin_piped())
        .unwrap();
    let t = std::time::Instant::now();
    std::thread::scope(|s| {
        s.spawn(|| {
            child.write_stdin(&out.stdout).unwrap();
            child.close_stdin().unwrap();
        });
        let back = child.wait(std::time::Duration::from_secs(100)).unwrap();
        println!("cat {:?} {}", t.elapsed(), back.stdout == out.stdout);
    });
}
