//! The watcher and the raw events for programs that use tokio.

use crate::error::{Cause, Error, ErrorKind, Result};
use crate::events::{RawEvent, RawEvents};
use crate::model::State;
use crate::socket::Transport;
use crate::watch::{Update, Watcher};
use futures_core::Stream;
use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

/// A [`Watcher`] as a stream of its updates. It never ends; an error does
/// not end it either.
///
/// When events were lost, polling it reads the state again, which takes as
/// long as the kernel needs to write it down.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), drbd_nl::Error> {
/// let mut updates = drbd_nl::Drbd::open()?.watch()?.into_stream()?;
/// updates
///     .wait_for(Duration::from_secs(30), |state| {
///         state.resource("r0").is_some_and(|r0| r0.is_in_sync())
///     })
///     .await?;
/// while let Some(update) = updates.next_update().await? {
///     println!("{update:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "dropping this ends the watching"]
pub struct Updates<T: Transport + AsFd> {
    watcher: Watcher<T>,
    fd: AsyncFd<OwnedFd>,
    wakeup: Option<Pin<Box<Sleep>>>,
}

/// [`RawEvents`] as a stream. It never ends; an error does not end it either.
#[derive(Debug)]
#[must_use = "dropping this leaves the event group"]
pub struct EventStream<T: Transport + AsFd> {
    events: RawEvents<T>,
    fd: AsyncFd<OwnedFd>,
}

/// tokio gets a duplicate of the descriptor, which nobody else can close.
fn register(reader: &impl AsFd, op: &'static str) -> Result<AsyncFd<OwnedFd>> {
    let system = |call| move |source| Error::new(op, "", Cause::System { call, source });
    let fd = reader.as_fd().try_clone_to_owned().map_err(system("dup"))?;
    #[allow(
        deprecated,
        reason = "an `OwnedFd` keeps what the unsafe successor asks for, which is also too new"
    )]
    AsyncFd::with_interest(fd, Interest::READABLE).map_err(system("register with tokio"))
}

impl<T: Transport + AsFd> Watcher<T> {
    /// As a stream of updates. Call it in a runtime with I/O and time.
    ///
    /// # Errors
    /// When the runtime does not take the descriptor.
    pub fn into_stream(self) -> Result<Updates<T>> {
        Ok(Updates {
            fd: register(&self, "watch")?,
            watcher: self,
            wakeup: None,
        })
    }
}

impl<T: Transport + AsFd> RawEvents<T> {
    /// As a stream of events. Call it in a runtime with I/O.
    ///
    /// # Errors
    /// When the runtime does not take the descriptor.
    pub fn into_stream(self) -> Result<EventStream<T>> {
        Ok(EventStream {
            fd: register(&self, "events")?,
            events: self,
        })
    }
}

impl<T: Transport + AsFd> Updates<T> {
    /// The model as of the last update.
    #[must_use]
    pub fn state(&self) -> &State {
        self.watcher.state()
    }

    /// The watcher back.
    pub fn into_inner(self) -> Watcher<T> {
        self.watcher
    }

    /// The next update; never `None`.
    ///
    /// Cancel-safe: no update is lost when the future is dropped.
    ///
    /// # Errors
    /// As [`Watcher::next_update`].
    pub async fn next_update(&mut self) -> Result<Option<Update>>
    where
        T: Unpin,
    {
        poll_fn(|cx| self.poll_update(cx)).await.map(Some)
    }

    /// As [`Watcher::wait_for`].
    ///
    /// Cancel-safe: the updates that were read are in the model.
    ///
    /// # Errors
    /// As [`Watcher::wait_for`].
    pub async fn wait_for(
        &mut self,
        timeout: Duration,
        mut wanted: impl FnMut(&State) -> bool,
    ) -> Result<()>
    where
        T: Unpin,
    {
        let wait = async {
            while !wanted(self.state()) {
                if let Some(Update::ModuleUnloaded(_)) = self.next_update().await? {
                    let text = "the DRBD kernel module was unloaded";
                    return Err(Error::local("watch", "", ErrorKind::ModuleNotLoaded, text));
                }
            }
            Ok(())
        };
        tokio::time::timeout(timeout, wait)
            .await
            .unwrap_or_else(|_| {
                let text = format!("the awaited state did not come within {timeout:?}");
                Err(Error::local("watch", "", ErrorKind::Timeout, text))
            })
    }

    fn poll_update(&mut self, cx: &mut Context<'_>) -> Poll<Result<Update>> {
        loop {
            if let Some(update) = self.watcher.try_update()? {
                return Poll::Ready(Ok(update));
            }
            // An event that came early does not wait for ever.
            self.wakeup = self
                .watcher
                .wakeup()
                .map(|after| Box::pin(tokio::time::sleep(after)));
            if let Some(sleep) = &mut self.wakeup
                && sleep.as_mut().poll(cx).is_ready()
            {
                continue;
            }
            // Not readable since the last look: look once more, then wait.
            ready!(self.fd.poll_read_ready(cx))
                .map_err(|source| {
                    let call = "poll";
                    Error::new("watch", "", Cause::System { call, source })
                })?
                .clear_ready();
        }
    }
}

impl<T: Transport + AsFd + Unpin> Stream for Updates<T> {
    type Item = Result<Update>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_update(cx).map(Some)
    }
}

impl<T: Transport + AsFd + Unpin> Stream for EventStream<T> {
    type Item = Result<RawEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.events.try_next() {
                Ok(Some(event)) => return Poll::Ready(Some(Ok(event))),
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(None) => {}
            }
            let ready = ready!(self.fd.poll_read_ready(cx));
            match ready {
                Ok(mut guard) => guard.clear_ready(),
                Err(source) => {
                    let call = "poll";
                    let error = Error::new("events", "", Cause::System { call, source });
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
