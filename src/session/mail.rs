//! What workers write to each other: messages with interest on the other side, and requests to
//! slow a producer down or let it go on.
//!
//! An [`Outbox`] collects the records for one worker in one stretch of bytes, posted once a turn.
//! A plain message names no receivers: the other worker looks the subject up in its own cache, so
//! that a record is as small for ten thousand receivers as for one. A message for a queue group
//! names the member that was picked.
//!
//! ```text
//! record  = kind:1 hops:1 from_worker:2 slot:4 conn:8 rest
//! message = subject:4 queue:4 reply:4 header:4 body:4 tail:4 member:8 then those bytes:
//!           subject, queue name, tail ("[reply ]size CR LF body CR LF")
//! stall, resume: nothing more
//! ```

use crate::id::{ConnId, WorkerId};
use crate::router::{Message, Target};
use crate::wire::encode;
use crate::wire::parse::Publish;

/// A connection that publishes, wherever it lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Producer {
    /// Its worker.
    pub worker: WorkerId,
    /// Its slot there.
    pub slot: u32,
    /// Tells it from later connections in that slot.
    pub conn: ConnId,
}

/// Records for one worker, in order.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub enum Mail<'a> {
    /// A message.
    Message {
        /// Who published it; `None` for a publisher inside the process.
        from: Option<Producer>,
        /// The message.
        publish: Publish<'a>,
        /// The queue member it is for and the name of its group; `None` is for all plain ones.
        member: Option<(Target, &'a [u8])>,
        /// How often it was passed on because the picked member was gone.
        hops: u8,
    },
    /// A consumer here is overwhelmed by this producer.
    Stall(Producer),
    /// The consumer has caught up.
    Resume(Producer),
}

const KIND_MESSAGE: u8 = 0;
const KIND_STALL: u8 = 1;
const KIND_RESUME: u8 = 2;
const RECORD_BYTES: usize = 16;
const MESSAGE_BYTES: usize = 32;
const NO_WORKER: u16 = u16::MAX;
const NO_REPLY: u32 = u32::MAX;
const NO_MEMBER: u64 = u64::MAX;

impl Outbox {
    /// Bytes collected.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Takes the records out, to be posted.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// Gives an empty buffer for the next records.
    pub fn refill(&mut self, bytes: Vec<u8>) {
        if self.bytes.is_empty() {
            self.bytes = bytes;
        }
    }

    /// Adds a message.
    pub fn push_message(
        &mut self,
        from: Option<Producer>,
        publish: &Publish<'_>,
        member: Option<(Target, &[u8])>,
        hops: u8,
    ) {
        self.push_record(KIND_MESSAGE, hops, from);
        let (target, queue) = member.map_or((NO_MEMBER, &[][..]), |(t, q)| (t.to_bits(), q));
        let sizes_at = self.bytes.len();
        for size in [
            publish.subject.len() as u32,
            queue.len() as u32,
            publish.reply.map_or(NO_REPLY, |reply| reply.len() as u32),
            publish.header_bytes as u32,
            publish.body.len() as u32,
            0,
        ] {
            self.bytes.extend_from_slice(&size.to_le_bytes());
        }
        self.bytes.extend_from_slice(&target.to_le_bytes());
        self.bytes.extend_from_slice(publish.subject);
        self.bytes.extend_from_slice(queue);
        let tail_at = self.bytes.len();
        match publish.tail {
            b"" => encode::append_tail(&mut self.bytes, publish),
            tail => self.bytes.extend_from_slice(tail),
        }
        let tail_bytes = (self.bytes.len() - tail_at) as u32;
        self.bytes[sizes_at + 20..sizes_at + 24].copy_from_slice(&tail_bytes.to_le_bytes());
    }

    /// Asks the producer's worker to let it wait.
    pub fn push_stall(&mut self, producer: Producer) {
        self.push_record(KIND_STALL, 0, Some(producer));
    }

    /// Tells the producer's worker that it need not wait any longer.
    pub fn push_resume(&mut self, producer: Producer) {
        self.push_record(KIND_RESUME, 0, Some(producer));
    }

    fn push_record(&mut self, kind: u8, hops: u8, from: Option<Producer>) {
        let (worker, slot, conn) = from.map_or((NO_WORKER, 0, 0), |from| {
            (from.worker.0, from.slot, from.conn.0)
        });
        self.bytes.extend_from_slice(&[kind, hops]);
        self.bytes.extend_from_slice(&worker.to_le_bytes());
        self.bytes.extend_from_slice(&slot.to_le_bytes());
        self.bytes.extend_from_slice(&conn.to_le_bytes());
    }
}

