//! What can be asked of, and done to, a container that runs.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::container::{Container, Ended, run};
use crate::error::{Error, ErrorKind, Result};
use crate::log::LogLine;
use crate::state::{Outcome, Unknown};
use crate::wire::{self, Reply, Verb};

impl Container {
    /// Sends init its reboot signal (`lxc.signal.reboot`) and waits until a new
    /// init runs, under the same monitor. An init that has only just started
    /// and does not hear the signal gets it again when it does.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`] (liblxc would call that a success),
    /// [`ErrorKind::Refused`].
    #[doc(alias = "reboot2")]
    pub fn reboot(&self, deadline: Duration) -> Result<Outcome> {
        self.simple("reboot", Verb::Reboot, deadline)
    }

    /// A configuration item as the running container has it, which may be
    /// older than the file; `None` if it is not set. Does not fork.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`].
    #[doc(alias = "get_running_config_item")]
    pub fn running_config_item(&self, key: &str) -> Result<Option<OsString>> {
        const CALL: &str = "running_config_item";
        let key = self.key(CALL, key)?;
        self.must_run(CALL)?;
        let value = self.lock().running_config_item(&key);
        Ok(value
            .filter(|value| !value.is_empty())
            .map(OsString::from_vec))
    }

    /// The content of a file of the container's cgroup, without the newline at
    /// its end, for example of `memory.current`. Names differ between the
    /// versions of cgroups. Does not fork.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`]; [`ErrorKind::NoCgroupItem`] if the
    /// container's cgroup has no such file: no such controller, the name of
    /// the other version, or no cgroups at all.
    #[doc(alias = "get_cgroup_item")]
    pub fn cgroup_item(&self, key: &str) -> Result<OsString> {
        const CALL: &str = "cgroup_item";
        let name = self.key(CALL, key)?;
        self.must_run(CALL)?;
        let Some(mut value) = self.lock().cgroup_item(&name) else {
            let detail = format!("its cgroup has no {key}");
            return Err(self.error(CALL, ErrorKind::NoCgroupItem, detail));
        };
        value.truncate(value.trim_ascii_end().len());
        Ok(OsString::from_vec(value))
    }

    /// Writes into a file of the container's cgroup. Holds until it stops.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`]; [`ErrorKind::NoCgroupItem`];
    /// [`ErrorKind::Refused`] if the kernel does not take the value.
    pub fn set_cgroup_item(
        &self,
        key: &str,
        value: impl AsRef<OsStr>,
        deadline: Duration,
    ) -> Result<Outcome> {
        const CALL: &str = "set_cgroup_item";
        self.key(CALL, key)?;
        let verb = Verb::CgroupSet {
            key: key.as_bytes().to_vec(),
            value: value.as_ref().as_bytes().to_vec(),
        };
        let set = self.simple(CALL, verb, deadline);
        set.map_err(|error| match error.kind() {
            // Reading tells a missing file from a value that is not liked; a
            // few files can only be written.
            ErrorKind::Refused if self.cgroup_item(key).is_err() => {
                error.with_kind(ErrorKind::NoCgroupItem)
            }
            _ => error,
        })
    }

    /// The network devices inside the container, `lo` included.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`], [`ErrorKind::Refused`].
    #[doc(alias = "get_interfaces")]
    pub fn interfaces(&self, deadline: Duration) -> Result<Outcome<Vec<String>>> {
        let list = self.listed("interfaces", Verb::Interfaces, deadline)?;
        let text = |name: &Vec<u8>| String::from_utf8_lossy(name).into_owned();
        Ok(map(list, |list| list.iter().map(text).collect()))
    }

    /// The addresses of the container, or of one of its network devices: all
    /// of IPv4 and those of IPv6 with global scope; none of the loopback device
    /// unless it is named.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`], [`ErrorKind::InvalidInput`], [`ErrorKind::Refused`].
    #[doc(alias = "get_ips")]
    pub fn addresses(
        &self,
        interface: Option<&str>,
        deadline: Duration,
    ) -> Result<Outcome<Vec<IpAddr>>> {
        const CALL: &str = "addresses";
        let verb = Verb::Addresses {
            interface: interface.map(|name| self.name_of(CALL, name)).transpose()?,
            family: None,
            scope: 0,
        };
        let list = self.listed(CALL, verb, deadline)?;
        Ok(map(list, |list| {
            list.iter().filter_map(|text| address(text)).collect()
        }))
    }

