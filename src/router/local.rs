//! Subscriptions of the own process: a callback or a bounded queue as a target.
//!
//! The router holds them by their target ([`Owner::LOCAL`]); a match hands them out resolved, see
//! [`Matches::local`](super::Matches::local). Whoever publishes delivers: a
//! [`Publisher`](super::Publisher), or a worker of the server with [`LocalSub::deliver`].

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::local_queue::{LocalQueue, Overflow, Pushed, QueueLimits};
use super::publisher::Outbox;
use super::router::{Router, SubjectError};
use super::target::{Owner, Place, Target};
use super::trie::Index;

/// A message, borrowed.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Message<'a> {
    /// Subject it is published to.
    pub subject: &'a [u8],
    /// Subject that wants the answer.
    pub reply: Option<&'a [u8]>,
    /// Header block as on the wire, empty if there is none.
    pub headers: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

/// Called with each message, on the publisher's thread, with no lock held; possibly by several
/// publishers at the same time. It must not block. What it wants to publish it gives to the outbox:
/// that is delivered, in order, when the present message has reached everybody. It may subscribe and
/// unsubscribe, itself too.
///
/// It may also publish with a publisher of its own; that nests on the stack, and a callback so
/// entered more than [`NESTED_CALLS_MAX`] levels deep is not called.
///
/// The router owns it, so what it owns should not own the router: a [`Publisher`](super::Publisher),
/// a [`LocalHandle`] or an `Arc<Router>` inside keeps both alive until the subscription ends, which
/// is never if it is detached. Hold a [`Weak`](std::sync::Weak) router there.
pub type Callback = Box<dyn Fn(&Message<'_>, &mut Outbox) + Send + Sync>;

/// Callbacks that may be active on one thread at a time, one inside the other.
pub const NESTED_CALLS_MAX: u32 = 16;

thread_local! {
    static NESTED_CALLS: Cell<u32> = const { Cell::new(0) };
}

enum Sink {
    Callback {
        callback: Callback,
        /// Calls that are left; `usize::MAX` for any number. A queue counts for itself.
        left: AtomicUsize,
    },
    Queue(LocalQueue),
}

/// What a new in-process subscription does with its messages.
pub struct LocalOptions {
    sink: Sink,
}

impl LocalOptions {
    /// Calls `callback`.
    pub fn callback(
        callback: impl Fn(&Message<'_>, &mut Outbox) + Send + Sync + 'static,
    ) -> LocalOptions {
        LocalOptions {
            sink: Sink::Callback {
                callback: Box::new(callback),
                left: AtomicUsize::new(usize::MAX),
            },
        }
    }

    /// Fills a queue; see [`LocalHandle::queue`].
    pub fn queue(limits: QueueLimits, overflow: Overflow) -> LocalOptions {
        let queue = LocalQueue::new(limits, overflow, None);
        LocalOptions {
            sink: Sink::Queue(queue),
        }
    }

    /// Fills a queue, and calls `on_ready` on the publisher's thread whenever it stops being empty.
    pub fn queue_with_signal(
        limits: QueueLimits,
        overflow: Overflow,
        on_ready: impl Fn() + Send + Sync + 'static,
    ) -> LocalOptions {
        let queue = LocalQueue::new(limits, overflow, Some(Box::new(on_ready)));
        LocalOptions {
            sink: Sink::Queue(queue),
        }
    }

    /// Ends the subscription by itself after so many messages, at least one; a queue is closed with
    /// the last one. What a queue had no room for does not count, nor a call that would have been
    /// nested too deep; what [`Overflow::DropOldest`] drops later does.
    pub fn messages_max(mut self, count: usize) -> LocalOptions {
        match &mut self.sink {
            Sink::Callback { left, .. } => *left = AtomicUsize::new(count.max(1)),
            Sink::Queue(queue) => queue.close_after(count.max(1)),
        }
        self
    }
}

/// An in-process subscription, as the router and the matches hold it.
pub struct LocalSub {
    target: Target,
    place: Place,
    sink: Sink,
    is_closed: AtomicBool,
    /// Whether somebody has taken it out of the router, which must be done once.
    is_ended: AtomicBool,
}

impl std::fmt::Debug for LocalSub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalSub")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl LocalSub {
    /// Its target.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Where the router has it.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The queue, if it has one.
    pub fn queue(&self) -> Option<&LocalQueue> {
        match &self.sink {
            Sink::Queue(queue) => Some(queue),
            Sink::Callback { .. } => None,
        }
    }

    /// Gives it the message. `false` if it has ended or refuses, so that another member of its queue
    /// group may have it; `true` also if its queue dropped the message. With its last message it leaves the router. Must not be called with a lock
    /// of the caller's held, since callbacks do as they like.
    #[inline]
    pub fn deliver(&self, router: &Router, message: &Message<'_>, outbox: &mut Outbox) -> bool {
        if self.is_closed.load(Ordering::Acquire) {
            return false;
        }
        match &self.sink {
            Sink::Callback { callback, left } => {
                let Some(_nested) = NestedCall::enter() else {
                    router.nested_dropped.fetch_add(1, Ordering::Relaxed);
                    return false;
                };
                if left.load(Ordering::Relaxed) != usize::MAX && !self.count_call(router, left) {
                    return false;
                }
                callback(message, outbox);
                true
            }
            Sink::Queue(queue) => match queue.push(message) {
                Pushed::Taken | Pushed::Dropped => true,
                Pushed::Refused => false,
                Pushed::Last => {
                    self.end(router);
                    true
                }
            },
        }
    }

    /// `false` if no call was left.
    #[cold]
    fn count_call(&self, router: &Router, left: &AtomicUsize) -> bool {
        let one_less = |left: usize| left.checked_sub(1);
        match left.fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_less) {
            Ok(1) => {
                // Out of the router before the call: the callback may count on it.
                self.end(router);
                true
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }

    /// Takes nothing more, and leaves the router.
    fn end(&self, router: &Router) -> bool {
        self.is_closed.store(true, Ordering::Release);
        if let Sink::Queue(queue) = &self.sink {
            queue.close();
        }
        !self.is_ended.swap(true, Ordering::AcqRel) && router.unsubscribe(self.place, self.target)
    }
}

/// Counts the callbacks active on this thread, also when one unwinds.
struct NestedCall;

impl NestedCall {
    #[inline]
    fn enter() -> Option<NestedCall> {
        NESTED_CALLS.with(|calls| {
            let depth = calls.get();
            (depth < NESTED_CALLS_MAX).then(|| {
                calls.set(depth + 1);
                NestedCall
            })
        })
    }
}

impl Drop for NestedCall {
    #[inline]
    fn drop(&mut self) {
        NESTED_CALLS.with(|calls| calls.set(calls.get() - 1));
    }
}

/// An in-process subscription in the hands of who made it. When this is dropped, the subscription
/// ends and what its queue still holds is dropped.
///
/// What a callback owns lives on for a while: each publisher (and worker of the server) that knows
/// the subscription from a match lets go of it within its next 512 messages, to whatever subject;
/// one that rests keeps it until it goes on or is dropped.
pub struct LocalHandle {
    router: Arc<Router>,
    sub: Arc<LocalSub>,
    is_detached: bool,
}

impl LocalHandle {
    /// The subscription.
    pub fn sub(&self) -> &Arc<LocalSub> {
        &self.sub
    }

    /// Its queue, if it has one. Readable also after the end of the subscription.
    pub fn queue(&self) -> Option<&LocalQueue> {
        self.sub.queue()
    }

    /// Ends the subscription; `false` if it had ended already. No callback starts after this
    /// returned, except in a publisher that was already about to call it on another thread.
    pub fn unsubscribe(&self) -> bool {
        self.sub.end(&self.router)
    }

    /// Lets the subscription live as long as the router, which for a [`Callback`] that owns the
    /// router is for ever.
    pub fn detach(mut self) {
        self.is_detached = true;
    }
}

impl Drop for LocalHandle {
    fn drop(&mut self) {
        if !self.is_detached {
            self.unsubscribe();
            if let Some(queue) = self.queue() {
                queue.discard();
            }
        }
    }
}

impl Router {
    /// Subscribes a callback or a queue of this process to `subject`.
    pub fn subscribe_local(
        self: &Arc<Self>,
        subject: &[u8],
        queue: Option<&[u8]>,
        options: LocalOptions,
    ) -> Result<LocalHandle, SubjectError> {
        let generation = self.local_generation.fetch_add(1, Ordering::Relaxed) as u32;
        let mut made = None;
        self.subscribe_then(
            subject,
            queue,
            |index| Target::new(Owner::LOCAL, generation, index.locals.next_key()),
            |index, place| {
                let target = Target::new(Owner::LOCAL, generation, index.locals.next_key());
                let sub = Arc::new(LocalSub {
                    target,
                    place,
                    sink: options.sink,
                    is_closed: AtomicBool::new(false),
                    is_ended: AtomicBool::new(false),
                });
                index.locals.insert(sub.clone());
                made = Some(sub);
            },
        )?;
        let sub = made.ok_or(SubjectError::Full)?;
        Ok(LocalHandle {
            router: self.clone(),
            sub,
            is_detached: false,
        })
    }
}

impl Index {
    /// Forgets an in-process subscription that is no longer listed, and returns it for the caller
    /// to drop without the lock: what a callback owns may call the router when it goes.
    pub(super) fn remove_local(&mut self, target: Target) -> Option<Arc<LocalSub>> {
        let key = target.key();
        self.locals.get(key).filter(|sub| sub.target == target)?;
        self.locals.remove(key)
    }
}
