//! The helper process: one call into liblxc, then the end.
//!
//! Most verbs of liblxc fork. A fork of a program with threads may only do
//! very little before it executes something else, and liblxc does a lot; it
//! also waits for its children by itself, which a program that ignores SIGCHLD
//! or reaps every child breaks, and a start leaves behind a monitor that is a
//! copy of the whole program. So the library runs these verbs here: in a small
//! program with one thread, default signals and no stray descriptors, whose
//! log holds this call and nothing else, and which can be killed at a deadline.
//!
//! It is compiled by the build script, carried inside the library and executed
//! from memory. It uses nothing but `std` and the liblxc it is told to load.
//! During `create` liblxc executes it once more, as the "template" program.
#![allow(
    unsafe_code,
    reason = "calls liblxc and a few functions of the C library"
)]

mod attach;
mod container;
mod live;
mod os;
mod restore;
#[path = "../sys/mod.rs"]
mod sys;
mod template;
mod traces;
#[path = "../wire.rs"]
mod wire;

use std::ffi::{CString, OsStr};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use container::Container;
use template::Template;
use traces::{Traces, has_child, lives, parent};
use wire::{Event, Failure, Reply, Request, Verb};

/// How often a state is asked for while waiting.
const POLL: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    if let Some(template) = Template::from_arguments() {
        return template.run();
    }
    os::close_on_exec_from(3);
    let mut socket = os::socket();
    let Ok(bytes) = wire::receive(&mut socket) else {
        return ExitCode::FAILURE;
    };
    let reply = match Request::decode(&bytes) {
        Some(request) => {
            serve(&request, &mut socket).unwrap_or_else(|failure| Reply::Failed { failure })
        }
        None => Reply::Failed {
            failure: internal("the request cannot be read"),
        },
    };
    match say(&mut socket, &Event::Done { reply }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn say(socket: &mut UnixStream, event: &Event) -> std::io::Result<()> {
    wire::send(socket, &event.encode())
}

fn serve(request: &Request, socket: &mut UnixStream) -> Result<Reply, Failure> {
    let ends = Instant::now().checked_add(Duration::from_millis(request.millis));
    // Beyond the clock's range: until the library ends this program.
    let ends = ends.unwrap_or_else(|| Instant::now() + Duration::from_secs(1 << 30));
    let library = c_string(&request.library)?;
    let library = sys::Library::open_file(&library).map_err(|error| Failure::Library {
        text: match error {
            sys::LoadError::Missing(text) | sys::LoadError::Version(text) => text.into_bytes(),
        },
    })?;
    let open = |library| {
        let container = Container::open(
            library,
            &c_string(&request.name)?,
            &c_string(&request.lxcpath)?,
        )?;
        container.apply(&request.edits)?;
        Ok::<_, Failure>(container)
    };
    // The monitor keeps the log that is open when it starts. A container that
    // has a log file of its own must find no other, which liblxc prefers.
    if let Verb::Start { argv } = &request.verb
        && let Ok(container) = open(library.clone())
        && let Some(tail) = container.own_log()
    {
        let started = start(&container, argv);
        tail.copy_to_log();
        return started;
    }
    library.log_to(&c_string(
        format!("/proc/self/fd/{}", wire::LOG).as_bytes(),
    )?);
    let container = open(library)?;
    say(socket, &Event::Ready).map_err(internal)?;
    match &request.verb {
        Verb::Create => return create(&container),
        Verb::Template { template } => {
            os::log_output();
            return yes(container.create_by(template)?);
        }
        Verb::State | Verb::Wait { .. } | Verb::WaitGone => {}
        _ if container.0.is_defined() => {}
        _ => return Err(Failure::NotDefined),
    }
    match &request.verb {
        Verb::Check | Verb::Create | Verb::Template { .. } => Ok(Reply::Done),
        Verb::State => Ok(state(&container)),
        Verb::Start { argv } => start(&container, argv),
        Verb::Foreground { argv } => {
            refuse_running(&container)?;
            container.run(&strings(argv)?)
        }
        Verb::Shutdown => end(&container, request, ends, Container::halt),
        Verb::Stop => end(&container, request, ends, Container::stop),
        Verb::Reboot => reboot(&container, ends),
        Verb::Freeze => running(&container, Container::freeze),
        Verb::Unfreeze => running(&container, Container::unfreeze),
        Verb::Wait { state } => Ok(wait(&container, ends, |now| now == *state)),
        Verb::WaitGone => {
            let traces = Traces::find(&request.lxcpath, &request.name, container.0.init_pid());
            Ok(wait(&container, ends, |now| {
                now == b"STOPPED" && traces.gone()
            }))
        }
        Verb::Attach { attach } => {
            if container.is_stopped() {
                return Err(Failure::NotRunning);
            }
            attach::run(&container, attach, socket, ends)
        }
        Verb::Destroy => {
            refuse_running(&container)?;
            yes(container.destroy())
        }
        Verb::DestroyAll => {
            refuse_running(&container)?;
            yes(container.destroy_all())
        }
        Verb::Snapshot => {
            refuse_running(&container)?;
            container.snapshot()
        }
        Verb::SnapshotDestroy { snapshot } => yes(container.snapshot_destroy(&c_string(snapshot)?)),
        Verb::Restore { restore } => {
            refuse_running(&container)?;
            restore::run(restore)
        }
        Verb::Clone { clone } => yes(container.clone_to(clone)?),
        Verb::CgroupSet { .. }
        | Verb::Interfaces
        | Verb::Addresses { .. }
        | Verb::AttachInterface { .. }
        | Verb::DetachInterface { .. }
        | Verb::AddDevice { .. }
        | Verb::RemoveDevice { .. }
        | Verb::Mount { .. }
        | Verb::Umount { .. } => {
            if container.is_stopped() {
                return Err(Failure::NotRunning);
            }
            live::run(&container, &request.verb)
        }
        Verb::Checkpoint { dir, stop, verbose } => {
            if container.is_stopped() {
                return Err(Failure::NotRunning);
            }
            yes(container.checkpoint(&c_string(dir)?, *stop, *verbose))
        }
        Verb::Resume { dir, verbose } => {
            refuse_running(&container)?;
            yes(container.resume(&c_string(dir)?, *verbose))
        }
    }
}

fn state(container: &Container) -> Reply {
    Reply::State {
        state: container.0.state().to_vec(),
    }
}

fn start(container: &Container, argv: &[Vec<u8>]) -> Result<Reply, Failure> {
    if !container.0.is_defined() {
        return Err(Failure::NotDefined);
    }
    refuse_running(container)?;
    if !container.start(&strings(argv)?) {
        // Two at once: the other one was faster.
        return Err(match container.0.state() {
            state @ (b"STARTING" | b"RUNNING" | b"FROZEN") => Failure::Running {
                state: state.to_vec(),
            },
            _ => Failure::Call { code: 0 },
        });
    }
    // Starting was reported, but an init that cannot run ends at once.
    Ok(state(container))
}

/// Ends a running container by `verb` and waits for its last trace to go.
fn end(
    container: &Container,
    request: &Request,
    ends: Instant,
    verb: fn(&Container) -> bool,
) -> Result<Reply, Failure> {
    if container.is_stopped() {
        return Err(Failure::NotRunning);
    }
    // Afterwards nobody could tell which monitor and cgroups were its own.
    let init = container.0.init_pid();
    let traces = Traces::find(&request.lxcpath, &request.name, init);
    let mut heard = Heard::now(init);
    if !verb(container) && !container.is_stopped() {
        return Err(Failure::Call { code: 0 });
    }
    // Its processes tell when they end; the monitor, which has a lot to do now, is not asked meanwhile.
    loop {
        if traces.gone() && container.is_stopped() {
            return Ok(Reply::Done);
        }
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Reply::TimedOut {
                state: container.0.state().to_vec(),
            });
        }
        if heard.changed(init) && container.0.state() == b"RUNNING" {
            // Whatever it says: the next look tells.
            verb(container);
        }
        traces.wait(POLL.min(left));
    }
}