    /// Moves a network device of the host into the container, where it gets
    /// the name `inside` or keeps its own.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`]; [`ErrorKind::Refused`], for instance because
    /// there is no such device.
    pub fn attach_interface(
        &self,
        device: &str,
        inside: Option<&str>,
        deadline: Duration,
    ) -> Result<Outcome> {
        const CALL: &str = "attach_interface";
        let verb = Verb::AttachInterface {
            device: self.name_of(CALL, device)?,
            inside: inside.map(|name| self.name_of(CALL, name)).transpose()?,
        };
        self.simple(CALL, verb, deadline)
    }

    /// Moves a network device of the container to the host, where it gets the
    /// name `outside` or keeps its own. Without this it goes, or comes back, when the
    /// container stops.
    ///
    /// # Errors
    ///
    /// As [`Container::attach_interface`].
    pub fn detach_interface(
        &self,
        device: &str,
        outside: Option<&str>,
        deadline: Duration,
    ) -> Result<Outcome> {
        const CALL: &str = "detach_interface";
        let verb = Verb::DetachInterface {
            device: self.name_of(CALL, device)?,
            outside: outside.map(|name| self.name_of(CALL, name)).transpose()?,
        };
        self.simple(CALL, verb, deadline)
    }

    /// Makes a device node inside the container, at the path and with the
    /// numbers that it has on the host, and lets its cgroup use it. It is gone
    /// when the container stops.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`]; [`ErrorKind::InvalidInput`] if it is not a
    /// device; [`ErrorKind::Refused`], for instance if the kernel cannot filter
    /// devices of cgroups: the node is there then, and cannot be used.
    ///
    /// # Privileges
    ///
    /// Root.
    #[doc(alias = "add_device_node")]
    pub fn add_device(&self, device: impl AsRef<Path>, deadline: Duration) -> Result<Outcome> {
        const CALL: &str = "add_device";
        let device = self.device(CALL, device.as_ref())?;
        self.simple(CALL, Verb::AddDevice { device }, deadline)
    }

    /// Takes a device node away and forbids its use.
    ///
    /// # Errors
    ///
    /// As [`Container::add_device`].
    #[doc(alias = "remove_device_node")]
    pub fn remove_device(&self, device: impl AsRef<Path>, deadline: Duration) -> Result<Outcome> {
        const CALL: &str = "remove_device";
        let device = self.device(CALL, device.as_ref())?;
        self.simple(CALL, Verb::RemoveDevice { device }, deadline)
    }

    /// Mounts something into the running container. The host's root mount has
    /// to be shared, as systemd makes it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`]; [`ErrorKind::Unsupported`] if the container
    /// was not configured with a directory that it shares with the host
    /// (`lxc.mount.auto = shmounts:…`); [`ErrorKind::Refused`].
    pub fn mount(&self, mount: &Mount, deadline: Duration) -> Result<Outcome> {
        const CALL: &str = "mount";
        let verb = Verb::Mount {
            mount: wire::Mount {
                source: mount
                    .source
                    .as_deref()
                    .map(|source| self.bytes(CALL, source))
                    .transpose()?,
                target: self.bytes(CALL, &mount.target)?,
                kind: mount
                    .kind
                    .as_deref()
                    .map(|kind| self.bytes(CALL, kind))
                    .transpose()?,
                flags: mount.flags,
                data: mount
                    .data
                    .as_deref()
                    .map(|data| self.bytes(CALL, data))
                    .transpose()?,
            },
        };
        let mounted = self.simple(CALL, verb, deadline);
        mounted.map_err(|error| self.needs_sharing(error))
    }

    /// Unmounts something in the running container; `flags` as for umount2(2).
    ///
    /// # Errors
    ///
    /// As [`Container::mount`].
    #[doc(alias = "umount")]
    pub fn unmount(
        &self,
        target: impl AsRef<Path>,
        flags: u64,
        deadline: Duration,
    ) -> Result<Outcome> {
        const CALL: &str = "unmount";
        let target = self.bytes(CALL, target.as_ref())?;
        let unmounted = self.simple(CALL, Verb::Umount { target, flags }, deadline);
        unmounted.map_err(|error| self.needs_sharing(error))
    }

