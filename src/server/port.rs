//! The door from a publisher inside the process to the connections of a worker.

use std::sync::Arc;

use super::mailbox::Letter;
use super::worker::Staff;
use crate::limits::MAIL_BYTES_MAX;
use crate::router::{Message, Port, Target};
use crate::session::mail::{self, Outbox};

/// One worker as the router's port.
pub struct WorkerPort {
    staff: Arc<Staff>,
    index: usize,
}

impl WorkerPort {
    /// The port to the worker with this index.
    pub(super) fn new(staff: Arc<Staff>, index: usize) -> WorkerPort {
        WorkerPort { staff, index }
    }
}

impl Port for WorkerPort {
    /// One letter a message; a worker that is too far behind gets none, and the publisher learns it
    /// from the count.
    fn post(&self, targets: &[Target], queue: Option<&[u8]>, message: &Message<'_>) -> usize {
        let mailbox = &self.staff.mailboxes[self.index];
        if mailbox.mail_bytes() > MAIL_BYTES_MAX {
            return 0;
        }
        let mut body = Vec::new();
        let publish = mail::publish_of(message, &mut body);
        let member = queue.and_then(|queue| Some((*targets.first()?, queue)));
        let mut outbox = Outbox::default();
        outbox.push_message(None, &publish, member, 0);
        mailbox.post(Letter::Mail(outbox.take()));
        targets.len()
    }
}
