//! Running a command inside a container.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io::Read;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Instant;

use crate::container::Container;
use crate::os;
use crate::sys::{self, call};
use crate::wire::{Attach, Failure, Reply, STDIO};

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

pub(crate) fn run(container: &Container, attach: &Attach, ends: Instant) -> Result<Reply, Failure> {
    let argv = strings(&attach.argv)?;
    let env = strings(&attach.env)?;
    let cwd = crate::c_string(&attach.cwd)?;
    let mut env = pointers(&env);
    let (mut report, reporter) =
        os::pipe().map_err(|error| Failure::Internal(error.to_string().into_bytes()))?;
    let mut payload = Payload {
        argv: pointers(&argv)
            .into_iter()
            .map(<*mut c_char>::cast_const)
            .collect(),
        report: reporter.as_raw_fd(),
    };
    // SAFETY: plain pointers and numbers, for which zero is a value.
    let mut options: sys::lxc_attach_options_t = unsafe { mem::zeroed() };
    options.attach_flags = sys::LXC_ATTACH_DEFAULT as c_int;
    options.namespaces = -1;
    options.personality = sys::LXC_ATTACH_DETECT_PERSONALITY.into();
    options.initial_cwd = cwd.as_ptr().cast_mut();
    options.uid = attach.uid.unwrap_or(u32::MAX);
    options.gid = attach.gid.unwrap_or(u32::MAX);
    options.env_policy = if attach.keep_env {
        sys::lxc_attach_env_policy_t_LXC_ATTACH_KEEP_ENV
    } else {
        sys::lxc_attach_env_policy_t_LXC_ATTACH_CLEAR_ENV
    };
    options.extra_env_vars = env.as_mut_ptr();
    [options.stdin_fd, options.stdout_fd, options.stderr_fd] = STDIO;
    options.log_fd = -1;

    let mut pid = -1;
    let given = (&raw mut payload).cast();
    let attached = call!(container.0, attach(Some(execute), given, &mut options, &mut pid) else -1);
    // The command has its own copies; ours would keep the pipes open.
    os::close_numbers(&STDIO);
    drop::<OwnedFd>(reporter);
    if attached < 0 || pid <= 0 {
        return Err(Failure::Call(attached));
    }

    let in_time = match os::pidfd(pid) {
        Some(pidfd) => os::ended(&pidfd, ends.saturating_duration_since(Instant::now())),
        None => true,
    };
    if !in_time {
        os::kill_child(pid);
    }
    let status =
        os::reap(pid).map_err(|error| Failure::Internal(error.to_string().into_bytes()))?;
    if !in_time {
        return Ok(Reply::TimedOut(container.0.state().to_vec()));
    }
    let mut said = Vec::new();
    // A short read says less, which the match below allows for.
    let _ = report.read_to_end(&mut said);
    match said.split_first() {
        None => Err(Failure::Call(status)),
        Some((_, [])) => Ok(Reply::Exited(status)),
        Some((_, errno)) => Ok(Reply::ExecFailed(
            errno.try_into().map_or(0, i32::from_le_bytes),
        )),
    }
}

fn strings(list: &[Vec<u8>]) -> Result<Vec<CString>, Failure> {
    list.iter().map(|item| crate::c_string(item)).collect()
}

fn pointers(strings: &[CString]) -> Vec<*mut c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr().cast_mut())
        .chain([ptr::null_mut()])
        .collect()
}