    /// The descriptor on which the kernel asks about system calls that the
    /// container's seccomp profile wants decided. Does not fork.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`]; [`ErrorKind::Unsupported`] without such a
    /// profile, or with a liblxc or kernel that lacks it.
    #[doc(alias = "seccomp_notify_fd_active")]
    pub fn seccomp_notify_fd(&self) -> Result<OwnedFd> {
        const CALL: &str = "seccomp_notify_fd";
        self.must_run(CALL)?;
        let fd = self.lock().seccomp_notify_fd_active();
        self.descriptor(CALL, fd)
    }

    /// The container's devpts, for a terminal of one's own in it. Does not fork.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`]; [`ErrorKind::Unsupported`] if there is none
    /// (`lxc.pty.max` is not set).
    pub fn devpts_fd(&self) -> Result<OwnedFd> {
        const CALL: &str = "devpts_fd";
        self.must_run(CALL)?;
        let fd = self.lock().devpts_fd();
        self.descriptor(CALL, fd)
    }

    /// Whether this process may ask the container's monitor. True as well for
    /// one that does not run.
    #[must_use]
    pub fn may_control(&self) -> bool {
        self.lock().may_control()
    }

    /// Takes a terminal of the running container: `number` 0 is the console, 1
    /// and on are its `lxc.tty.max` ones, and without one the first free is
    /// taken. It is given back when the value is dropped. Does not fork.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`]; [`ErrorKind::Refused`] if it is taken, or
    /// there is none.
    #[doc(alias = "console_getfd")]
    pub fn console(&self, number: Option<u32>) -> Result<Console> {
        const CALL: &str = "console";
        self.must_run(CALL)?;
        let wanted = number.map_or(-1, |number| i32::try_from(number).unwrap_or(i32::MAX));
        let Some((connection, terminal, number)) = self.lock().console_getfd(wanted) else {
            let detail = match number {
                Some(number) => format!("terminal {number} is taken or not there"),
                None => "no terminal is free".to_owned(),
            };
            return Err(self.error(CALL, ErrorKind::Refused, detail));
        };
        let connection = self.descriptor(CALL, connection)?;
        let terminal = self.descriptor(CALL, terminal)?;
        Ok(Console {
            number: u32::try_from(number).unwrap_or(0),
            terminal: terminal.into(),
            _connection: connection,
        })
    }

    /// What the console printed and is still in its ring buffer
    /// (`lxc.console.buffer.size`), at most `most` bytes of it. What is read is
    /// taken out of the buffer, and if `clear` is set so is the rest. Does not fork.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotRunning`]; [`ErrorKind::Unsupported`] if the container
    /// keeps no ring buffer; [`ErrorKind::Io`] with liblxc's errno.
    pub fn console_log(&self, most: u64, clear: bool) -> Result<Vec<u8>> {
        const CALL: &str = "console_log";
        self.must_run(CALL)?;
        let read = self.lock().console_log(most, clear);
        read.or_else(|code| match -code {
            libc::ENODATA => Ok(Vec::new()),
            libc::EFAULT | libc::ENOENT => {
                let detail = "it keeps no console log: lxc.console.buffer.size is not set";
                Err(self.error(CALL, ErrorKind::Unsupported, detail))
            }
            errno => {
                let error = io::Error::from_raw_os_error(errno);
                Err(self.io(CALL, "liblxc gives no console log", error))
            }
        })
    }

    fn must_run(&self, call: &'static str) -> Result<()> {
        if self.state()?.is_up() {
            return Ok(());
        }
        Err(self.error(call, ErrorKind::NotRunning, "it does not run"))
    }

    /// Tells a refusal from the lack of a shared directory. The item
    /// `lxc.mount.auto` does not show it; the text does, unless it is included.
    fn needs_sharing(&self, error: Error) -> Error {
        let text = self.config_text().unwrap_or_default();
        let shares = text.windows(9).any(|part| part == b"shmounts:");
        if error.kind() != ErrorKind::Refused || shares {
            return error;
        }
        let mut error = error.with_kind(ErrorKind::Unsupported);
        error.add_detail("it has no lxc.mount.auto = shmounts:PATH");
        error
    }

    fn descriptor(&self, call: &'static str, fd: i32) -> Result<OwnedFd> {
        let fd = crate::os::owned(fd).map_err(|error| {
            self.error(call, ErrorKind::Unsupported, "liblxc gives no descriptor")
                .os(error)
        })?;
        let flag = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
        nix::fcntl::fcntl(&fd, flag)
            .map_err(|error| self.io(call, "F_SETFD failed", error.into()))?;
        Ok(fd)
    }

