//! Running a command inside a container.

use std::ffi::{c_char, c_int, c_void};
use std::io::Read;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::container::Container;
use crate::os;
use crate::sys::{self, call};
use crate::wire::{Attach, Event, Failure, Reply, STDIO};
use crate::{c_string, internal, optional, pointer, pointers, say, strings};

/// Written by the attached process when nothing but `execvp` is left to do.
const READY: u8 = b'!';

struct Payload {
    /// Ends in a null pointer.
    argv: Vec<*const c_char>,
    report: RawFd,
}

/// Runs in the attached process. It says that it got here and, if executing
/// the command fails, why: exit statuses alone cannot tell these apart.
unsafe extern "C" fn execute(payload: *mut c_void) -> c_int {
    // SAFETY: liblxc hands on the pointer that `run` gave it, to a copy of the
    // memory that `run` keeps until the attached process has ended.
    let payload = unsafe { &*payload.cast::<Payload>() };
    os::write_raw(payload.report, &[READY]);
    // SAFETY: `run` ended the array with a null pointer.
    let errno = unsafe { os::exec(&payload.argv) };
    os::write_raw(payload.report, &errno.to_le_bytes());
    127
}

pub(crate) fn run(
    container: &Container,
    attach: &Attach,
    socket: &mut UnixStream,
    ends: Instant,
) -> Result<Reply, Failure> {
    let (argv, env, keep) = (
        strings(&attach.argv)?,
        strings(&attach.env)?,
        strings(&attach.keep)?,
    );
    let (cwd, label) = (c_string(&attach.cwd)?, optional(&attach.label)?);
    let (mut env, mut keep) = (pointers(&env), pointers(&keep));
    let mut groups = attach.groups.clone().unwrap_or_default();
    let (mut report, reporter) = os::pipe().map_err(internal)?;
    let mut payload = Payload {
        argv: pointers(&argv)
            .into_iter()
            .map(<*mut c_char>::cast_const)
            .collect(),
        report: reporter.as_raw_fd(),
    };
    // SAFETY: plain pointers and numbers, for which zero is a value.
    let mut options: sys::lxc_attach_options_t = unsafe { mem::zeroed() };
    options.attach_flags = sys::LXC_ATTACH_DEFAULT as c_int & !attach.flags_off | attach.flags_on;
    options.namespaces = attach.namespaces.unwrap_or(-1);
    options.personality = attach
        .personality
        .unwrap_or(sys::LXC_ATTACH_DETECT_PERSONALITY.into());
    options.initial_cwd = cwd.as_ptr().cast_mut();
    options.uid = attach.uid.unwrap_or(u32::MAX);
    options.gid = attach.gid.unwrap_or(u32::MAX);
    options.env_policy = if attach.keep_env {
        sys::lxc_attach_env_policy_t_LXC_ATTACH_KEEP_ENV
    } else {
        sys::lxc_attach_env_policy_t_LXC_ATTACH_CLEAR_ENV
    };
    options.extra_env_vars = env.as_mut_ptr();
    options.extra_keep_env = keep.as_mut_ptr();
    [options.stdin_fd, options.stdout_fd, options.stderr_fd] = STDIO;
    options.log_fd = -1;
    options.lsm_label = pointer(&label);
    options.groups.size = groups.len();
    options.groups.list = groups.as_mut_ptr();

    let mut pid = -1;
    let given = (&raw mut payload).cast();
    let attached = call!(container.0, attach(Some(execute), given, &mut options, &mut pid) else -1);
    // The command has its own copies; ours would keep the pipes open.
    os::close_numbers(&STDIO);
    drop::<OwnedFd>(reporter);
    if attached < 0 || pid <= 0 {
        return Err(Failure::Call { code: attached });
    }

    // If nobody listens any more, the next look at the socket says so.
    let _ = say(socket, &Event::Attached { pid });
    let in_time = attend(pid, socket, ends);
    if !in_time {
        os::kill_child(pid);
    }
    let status = os::reap(pid).map_err(internal)?;
    if !in_time {
        return Ok(Reply::TimedOut {
            state: container.0.state().to_vec(),
        });
    }
    let mut said = Vec::new();
    // A short read says less, which the match below allows for.
    let _ = report.read_to_end(&mut said);
    match said.split_first() {
        None => Err(Failure::Call { code: status }),
        Some((_, [])) => Ok(Reply::Exited { status }),
        Some((_, errno)) => Ok(Reply::ExecFailed {
            errno: errno.try_into().map_or(0, i32::from_le_bytes),
        }),
    }
}

/// Hands signals on until the command has ended; false when the time is over.
fn attend(pid: i32, socket: &mut UnixStream, ends: Instant) -> bool {
    let Some(pidfd) = os::pidfd(pid) else {
        return true;
    };
    let mut listening = true;
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        // A negative number is no descriptor, and never ready.
        let ears = if listening { socket.as_raw_fd() } else { -1 };
        // The time is over only when it is over to the millisecond.
        let [ended, spoke] = os::ready(
            [pidfd.as_raw_fd(), ears],
            left.saturating_add(Duration::from_millis(1)),
        );
        if ended {
            return true;
        }
        if spoke {
            let mut signal = [0];
            match socket.read(&mut signal) {
                Ok(1) => os::signal_child(pid, signal[0].into()),
                // The library let go: the command goes on alone.
                _ => listening = false,
            }
        } else if left.is_zero() {
            return false;
        }
    }
}
