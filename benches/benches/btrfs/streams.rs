//! A snapshot sent, received, and its stream read.

use std::fs::{self, File};
use std::path::Path;

use btrfs_ops::stream::{Commands, Reader, verify};
use btrfs_ops::{
    Access, DeleteOptions, Progress, ReceiveOptions, SendOptions, Subvolume, delete, delete_nested,
    receive, sync,
};

use crate::{Result, Scale, Took, aim, alternate, processor, quiet};

pub(crate) fn run(dir: &Path, scale: Scale) -> Result<()> {
    let home = dir.join("bench-streams");
    let top = Subvolume::create_path(&home)?;
    let source = Subvolume::create(&top, "source")?;
    // Not all alike: nothing shares, and nothing is a hole.
    let mut state = 1u64;
    let mut content = vec![0u8; 1 << 20];
    for i in 0..scale.content >> 20 {
        for byte in &mut content {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = (state >> 56) as u8;
        }
        fs::write(home.join(format!("source/large{i}")), &content)?;
    }
    for i in 0..scale.files {
        let directory = home.join(format!("source/directory{}", i % 50));
        fs::create_dir_all(&directory)?;
        fs::write(
            directory.join(format!("small{i}")),
            &content[..(i * 37) % 4000],
        )?;
    }
    let snapshot = source.snapshot(&top, "snapshot", Access::ReadOnly)?;
    let path = home.join("snapshot");
    let stream = home.join("stream");
    snapshot.send_to(&File::create(&stream)?, &SendOptions::new())?;
    let bytes = fs::read(&stream)?;
    let megabytes = bytes.len() as f64 / 1e6;
    println!("a stream of {megabytes:.0} MB, {} small files", scale.files);

    // In memory. The kernel itself cannot write into /dev/null.
    let (mine, other) = ("/dev/shm/bench-stream", "/dev/shm/bench-stream-progs");
    let nowhere = File::options().write(true).open("/dev/null")?;
    let [file, theirs_file, read, ours, theirs] = alternate(
        // Two threads each, which scatter where others want the processors.
        scale.samples * 2,
        [
            ("send_to a file", &mut || {
                Ok(snapshot.send_to(&File::create(mine)?, &SendOptions::new())?)
            }),
            ("btrfs send -f a file", &mut || {
                quiet("btrfs", &[&"send", &"-f", &other, &path])
            }),
            ("send, read by this process", &mut || {
                let stream = snapshot.send(&SendOptions::new())?;
                stream.copy_to(&mut std::io::sink())?;
                Ok(())
            }),
            ("send_to /dev/null, counted", &mut || {
                let progress = Progress::new();
                snapshot.send_to(&nowhere, &SendOptions::new().progress(&progress))?;
                assert_eq!(progress.bytes(), bytes.len() as u64);
                Ok(())
            }),
            ("btrfs send to /dev/null", &mut || {
                quiet("btrfs", &[&"send", &path])
            }),
        ],
    )?;
    fs::remove_file(mine)?;
    fs::remove_file(other)?;
    aim(
        "btrfs send to a file, times ours",
        theirs_file.wall / file.wall,
        "at least 1",
    );
    aim(
        "btrfs send to nowhere, times ours",
        theirs.wall / ours.wall,
        "at least 1",
    );
    aim(
        "the same, read by this process, times ours",
        theirs.wall / read.wall,
        "",
    );

    fs::create_dir(home.join("ours"))?;
    fs::create_dir(home.join("theirs"))?;
    let (into, to) = (File::open(home.join("ours"))?, home.join("theirs"));
    let gone = |parent: &File| -> Result<()> {
        let options = DeleteOptions::new().cleaned(std::time::Duration::from_secs(600));
        delete(parent, "snapshot", &options)?;
        Ok(())
    };
    let theirs_dir = File::open(&to)?;
    let gone_each = |parent: &File,
                     used: &mut Vec<f64>,
                     times: &mut Vec<f64>,
                     run: &mut dyn FnMut() -> Result<()>|
     -> Result<()> {
        let (begun, before) = (std::time::Instant::now(), processor()?);
        run()?;
        used.push((processor()? - before) * 1e3);
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        gone(parent)
    };
    let (mut ours, mut theirs) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..scale.samples {
        let [used, times] = &mut ours;
        gone_each(&into, used, times, &mut || {
            receive(&into, File::open(&stream)?, &ReceiveOptions::new())?;
            Ok(())
        })?;
        let [used, times] = &mut theirs;
        gone_each(&theirs_dir, used, times, &mut || {
            quiet("btrfs", &[&"receive", &"-f", &stream, &to])?;
            // Ours is on disk when it returns.
            Ok(sync(&theirs_dir)?)
        })?;
    }
    let [mut used, mut times] = ours;
    let ours = crate::show("receive, confined and durable", &mut times, "ms");
    crate::show("processor time", &mut used, "ms");
    let [mut used, mut times] = theirs;
    let theirs = crate::show("btrfs receive and a sync", &mut times, "ms");
    crate::show("processor time", &mut used, "ms");
    aim("btrfs receive, times ours", theirs / ours, "at least 1");

    println!("the same stream, in memory");
    let count = verify(&bytes[..])?.commands;
    let [reader, zero_copy, verified, rival] = alternate(
        scale.samples,
        [
            ("stream::Reader", &mut || {
                let (mut reader, mut seen) = (Reader::new(&bytes[..]), 0);
                while reader.next()?.is_some() {
                    seen += 1;
                }
                assert_eq!(seen, count);
                Ok(())
            }),
            ("stream::Commands, without a copy", &mut || {
                let mut seen = 0;
                for command in Commands::new(&bytes) {
                    command?;
                    seen += 1;
                }
                assert_eq!(seen, count);
                Ok(())
            }),
            ("stream::verify, with all paths", &mut || {
                assert_eq!(verify(&bytes[..])?.commands, count);
                Ok(())
            }),
            ("btrfs-stream", &mut || {
                let mut reader = btrfs_stream::StreamReader::new(&bytes[..])?;
                let mut seen = 0;
                while reader.next_command()?.is_some() {
                    seen += 1;
                }
                assert!(seen >= count - 1, "{seen} of {count}");
                Ok(())
            }),
        ],
    )?;
    let speed = |took: Took| megabytes / took.wall;
    println!(
        "parsed GB/s, wall clock: Reader {:.2}, Commands {:.2}, verify {:.2}, btrfs-stream {:.2}",
        speed(reader),
        speed(zero_copy),
        speed(verified),
        speed(rival)
    );
    aim(
        "btrfs-stream, times Reader",
        rival.times(reader),
        "at least 1",
    );
    drop((top, source, snapshot, into, theirs_dir));
    delete_nested(File::open(dir)?, "bench-streams", &DeleteOptions::new())?;
    sync(File::open(dir)?)?;
    Ok(())
}