    fn listed(
        &self,
        name: &'static str,
        verb: Verb,
        deadline: Duration,
    ) -> Result<Outcome<Vec<Vec<u8>>>> {
        let call = self.call(name, verb, deadline);
        match run(&call)? {
            // liblxc has the same answer for "none" and "failed"; its log has not.
            Ended::Reply(Reply::List { list }, log)
                if list.is_empty() && log.iter().any(LogLine::is_cause) =>
            {
                Err(call
                    .error(ErrorKind::Refused, "liblxc does not say")
                    .with_log(log))
            }
            Ended::Reply(Reply::List { list }, _) => Ok(Outcome::Done(list)),
            ended => self.outcome(&call, ended),
        }
    }

    /// The name of a network device.
    fn name_of(&self, call: &'static str, name: &str) -> Result<Vec<u8>> {
        let fits = !name.is_empty()
            && name.len() < libc::IFNAMSIZ
            && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
        if fits {
            return Ok(name.as_bytes().to_vec());
        }
        let detail = format!("{name:?} cannot be a network device");
        Err(self.error(call, ErrorKind::InvalidInput, detail))
    }

    fn bytes(&self, call: &'static str, text: impl AsRef<OsStr>) -> Result<Vec<u8>> {
        let text = text.as_ref();
        match CString::new(text.as_bytes()) {
            Ok(text) => Ok(text.into_bytes()),
            Err(_) => {
                let detail = format!("{text:?} has a NUL byte in it");
                Err(self.error(call, ErrorKind::InvalidInput, detail))
            }
        }
    }

    fn device(&self, call: &'static str, path: &Path) -> Result<Vec<u8>> {
        use std::os::unix::fs::FileTypeExt;
        let kind = std::fs::metadata(path).map(|meta| meta.file_type());
        match kind {
            Ok(kind) if kind.is_char_device() || kind.is_block_device() => self.bytes(call, path),
            Ok(_) => {
                let detail = format!("{} is not a device", path.display());
                Err(self.error(call, ErrorKind::InvalidInput, detail))
            }
            Err(error) => {
                let detail = format!("{} cannot be examined", path.display());
                Err(self.error(call, ErrorKind::InvalidInput, detail).os(error))
            }
        }
    }
}

/// Something to mount into a running container.
#[derive(Clone, Debug)]
#[must_use]
pub struct Mount {
    source: Option<PathBuf>,
    target: PathBuf,
    kind: Option<OsString>,
    flags: u64,
    data: Option<OsString>,
}

impl Mount {
    /// A file or directory of the host, at a path of the container.
    pub fn bind(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self {
            source: Some(source.into()),
            target: target.into(),
            kind: None,
            flags: libc::MS_BIND,
            data: None,
        }
    }

    /// A new file system of the kind `kind`, for example `tmpfs`, at a path of
    /// the container.
    pub fn new(kind: impl Into<OsString>, target: impl Into<PathBuf>) -> Self {
        Self {
            source: None,
            target: target.into(),
            kind: Some(kind.into()),
            flags: 0,
            data: None,
        }
    }

    /// Adds flags of mount(2).
    pub fn flags(mut self, flags: u64) -> Self {
        self.flags |= flags;
        self
    }

    /// Options for the file system.
    pub fn data(mut self, data: impl Into<OsString>) -> Self {
        self.data = Some(data.into());
        self
    }
}

/// A terminal of a running container.
///
/// Read what is printed there, write what is typed. Dropping it gives the
/// terminal back.
#[derive(Debug)]
#[must_use = "dropping this gives the terminal back"]
pub struct Console {
    number: u32,
    terminal: std::fs::File,
    /// The monitor takes the terminal back when this is closed.
    _connection: OwnedFd,
}

impl Console {
    /// Its number; 0 is the console.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl io::Read for Console {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.terminal.read(buffer)
    }
}

impl io::Write for Console {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.terminal.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.terminal.flush()
    }
}

impl std::os::fd::AsFd for Console {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.terminal.as_fd()
    }
}

fn map<T, U>(outcome: Outcome<T>, with: impl FnOnce(T) -> U) -> Outcome<U> {
    match outcome {
        Outcome::Done(value) => Outcome::Done(with(value)),
        Outcome::Unknown(unknown) => Outcome::<U>::Unknown(Unknown { ..unknown }),
    }
}

/// liblxc writes addresses as text.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let v4 = text.parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| text.parse::<Ipv6Addr>().map(IpAddr::V6))
        .ok()
}