/// Which signals a process hears. An init that has only just been executed
/// hears none: a signal that came too early is gone, and sent again.
#[derive(PartialEq)]
struct Heard(Vec<String>);

impl Heard {
    fn now(pid: i32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let masks = ["SigBlk:", "SigIgn:", "SigCgt:"];
        let lines = status.lines();
        Self(
            lines
                .filter(|line| masks.iter().any(|mask| line.starts_with(mask)))
                .map(str::to_owned)
                .collect(),
        )
    }

    fn changed(&mut self, pid: i32) -> bool {
        let now = Self::now(pid);
        let changed = now != *self;
        *self = now;
        changed
    }
}

fn reboot(container: &Container, ends: Instant) -> Result<Reply, Failure> {
    let init = container.0.init_pid();
    if init <= 0 {
        return Err(Failure::NotRunning);
    }
    let monitor = parent(init);
    let mut heard = Heard::now(init);
    if !container.reboot() {
        return Err(Failure::Call { code: 0 });
    }
    // Between two inits the monitor takes connections and forgets them without closing them: a
    // question of that moment is never answered. /proc tells when there is somebody to ask again.
    let settled = || match monitor {
        Some(monitor) => !lives(init) && (has_child(monitor) || !lives(monitor)),
        None => !lives(init),
    };
    while !settled() {
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Reply::TimedOut {
                state: if lives(init) {
                    b"RUNNING".to_vec()
                } else {
                    b"STARTING".to_vec()
                },
            });
        }
        if lives(init) && heard.changed(init) {
            container.reboot();
        }
        std::thread::sleep(POLL.min(left));
    }
    Ok(wait(container, ends, |now| {
        let next = container.0.init_pid();
        now == b"RUNNING" && next > 0 && next != init
    }))
}

