//! Process 1 of a node: from a bare kernel to a node that takes commands.
//!
//! The kernel starts on a small directory of the host that holds this program,
//! its setup file and empty directories to mount on. From there the real root
//! is put together: the host's files or another tree, the layers above them, and
//! on top a tmpfs that takes all writes.

use std::fs::{self, File};
use std::io::{Error, Result};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::sys::{self, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY};
use super::{disks, modules, network, serve};
use crate::protocol::{Message, Setup, ToLab, VERSION};

const CHANNEL: &str = "/dev/ttyS0";
/// Empty directory of the first root; the new root grows below it.
const WORKSHOP: &str = "/m";

/// A step of the setup that failed.
struct Failed {
    step: String,
    error: Error,
}

trait Step<T> {
    fn step(self, step: impl FnOnce() -> String) -> std::result::Result<T, Failed>;
}

impl<T> Step<T> for Result<T> {
    fn step(self, step: impl FnOnce() -> String) -> std::result::Result<T, Failed> {
        self.map_err(|error| Failed {
            step: step(),
            error,
        })
    }
}

pub(crate) fn main() -> ! {
    let mut channel = match open_channel() {
        Ok(channel) => channel,
        Err(failed) => stop(&failed),
    };
    serve::say(&mut channel, &ToLab::Hello { version: VERSION });
    match set_up() {
        Ok(()) => serve::main(channel),
        Err(failed) => {
            let errno = sys::errno(&failed.error);
            let step = failed.step.clone().into_bytes();
            serve::say(&mut channel, &ToLab::Failed { step, errno });
            stop(&failed)
        }
    }
}

/// Process 1 has no one to return to: the kernel panics, the lab sees it.
fn stop(failed: &Failed) -> ! {
    eprintln!("uml-lab: {}: {}", failed.step, failed.error);
    std::process::exit(1)
}

fn open_channel() -> std::result::Result<File, Failed> {
    if !Path::new(CHANNEL).exists() {
        sys::mount_fs(Path::new("devtmpfs"), Path::new("/dev"), "devtmpfs", 0, b"")
            .step(|| "mount /dev".into())?;
    }
    let channel = File::options()
        .read(true)
        .write(true)
        .open(CHANNEL)
        .step(|| format!("open {CHANNEL}"))?;
    sys::set_raw(channel.as_fd()).step(|| format!("set {CHANNEL} to raw mode"))?;
    Ok(channel)
}

