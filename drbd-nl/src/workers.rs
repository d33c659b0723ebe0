//! Threads for what may take longer than a caller can wait.

use crate::socket::Deadline;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Runs tasks, each on a thread that has nothing else to do. A thread that is
/// done waits for another task, if no other does; the last one ends when this
/// is dropped, as does one that the kernel kept meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Workers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Not more than there are threads for them.
    tasks: VecDeque<Task>,
    /// Threads that wait, or are about to.
    idle: usize,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Queue({} idle)", self.idle)
    }
}

/// What to do; it is handed what tells that the thread is free for the next.
type Task = Box<dyn FnOnce(&mut dyn FnMut()) + Send>;

/// What a task gives, once. A channel would do; on the way to sleep it looks
/// at the clock more often, which is a system call where there is no vDSO.
#[derive(Debug)]
pub(crate) struct Result<R>(Arc<Slot<R>>);

/// The task's end of it: tells that nothing is to come when it is dropped.
struct Sender<R>(Arc<Slot<R>>);

#[derive(Debug)]
struct Slot<R> {
    told: Mutex<Told<R>>,
    arrived: Condvar,
}

#[derive(Debug)]
enum Told<R> {
    NotYet,
    Result(R),
    Never,
}

impl<R> Sender<R> {
    fn tell(&self, told: Told<R>) {
        let mut slot = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*slot, Told::NotYet) {
            *slot = told;
            drop(slot);
            self.0.arrived.notify_one();
        }
    }
}

impl<R> Drop for Sender<R> {
    fn drop(&mut self) {
        self.tell(Told::Never);
    }
}

impl<R> Result<R> {
    fn pair() -> (Sender<R>, Self) {
        let slot = Arc::new(Slot {
            told: Mutex::new(Told::NotYet),
            arrived: Condvar::new(),
        });
        (Sender(Arc::clone(&slot)), Self(slot))
    }

    /// Waits for it up to the deadline, which is `left` from now; `None` when
    /// it does not come in time, or never.
    pub(crate) fn wait(self, mut left: Duration, deadline: Deadline) -> Option<R> {
        let slot = &*self.0;
        let mut told = slot.told.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match std::mem::replace(&mut *told, Told::Never) {
                Told::Result(result) => return Some(result),
                Told::Never => return None,
                Told::NotYet => *told = Told::NotYet,
            }
            if left.is_zero() {
                return None;
            }
            let woken = slot.arrived.wait_timeout(told, left);
            told = woken.unwrap_or_else(PoisonError::into_inner).0;
            if matches!(*told, Told::NotYet) {
                left = deadline.left();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a task; `None` when no more is to come.
    fn next(&self) -> Option<Task> {
        let mut queue = self.lock();
        loop {
            if let Some(task) = queue.tasks.pop_front() {
                queue.idle -= 1;
                return Some(task);
            }
            if queue.closed || queue.idle > 1 {
                queue.idle -= 1;
                return None;
            }
            queue = self
                .arrived
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Workers {
    /// Runs a task.
    pub(crate) fn start<R: Send + 'static>(
        &self,
        task: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<Result<R>> {
        let (sender, given) = Result::pair();
        let task: Task = Box::new(move |free| {
            let result = task();
            // Before the result is told: who has it may have another task.
            free();
            // The caller may be gone by now; then nobody wants the result.
            sender.tell(Told::Result(result));
        });
        let mut queue = self.0.lock();
        if queue.idle > queue.tasks.len() {
            queue.tasks.push_back(task);
            drop(queue);
            self.0.arrived.notify_one();
            return Ok(given);
        }
        drop(queue);
        let shared = Arc::clone(&self.0);
        std::thread::Builder::new()
            .name("drbd-nl".into())
            .spawn(move || {
                let mut task = Some(task);
                while let Some(run) = task {
                    run(&mut || shared.lock().idle += 1);
                    task = shared.next();
                }
            })?;
        Ok(given)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.arrived.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread::ThreadId;

    impl<R> Result<R> {
        fn recv(self) -> Option<R> {
            self.wait(Duration::MAX, Deadline::after(Duration::MAX))
        }
    }

    fn me() -> ThreadId {
        std::thread::current().id()
    }

    #[test]
    fn a_thread_that_is_done_is_used_again_and_one_that_hangs_is_not() {
        let workers = Workers::default();
        let first = workers.start(me).unwrap().recv().unwrap();
        assert_eq!(workers.start(me).unwrap().recv().unwrap(), first);
        // Two that last: neither waits for the other.
        let hang = || {
            let ((go, wait), (tell, begun)) = (channel::<()>(), channel());
            let done = workers.start(move || {
                tell.send(()).unwrap();
                let _ = wait.recv();
                me()
            });
            begun.recv().unwrap();
            (go, done.unwrap())
        };
        let ((go_one, one), (go_two, two)) = (hang(), hang());
        let third = workers.start(me).unwrap().recv().unwrap();
        drop(go_two);
        let second = two.recv().unwrap();
        drop(go_one);
        assert_eq!(one.recv().unwrap(), first);
        assert!(first != second && second != third && third != first);
        // A task that panics takes its thread with it, not the others.
        let lost = workers.start(|| -> () { std::panic::resume_unwind(Box::new(())) });
        assert!(lost.unwrap().recv().is_none());
        workers.start(me).unwrap().recv().unwrap();
    }

    #[test]
    fn threads_end() {
        let workers = Workers::default();
        let shared = Arc::downgrade(&workers.0);
        let (go, wait) = channel::<()>();
        let kept = workers.start(move || wait.recv().is_err()).unwrap();
        workers.start(me).unwrap().recv().unwrap();
        drop(workers);
        drop(go);
        assert!(kept.recv().unwrap());
        // The last thread lets go of what they share.
        while shared.strong_count() > 0 {
            std::thread::yield_now();
        }
    }
}