/// A message of the own process as a published one; `body` gets header block and payload.
pub fn publish_of<'a>(message: &Message<'a>, body: &'a mut Vec<u8>) -> Publish<'a> {
    body.extend_from_slice(message.headers);
    body.extend_from_slice(message.payload);
    Publish {
        subject: message.subject,
        reply: message.reply,
        header_bytes: message.headers.len(),
        body,
        tail: &[],
    }
}

/// Reads the record at the beginning of `bytes`, and how long it is. `None` at the end; anything
/// cut short is the end as well, since only `Outbox` writes records.
pub fn read(bytes: &[u8]) -> Option<(Mail<'_>, usize)> {
    let worker = u16::from_le_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    let from = Producer {
        worker: WorkerId(worker),
        slot: read_u32(bytes, 4)?,
        conn: ConnId(read_u64(bytes, 8)?),
    };
    match bytes[0] {
        KIND_STALL => Some((Mail::Stall(from), RECORD_BYTES)),
        KIND_RESUME => Some((Mail::Resume(from), RECORD_BYTES)),
        _ => {
            let from = (worker != NO_WORKER).then_some(from);
            read_message(bytes, from)
        }
    }
}

fn read_message(bytes: &[u8], from: Option<Producer>) -> Option<(Mail<'_>, usize)> {
    let size = |index: usize| read_u32(bytes, RECORD_BYTES + 4 * index);
    let reply_bytes = size(2)?;
    let body_bytes = size(4)? as usize;
    let target = read_u64(bytes, RECORD_BYTES + 24)?;
    let (subject, rest) = bytes
        .get(RECORD_BYTES + MESSAGE_BYTES..)?
        .split_at_checked(size(0)? as usize)?;
    let (queue, rest) = rest.split_at_checked(size(1)? as usize)?;
    let (tail, rest) = rest.split_at_checked(size(5)? as usize)?;
    let body_end = tail.len().checked_sub(2)?;
    let publish = Publish {
        subject,
        reply: match reply_bytes {
            NO_REPLY => None,
            length => Some(tail.get(..length as usize)?),
        },
        header_bytes: size(3)? as usize,
        body: tail.get(body_end.checked_sub(body_bytes)?..body_end)?,
        tail,
    };
    let member = (target != NO_MEMBER).then(|| (Target::from_bits(target), queue));
    let mail = Mail::Message {
        from,
        publish,
        member,
        hops: bytes[1],
    };
    Some((mail, bytes.len() - rest.len()))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::Owner;

    #[test]
    fn records_read_back_as_written() {
        let producer = Producer {
            worker: WorkerId(3),
            slot: 7,
            conn: ConnId(1 << 40),
        };
        let canonical = Publish {
            subject: b"foo",
            reply: Some(b"inbox"),
            header_bytes: 0,
            body: b"hello",
            tail: b"inbox 5\r\nhello\r\n",
        };
        let built = Publish {
            header_bytes: 2,
            reply: None,
            tail: b"",
            ..canonical
        };
        let member = Target::new(Owner::port(2).expect("a port"), 9, 11);
        let mut outbox = Outbox::default();
        outbox.push_message(Some(producer), &canonical, None, 0);
        outbox.push_stall(producer);
        outbox.push_message(None, &built, Some((member, b"workers")), 2);
        outbox.push_resume(producer);
        let bytes = outbox.take();

        let (first, used) = read(&bytes).expect("a record");
        let expected = Mail::Message {
            from: Some(producer),
            publish: canonical,
            member: None,
            hops: 0,
        };
        assert_eq!(first, expected);
        let (second, more) = read(&bytes[used..]).expect("a record");
        assert_eq!(second, Mail::Stall(producer));
        let rest = &bytes[used + more..];
        let (third, more) = read(rest).expect("a record");
        let publish = Publish {
            tail: b"2 5\r\nhello\r\n",
            ..built
        };
        let member = Some((member, &b"workers"[..]));
        assert_eq!(
            third,
            Mail::Message {
                from: None,
                publish,
                member,
                hops: 2
            }
        );
        assert_eq!(
            read(&rest[more..]),
            Some((Mail::Resume(producer), RECORD_BYTES))
        );
        assert_eq!(read(&[]), None);
        for cut in 0..used {
            assert_eq!(read(&bytes[..cut]), None, "a cut record is the end");
        }
    }
}
