//! In which state are 100 containers, 30 of them running?
//!
//! Unit: milliseconds, median of all samples, in one node and one run.
//! `lxc_rs::states` against the same question by liblxc's own calls in a C
//! loop (names, objects, `state` of each; the time inside the program), by a
//! loop over `lxc_rs::list`, and by `lxc-ls -f -F NAME,STATE` from start to
//! end, beside which stands the start of `/bin/true`. Aims: at most 1.1 times
//! the C loop, and 20 times faster than `lxc-ls` less `/bin/true`.
//!
//! `cargo bench -p benches --bench lxc_states`; the C program needs `cc` and
//! liblxc's header.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lxc_rs::{Container, LxcPath, StartOptions, State};
use uml_lab::Lab;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const DEFINED: usize = 100;
const RUNNING: usize = 30;
const LONG: Duration = Duration::from_secs(60);

const RIVAL: &str = r#"
#include <lxc/lxccontainer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
int main(int argc, char **argv) {
    for (int sample = 0; sample < atoi(argv[2]); sample++) {
        struct timespec begun, ended;
        char **names = NULL;
        struct lxc_container **containers = NULL;
        int running = 0;
        clock_gettime(CLOCK_MONOTONIC, &begun);
        int count = list_all_containers(argv[1], &names, &containers);
        for (int i = 0; i < count; i++) {
            running += !strcmp(containers[i]->state(containers[i]), "RUNNING");
            lxc_container_put(containers[i]);
            free(names[i]);
        }
        free(names);
        free(containers);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        printf("%d %d %f\n", count, running,
            (ended.tv_sec - begun.tv_sec) * 1e3 + (ended.tv_nsec - begun.tv_nsec) / 1e6);
    }
}
"#;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().collect();
    if let [_, word, samples, running, rival] = &arguments[..]
        && word == "--in-node"
    {
        return in_node(samples.parse()?, running.parse()?, rival);
    }
    // `cargo bench -- --test` and `cargo test --benches`: does it run at all?
    let once = !arguments.iter().any(|argument| argument == "--bench")
        || arguments.iter().any(|argument| argument == "--test");
    let (samples, running) = if once { (1, 4) } else { (15, RUNNING) };

    let program = std::env::current_exe()?;
    let dir = program.parent().ok_or("no directory for the rival")?;
    let (source, rival) = (dir.join("lxc_states.c"), dir.join("lxc_states_rival"));
    fs::write(&source, RIVAL)?;
    let compiled = Command::new("cc")
        .args(["-O2", "-o"])
        .args([&rival, &source])
        .arg("-llxc")
        .status()?;
    if !compiled.success() {
        return Err("the rival does not compile".into());
    }

    let lab = Lab::builder()
        .name("bench")
        .packages(["busybox-static", "lxc"])
        .node("node1", |node| node.memory("512M"))
        .start()?;
    let (samples, running) = (samples.to_string(), running.to_string());
    let run = [
        program.as_os_str(),
        "--in-node".as_ref(),
        samples.as_ref(),
        running.as_ref(),
        rival.as_os_str(),
    ];
    let command = uml_lab::Command::new(run[0]).args(&run[1..]);
    let output = lab
        .node("node1")
        .run_ok(command.deadline(Duration::from_secs(900)))?;
    print!("{}", output.stdout_text());
    Ok(())
}

fn in_node(samples: usize, running: usize, rival: &str) -> Result<()> {
    let dir = Path::new("/srv/bench");
    let rootfs = Path::new("/srv/bench-rootfs");
    for inside in ["bin", "sbin", "dev", "proc", "sys", "etc"] {
        fs::create_dir_all(rootfs.join(inside))?;
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox"))?;
    std::os::unix::fs::symlink("../bin/busybox", rootfs.join("sbin/init"))?;
    fs::write(
        rootfs.join("etc/inittab"),
        "::respawn:/bin/busybox sleep 100000\n",
    )?;
    for number in 0..DEFINED {
        let container = dir.join(format!("c{number:03}"));
        fs::create_dir_all(&container)?;
        let config = format!(
            "lxc.rootfs.path = dir:{}\nlxc.uts.name = c{number:03}\nlxc.net.0.type = empty\nlxc.mount.auto = proc:mixed sys:ro\n",
            rootfs.display()
        );
        fs::write(container.join("config"), config)?;
    }
    let store = LxcPath::new(dir)?;
    for number in 0..running {
        let container = Container::open(&store, format!("c{number:03}"))?;
        container.start(&StartOptions::new(), LONG)?.done()?;
    }

    let path = dir.to_str().ok_or("a path that is no text")?;
    let mut states = Vec::new();
    let mut list = Vec::new();
    let mut ls = Vec::new();
    let mut nothing = Vec::new();
    for _ in 0..samples {
        states.push(timed(|| {
            let states = lxc_rs::states(&store)?;
            let up = states
                .iter()
                .filter(|(_, state)| matches!(state, Ok(State::Running)));
            assert_eq!((states.len(), up.count()), (DEFINED, running));
            Ok(())
        })?);
        list.push(timed(|| {
            let listed = lxc_rs::list(&store)?;
            let up = listed.iter().filter(|listed| {
                let state = listed.container.as_ref().map(Container::state);
                matches!(state, Ok(Ok(State::Running)))
            });
            assert_eq!((listed.len(), up.count()), (DEFINED, running));
            Ok(())
        })?);
        ls.push(timed(|| {
            quiet("lxc-ls", &["-P", path, "-f", "-F", "NAME,STATE"])
        })?);
        nothing.push(timed(|| quiet("/bin/true", &[]))?);
    }
    let output = Command::new(rival)
        .args([path, &samples.to_string()])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut c_loop = Vec::new();
    for line in text.lines() {
        let (counts, time) = line
            .rsplit_once(' ')
            .ok_or("the rival says something else")?;
        assert_eq!(counts, format!("{DEFINED} {running}"));
        c_loop.push(time.parse::<f64>()?);
    }
    for number in 0..running {
        let container = Container::open(&store, format!("c{number:03}"))?;
        container.stop(LONG)?.done()?;
    }

    println!(
        "{samples} samples, {DEFINED} containers, {running} running; milliseconds, median (least to most)"
    );
    let median = |what: &str, times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let middle = times[times.len() / 2];
        println!(
            "{what:>20}: {middle:8.3} ({:.3} to {:.3})",
            times[0],
            times[times.len() - 1]
        );
        middle
    };
    let ours = median("lxc_rs::states", &mut states);
    median("lxc_rs::list", &mut list);
    let c_loop = median("C loop over liblxc", &mut c_loop);
    let ls = median("lxc-ls -f", &mut ls);
    let nothing = median("/bin/true", &mut nothing);
    println!(
        "states against the C loop: {:.2} times its time (aim: at most 1.1)",
        ours / c_loop
    );
    println!(
        "states against lxc-ls less /bin/true: {:.0} times faster (aim: 20)",
        (ls - nothing) / ours
    );
    Ok(())
}

fn timed(what: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    what()?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

fn quiet(program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .stdout(Stdio::null())
        .status()?;
    status
        .success()
        .then_some(())
        .ok_or_else(|| format!("{program}: {status}").into())
}