fn wait(container: &Container, ends: Instant, mut reached: impl FnMut(&[u8]) -> bool) -> Reply {
    loop {
        let state = container.0.state();
        if reached(state) {
            return Reply::Done;
        }
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Reply::TimedOut {
                state: state.to_vec(),
            };
        }
        std::thread::sleep(POLL.min(left));
    }
}

fn create(container: &Container) -> Result<Reply, Failure> {
    // The template program inherits the socket and the log, and this program,
    // which may be executed by another one: /proc/self/exe would be that.
    let itself = std::fs::File::open("/proc/self/exe").map_err(internal)?;
    for inherited in [wire::SOCKET, wire::LOG, itself.as_raw_fd()] {
        os::keep_on_exec(inherited);
    }
    let itself = c_string(format!("/proc/self/fd/{}", itself.as_raw_fd()).as_bytes())?;
    yes(container.create(&itself))
}

fn running(container: &Container, verb: fn(&Container) -> bool) -> Result<Reply, Failure> {
    if container.is_stopped() {
        return Err(Failure::NotRunning);
    }
    yes(verb(container))
}

fn refuse_running(container: &Container) -> Result<(), Failure> {
    match container.0.state() {
        b"STOPPED" => Ok(()),
        state => Err(Failure::Running {
            state: state.to_vec(),
        }),
    }
}

fn yes(answer: bool) -> Result<Reply, Failure> {
    if answer {
        Ok(Reply::Done)
    } else {
        Err(Failure::Call { code: 0 })
    }
}

/// Zero is yes, as in most calls that return a number.
fn zero(code: i32) -> Result<Reply, Failure> {
    if code == 0 {
        Ok(Reply::Done)
    } else {
        Err(Failure::Call { code })
    }
}

fn internal(what: impl ToString) -> Failure {
    Failure::Internal {
        text: what.to_string().into_bytes(),
    }
}

fn c_string(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| internal("a NUL byte in an argument"))
}

fn strings(list: &[Vec<u8>]) -> Result<Vec<CString>, Failure> {
    list.iter().map(|item| c_string(item)).collect()
}

fn optional(bytes: &Option<Vec<u8>>) -> Result<Option<CString>, Failure> {
    bytes.as_deref().map(c_string).transpose()
}

/// The pointer of an optional string, null without one.
fn pointer(string: &Option<CString>) -> *mut std::ffi::c_char {
    string
        .as_ref()
        .map_or(std::ptr::null_mut(), |string| string.as_ptr().cast_mut())
}

/// An array of C strings that ends in a null pointer.
fn pointers(strings: &[CString]) -> Vec<*mut std::ffi::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr().cast_mut())
        .chain([std::ptr::null_mut()])
        .collect()
}

fn path(bytes: &[u8]) -> &std::path::Path {
    std::path::Path::new(OsStr::from_bytes(bytes))
}
