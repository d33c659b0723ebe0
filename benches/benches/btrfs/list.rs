//! All subvolumes with their paths.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use btrfs_ops::{DeleteOptions, Scope, Subvolume, SubvolumeTree, delete_nested, list, sync};

use crate::{Result, Scale, Took, aim, alternate, alternate_cold, quiet, raw};

pub(crate) fn run(dir: &Path, scale: Scale) -> Result<()> {
    let home = dir.join("bench-list");
    let top = Subvolume::create_path(&home)?;
    for directory in 0..scale.subvolumes / 100 {
        let path = home.join(format!("directory{directory}"));
        fs::create_dir(&path)?;
        let parent = File::open(&path)?;
        for i in 0..100 {
            Subvolume::create(&parent, format!("subvolume{i}"))?;
        }
    }
    sync(&top)?;
    let count = scale.subvolumes / 100 * 100;
    println!("list of {count} subvolumes in {} directories", count / 100);
    // All of the file system: only that is the same question to all.
    let expected = raw::list(top.as_fd())?.len();
    let [ours, tree, floor, searches, progs, start] = alternate_cold(
        // Each is short.
        scale.samples * 3,
        [
            ("list", &mut || {
                assert_eq!(list(&top, Scope::Filesystem)?.subvolumes.len(), expected);
                Ok(())
            }),
            ("SubvolumeTree::read", &mut || {
                assert_eq!(SubvolumeTree::read(&top)?.all().len(), expected);
                Ok(())
            }),
            ("TREE_SEARCH_V2, INO_LOOKUP a directory", &mut || {
                assert_eq!(raw::list(top.as_fd())?.len(), expected);
                Ok(())
            }),
            ("TREE_SEARCH_V2 alone, nothing decoded", &mut || {
                Ok(raw::sweep(top.as_fd(), |_, _, _, _| ())?)
            }),
            ("btrfs subvolume list", &mut || {
                quiet("btrfs", &[&"subvolume", &"list", &dir])
            }),
            ("/bin/true", &mut || quiet("/bin/true", &[])),
        ],
    )?;
    aim("list, times the floor", ours.times(floor), "at most 1.2");
    aim(
        "tree with its indexes, times the floor",
        tree.times(floor),
        "",
    );
    aim(
        "btrfs subvolume list, times ours",
        progs.times(ours),
        "at least 5",
    );
    aim(
        "btrfs subvolume list, times the searches alone",
        progs.times(searches),
        "",
    );
    let less_start = Took {
        wall: progs.wall - start.wall,
        processor: progs.processor - start.processor,
    };
    aim(
        "the same less /bin/true",
        less_start.times(ours),
        "at least 5",
    );

    println!("the same without a search of trees, as those without privileges do it");
    let [ours, floor] = alternate(
        scale.samples,
        [
            ("list, walking", &mut || {
                let walked = btrfs_ops::list_by_walking(&top)?;
                assert_eq!(walked.subvolumes.len(), count);
                Ok(())
            }),
            ("ROOTREF, LOOKUP_USER, open, INFO", &mut || {
                let mut found = Vec::new();
                raw::walk(top.as_fd(), b"", &mut found)?;
                assert_eq!(found.len(), count);
                Ok(())
            }),
        ],
    )?;
    aim("walking, times the floor", ours.times(floor), "at most 1.2");
    drop(top);
    delete_nested(File::open(dir)?, "bench-list", &DeleteOptions::new())?;
    sync(File::open(dir)?)?;
    Ok(())
}