fn set_up() -> std::result::Result<(), Failed> {
    let bytes = fs::read("/setup").step(|| "read /setup".into())?;
    let setup = Setup::decode(&bytes)
        .map_err(|_| Error::from_raw_os_error(sys::EPROTO))
        .step(|| "read /setup".into())?;
    sys::set_host_name(&setup.host_name).step(|| "set the host name".into())?;
    build_root(&setup)?;
    enter_root()?;
    mount_kernel_file_systems()?;
    provide_tools(&setup)?;
    let keeps = setup.keeps.iter().map(|keep| (keep, 0));
    let sees = setup.sees.iter().map(|see| (see, MS_RDONLY));
    for ((inside, host), flags) in keeps.chain(sees) {
        let inside = path(inside);
        make_dir(&inside)?;
        mount_host(host, &inside, flags)?;
    }
    for (n, disk) in setup.disks.iter().enumerate() {
        disks::set_up(n, disk)
            .step(|| format!("set up the disk {}", String::from_utf8_lossy(&disk.name)))?;
    }
    if setup.clock_shift != 0 {
        sys::shift_clock(setup.clock_shift).step(|| "set the clock".into())?;
    }
    set_up_network(&setup)
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

fn mount_host(
    host: &[u8],
    target: &Path,
    flags: std::ffi::c_ulong,
) -> std::result::Result<(), Failed> {
    sys::mount_fs(Path::new("hostfs"), target, "hostfs", flags, host).step(|| {
        format!(
            "mount {} of the host on {}",
            path(host).display(),
            target.display()
        )
    })
}

fn make_dir(target: &Path) -> std::result::Result<(), Failed> {
    fs::create_dir_all(target).step(|| format!("mkdir {}", target.display()))
}

/// Stacks root, layers and a tmpfs at `WORKSHOP/root`.
///
/// Each lower layer is a hostfs mount of its own: overlayfs refuses two lower
/// directories of one mount as overlapping when one contains the other.
fn build_root(setup: &Setup) -> std::result::Result<(), Failed> {
    load_overlay(Path::new(WORKSHOP), &setup.modules)?;
    let workshop = Path::new(WORKSHOP);
    sys::mount_fs(
        Path::new("tmpfs"),
        workshop,
        "tmpfs",
        0,
        b"size=80%,mode=755",
    )
    .step(|| "mount a tmpfs for writes".into())?;
    for name in ["up", "work", "root"] {
        make_dir(&workshop.join(name))?;
    }
    let mut lower = String::new();
    let layers = setup
        .layers
        .iter()
        .map(Vec::as_slice)
        .chain([setup.root.as_slice()]);
    for (n, layer) in layers.enumerate() {
        let name = format!("l{n}");
        make_dir(&workshop.join(&name))?;
        mount_host(layer, &workshop.join(&name), MS_RDONLY)?;
        if !lower.is_empty() {
            lower.push(':');
        }
        lower.push_str(&name);
    }
    std::env::set_current_dir(workshop).step(|| "enter the workshop".into())?;
    let options = format!("lowerdir={lower},upperdir=up,workdir=work");
    sys::mount_fs(
        Path::new("overlay"),
        Path::new("root"),
        "overlay",
        0,
        options.as_bytes(),
    )
    .step(|| format!("mount the root ({options})"))
}

/// Loads the one module needed before there is a root with modprobe in it.
fn load_overlay(at: &Path, modules: &[u8]) -> std::result::Result<(), Failed> {
    let step = || "load the overlay module".to_owned();
    sys::mount_fs(Path::new("proc"), at, "proc", 0, b"").step(step)?;
    let known = fs::read_to_string(at.join("filesystems"));
    let release = fs::read_to_string(at.join("sys/kernel/osrelease"));
    sys::detach(at).step(step)?;
    if known
        .step(step)?
        .lines()
        .any(|line| line.ends_with("\toverlay"))
    {
        return Ok(());
    }
    let release = release.step(step)?;
    mount_host(modules, at, MS_RDONLY)?;
    let file = at
        .join(release.trim())
        .join("kernel/fs/overlayfs/overlay.ko");
    let loaded = File::open(&file).and_then(|file| sys::load_module(file.as_fd(), ""));
    loaded.step(|| {
        let host = path(modules)
            .join(release.trim())
            .join("kernel/fs/overlayfs/overlay.ko");
        format!("load the module {}", host.display())
    })?;
    sys::detach(at).step(step)
}

fn enter_root() -> std::result::Result<(), Failed> {
    std::env::set_current_dir("root").step(|| "enter the new root".into())?;
    // Kept from the old root, which goes away now.
    make_dir(Path::new("run"))?;
    sys::mount_fs(
        Path::new("tmpfs"),
        Path::new("run"),
        "tmpfs",
        MS_NOSUID | MS_NODEV,
        b"mode=755",
    )
    .step(|| "mount /run".into())?;
    make_dir(Path::new("run/lab"))?;
    fs::copy("/agent", "run/lab/agent").step(|| "copy the node's program to /run/lab".into())?;
    // Old and new root share one place for a moment, then the old one goes.
    sys::pivot_root(Path::new("."), Path::new(".")).step(|| "pivot_root".into())?;
    sys::detach(Path::new(".")).step(|| "leave the old root".into())?;
    std::env::set_current_dir("/").step(|| "enter /".into())
}

fn mount_kernel_file_systems() -> std::result::Result<(), Failed> {
    let quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    let table: [(&str, &str, std::ffi::c_ulong, &str); 6] = [
        ("proc", "/proc", quiet, ""),
        ("sysfs", "/sys", quiet, ""),
        ("devtmpfs", "/dev", MS_NOSUID, ""),
        (
            "devpts",
            "/dev/pts",
            MS_NOSUID | MS_NOEXEC,
            "mode=620,ptmxmode=666,gid=5",
        ),
        ("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777"),
        ("cgroup2", "/sys/fs/cgroup", quiet, ""),
    ];
    for (kind, target, flags, data) in table {
        let target = Path::new(target);
        if !target.is_dir() {
            make_dir(target)?;
        }
        sys::mount_fs(Path::new(kind), target, kind, flags, data.as_bytes())
            .step(|| format!("mount {}", target.display()))?;
    }
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        match std::os::unix::fs::symlink(target, link) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Failed {
                    step: format!("link {link}"),
                    error,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// What /run and /lib/modules hold.
fn provide_tools(setup: &Setup) -> std::result::Result<(), Failed> {
    for dir in ["/run/lock", "/run/lab/host", "/lib/modules"] {
        make_dir(Path::new(dir))?;
    }
    std::os::unix::fs::symlink("agent", "/run/lab/power").step(|| "link /run/lab/power".into())?;
    mount_host(&setup.share, Path::new("/run/lab/host"), 0)?;
    mount_host(&setup.modules, Path::new("/lib/modules"), MS_RDONLY)
}

fn set_up_network(setup: &Setup) -> std::result::Result<(), Failed> {
    network::set_up(b"lo").step(|| "set lo up".into())?;
    for port in &setup.ports {
        let name = String::from_utf8_lossy(&port.name);
        let address = match &port.address {
            None => None,
            Some((text, prefix)) => {
                let address: IpAddr = std::str::from_utf8(text)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .ok_or_else(|| Error::from_raw_os_error(sys::EINVAL))
                    .step(|| format!("read the address of {name}"))?;
                Some((address, *prefix))
            }
        };
        if let Some((IpAddr::V6(_), _)) = address {
            prepare_ipv6(&name)?;
        }
        network::set_up(&port.name).step(|| format!("set {name} up"))?;
        if let Some((address, prefix)) = address {
            network::add_address(&port.name, address, prefix)
                .step(|| format!("give {name} the address {address}/{prefix}"))?;
        }
    }
    Ok(())
}

/// IPv6 is a module in some kernels; and an address should work at once, so
/// nobody is asked whether it is taken.
fn prepare_ipv6(name: &str) -> std::result::Result<(), Failed> {
    let settings = Path::new("/proc/sys/net/ipv6/conf");
    if !settings.exists() {
        modules::load("ipv6").step(|| "load the ipv6 module".into())?;
    }
    fs::write(settings.join(name).join("accept_dad"), "0")
        .step(|| format!("switch address detection off on {name}"))
}
