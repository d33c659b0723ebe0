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
mod os;
#[path = "../sys/mod.rs"]
mod sys;
mod traces;
#[path = "../wire.rs"]
mod wire;

use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use container::Container;
use traces::Traces;
use wire::{Event, Failure, Reply, Request, Verb};

/// How often a state is asked for while waiting.
const POLL: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    if let Some(rootfs) = std::env::args_os().find_map(|argument| {
        argument
            .as_bytes()
            .strip_prefix(b"--rootfs=")
            .map(<[u8]>::to_vec)
    }) {
        return template(rootfs);
    }
    os::close_on_exec_from(3);
    let mut socket = os::socket();
    let Ok(bytes) = wire::receive(&mut socket) else {
        return ExitCode::FAILURE;
    };
    let reply = match Request::decode(&bytes) {
        Some(request) => serve(&request, &mut socket).unwrap_or_else(Reply::Failed),
        None => Reply::Failed(Failure::Internal(b"the request cannot be read".to_vec())),
    };
    match wire::send(&mut socket, &Event::Done(reply).encode()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The second role: liblxc has made the root file system and runs us to fill
/// it. The library does that, over the socket we inherited; if it says no, or
/// is not there any more, liblxc takes everything back.
fn template(rootfs: Vec<u8>) -> ExitCode {
    let mut socket = os::socket();
    let mut answer = [0];
    let told = wire::send(&mut socket, &Event::Populate { rootfs }.encode());
    let heard = told.and_then(|()| std::io::Read::read_exact(&mut socket, &mut answer));
    if heard.is_ok() && answer == [1] {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn serve(request: &Request, socket: &mut UnixStream) -> Result<Reply, Failure> {
    let ends = Instant::now() + Duration::from_millis(request.millis);
    let library = c_string(&request.library)?;
    let library = sys::Library::open_file(&library).map_err(|error| {
        Failure::Library(match error {
            sys::LoadError::Missing(text) | sys::LoadError::Version(text) => text.into_bytes(),
        })
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
    wire::send(socket, &Event::Ready.encode())
        .map_err(|error| Failure::Internal(error.to_string().into_bytes()))?;
    if request.verb == Verb::Create {
        return create(&container);
    }
    if !matches!(
        request.verb,
        Verb::State | Verb::Wait { .. } | Verb::WaitGone
    ) && !container.0.is_defined()
    {
        return Err(Failure::NotDefined);
    }
    match &request.verb {
        Verb::Check => Ok(Reply::Done),
        Verb::State => Ok(Reply::State(container.0.state().to_vec())),
        Verb::Start { argv } => start(&container, argv),
        Verb::Shutdown => end(&container, request, ends, Container::halt),
        Verb::Stop => end(&container, request, ends, Container::stop),
        Verb::Freeze => running(&container, Container::freeze),
        Verb::Unfreeze => running(&container, Container::unfreeze),
        Verb::Wait { state } => Ok(wait(&container, ends, |now| now == *state)),
        Verb::WaitGone => {
            let traces = Traces::find(&request.lxcpath, &request.name, container.0.init_pid());
            Ok(wait(&container, ends, |now| {
                now == b"STOPPED" && traces.gone()
            }))
        }
        Verb::Attach(attach) => {
            if container.is_stopped() {
                return Err(Failure::NotRunning);
            }
            attach::run(&container, attach, ends)
        }
        Verb::Create => create(&container),
        Verb::Destroy => {
            refuse_running(&container)?;
            yes(container.destroy())
        }
    }
}

fn start(container: &Container, argv: &[Vec<u8>]) -> Result<Reply, Failure> {
    if !container.0.is_defined() {
        return Err(Failure::NotDefined);
    }
    refuse_running(container)?;
    let argv = argv
        .iter()
        .map(|argument| c_string(argument))
        .collect::<Result<Vec<_>, _>>()?;
    if !container.start(&argv) {
        // Two at once: the other one was faster.
        return Err(match container.0.state() {
            state @ (b"STARTING" | b"RUNNING" | b"FROZEN") => Failure::Running(state.to_vec()),
            _ => Failure::Call(0),
        });
    }
    // Starting was reported, but an init that cannot run ends at once.
    Ok(Reply::State(container.0.state().to_vec()))
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
    let traces = Traces::find(&request.lxcpath, &request.name, container.0.init_pid());
    if !verb(container) && !container.is_stopped() {
        return Err(Failure::Call(0));
    }
    Ok(wait(container, ends, |now| {
        now == b"STOPPED" && traces.gone()
    }))
}

fn wait(container: &Container, ends: Instant, reached: impl Fn(&[u8]) -> bool) -> Reply {
    loop {
        let state = container.0.state();
        if reached(state) {
            return Reply::Done;
        }
        let left = ends.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Reply::TimedOut(state.to_vec());
        }
        std::thread::sleep(POLL.min(left));
    }
}

fn create(container: &Container) -> Result<Reply, Failure> {
    // The template program inherits the socket.
    os::keep_on_exec(wire::SOCKET);
    yes(container.create())
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
        state => Err(Failure::Running(state.to_vec())),
    }
}

fn yes(answer: bool) -> Result<Reply, Failure> {
    if answer {
        Ok(Reply::Done)
    } else {
        Err(Failure::Call(0))
    }
}

fn c_string(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::Internal(b"a NUL byte in an argument".to_vec()))
}

fn path(bytes: &[u8]) -> &std::path::Path {
    std::path::Path::new(OsStr::from_bytes(bytes))
}
