//! One subvolume: its state, a new one, a snapshot; and many snapshots.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use btrfs_ops::{
    Access, DeleteOptions, Member, Subvolume, delete, delete_nested, snapshot_group, sync,
};
use nix::time::{ClockId, clock_gettime};

use crate::{Result, Scale, aim, alternate, quiet, raw, show};

const GROUP: usize = 32;

/// Wall clock and processor time of one call, in microseconds.
fn timed(run: impl FnOnce() -> Result<()>) -> Result<(f64, f64)> {
    let processor =
        || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(std::time::Duration::from);
    let (begun, before) = (Instant::now(), processor()?);
    run()?;
    let used = processor()? - before;
    Ok((
        begun.elapsed().as_secs_f64() * 1e6,
        used.as_secs_f64() * 1e6,
    ))
}

/// Ours and the bare request in turn; their wall clock, and what processor time ours adds.
fn against_raw<'r>(
    what: &str,
    calls: usize,
    ours: &'r mut dyn FnMut(usize) -> Result<()>,
    bare: &'r mut dyn FnMut(usize) -> Result<()>,
) -> Result<()> {
    let (mut times, mut processor) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for i in 0..calls {
        for (at, run) in [&mut *ours, &mut *bare].into_iter().enumerate() {
            let (wall, used) = timed(|| run(i))?;
            times[at].push(wall);
            processor[at].push(used);
        }
    }
    let [mut ours, mut bare] = times;
    show(what, &mut ours, "us");
    show("the bare request", &mut bare, "us");
    let [mut ours, mut bare] = processor;
    ours.sort_by(f64::total_cmp);
    bare.sort_by(f64::total_cmp);
    // The lower quarter: a commit that others wait for is not what is asked.
    let added = ours[calls / 4] - bare[calls / 4];
    aim("processor time added, us", added, "at most 20");
    Ok(())
}

pub(crate) fn run(dir: &Path, scale: Scale) -> Result<()> {
    let home = dir.join("bench-calls");
    let top = Subvolume::create_path(&home)?;
    let source = Subvolume::create(&top, "source")?;
    fs::write(home.join("source/file"), "content")?;
    for directory in ["ours", "bare", "progs"] {
        fs::create_dir(home.join(directory))?;
    }
    let (to_ours, to_bare) = (
        File::open(home.join("ours"))?,
        File::open(home.join("bare"))?,
    );
    sync(&top)?;

    println!("info of a subvolume that is open");
    against_raw(
        "info",
        scale.calls * 10,
        &mut |_| Ok(source.info().map(drop)?),
        &mut |_| Ok(raw::info(source.as_fd()).map(drop)?),
    )?;
    println!("create, where ours opens what it made");
    against_raw(
        "create",
        scale.calls,
        &mut |i| Ok(Subvolume::create(&to_ours, format!("c{i}")).map(drop)?),
        &mut |i| Ok(raw::create(to_bare.as_fd(), &format!("c{i}"))?),
    )?;
    println!("snapshot, where ours opens what it made");
    let count = scale.calls.min(40);
    against_raw(
        "snapshot",
        count,
        &mut |i| {
            Ok(source
                .snapshot(&to_ours, format!("s{i}"), Access::ReadOnly)
                .map(drop)?)
        },
        &mut |i| {
            Ok(raw::snapshot(
                to_bare.as_fd(),
                source.as_fd(),
                &format!("s{i}"),
            )?)
        },
    )?;
    let (from, to) = (home.join("source"), home.join("progs"));
    let mut name = 0;
    let mut next = || {
        name += 1;
        format!("p{name}")
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let to_progs = File::open(&to)?;
    for _ in 0..scale.samples * 3 {
        let name = next();
        ours.push(
            timed(|| {
                Ok(source
                    .snapshot(&to_progs, name, Access::ReadOnly)
                    .map(drop)?)
            })?
            .0,
        );
        let path = to.join(next());
        theirs.push(timed(|| quiet("btrfs", &[&"subvolume", &"snapshot", &"-r", &from, &path]))?.0);
    }
    let ours = show("snapshot", &mut ours, "us");
    let theirs = show("btrfs subvolume snapshot -r", &mut theirs, "us");
    aim("btrfs subvolume snapshot, times ours", theirs / ours, "");
    let shown = home.join("source");
    let [info, show] = alternate(
        scale.samples,
        [
            ("open and info by path", &mut || {
                Ok(Subvolume::open(&shown)?.info().map(drop)?)
            }),
            ("btrfs subvolume show", &mut || {
                quiet("btrfs", &[&"subvolume", &"show", &shown])
            }),
        ],
    )?;
    aim(
        "btrfs subvolume show, times ours",
        show.wall / info.wall,
        "",
    );

    println!("{GROUP} snapshots, of {GROUP} subvolumes, each written to before");
    let mut sources = Vec::new();
    let mut parents = Vec::new();
    for i in 0..GROUP {
        sources.push(Subvolume::create(&top, format!("member{i}"))?);
        fs::create_dir(home.join(format!("to{i}")))?;
        parents.push(File::open(home.join(format!("to{i}")))?);
    }
    let one = File::open(&home)?;
    let mut round = 0;
    let mut rounds = [0; 3].map(|_| Vec::new());
    for _ in 0..scale.samples {
        for (way, times) in rounds.iter_mut().enumerate() {
            round += 1;
            for i in 0..GROUP {
                fs::write(home.join(format!("member{i}/file")), round.to_string())?;
            }
            sync(&top)?;
            let begun = Instant::now();
            match way {
                0 => {
                    for (source, parent) in sources.iter().zip(&parents) {
                        source.snapshot(parent, round.to_string(), Access::ReadOnly)?;
                    }
                }
                1 | 2 => {
                    let members = sources.iter().enumerate().map(|(i, source)| Member {
                        source,
                        parent: if way == 1 {
                            one.as_fd()
                        } else {
                            parents[i].as_fd()
                        },
                        name: format!("r{round}-{i}").into(),
                    });
                    let members: Vec<_> = members.collect();
                    snapshot_group(&members, Access::ReadOnly, &mut ())?;
                }
                _ => {}
            }
            times.push(begun.elapsed().as_secs_f64() * 1e3 / GROUP as f64);
        }
    }
    let [mut serial, mut same, mut distinct] = rounds;
    let serial = crate::show("one after the other, each", &mut serial, "ms");
    crate::show("snapshot_group into one directory, each", &mut same, "ms");
    let distinct = crate::show(
        "snapshot_group into distinct ones, each",
        &mut distinct,
        "ms",
    );
    aim("serial, times a group", serial / distinct, "at least 4");

    drop((top, source, sources, parents, one));
    let options = DeleteOptions::new();
    for name in ["ours", "bare", "progs"] {
        let parent = File::open(home.join(name))?;
        for entry in fs::read_dir(home.join(name))? {
            delete(&parent, entry?.file_name(), &options)?;
        }
    }
    delete_nested(File::open(dir)?, "bench-calls", &options)?;
    sync(File::open(dir)?)?;
    Ok(())
}
