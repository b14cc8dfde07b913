//! What a connection is to get next, and whether a frame is that.

use midge::wire::from_server::{self, Frame};

use crate::model::Message;

/// The next thing a connection is to get.
#[derive(Debug)]
pub enum Expect {
    Info,
    Ok,
    Pong,
    Err(&'static str),
    Copies {
        message: usize,
        sids: Vec<String>,
        with_headers: bool,
    },
    /// 503, over one of these subscriptions; may be missing when it hung on who was closing.
    NobodyListens {
        message: usize,
        sids: Vec<String>,
        is_certain: bool,
    },
    /// Nothing: what comes after the next frame that does come is after the end of this one.
    Ended(usize),
}

/// How a frame fits.
pub enum Fit {
    Whole,
    Part,
    No,
}

/// Whether a frame is what is expected; what is left of that is kept in it.
pub fn fits(expect: &mut Expect, frame: &Frame<'_>, messages: &[Message]) -> Fit {
    let is_fit = match (expect, frame) {
        (Expect::Info, Frame::Info(json)) => {
            serde_json::from_slice::<serde_json::Value>(json).is_ok()
        }
        (Expect::Ok, Frame::Ok) | (Expect::Pong, Frame::Pong) => true,
        (Expect::Err(text), Frame::Err(got)) => text.as_bytes() == *got,
        (
            Expect::Copies {
                message,
                sids,
                with_headers,
            },
            Frame::Message(got),
        ) => {
            let Some(at) = sids.iter().position(|sid| sid.as_bytes() == got.sid) else {
                return Fit::No;
            };
            if !has_content(got, &messages[*message], *with_headers) {
                return Fit::No;
            }
            sids.swap_remove(at);
            if !sids.is_empty() {
                return Fit::Part;
            }
            true
        }
        (Expect::NobodyListens { message, sids, .. }, Frame::Message(got)) => {
            let message = &messages[*message];
            let subject = &message.subject;
            let headers = [b"NATS/1.0 503\r\nNats-Subject: ", &subject[..], b"\r\n\r\n"].concat();
            sids.iter().any(|sid| sid.as_bytes() == got.sid)
                && Some(got.subject) == message.reply.as_deref()
                && got.headers == headers
                && got.payload.is_empty()
        }
        _ => false,
    };
    if is_fit { Fit::Whole } else { Fit::No }
}

fn has_content(got: &from_server::Message<'_>, message: &Message, with_headers: bool) -> bool {
    let headers: &[u8] = if with_headers { &message.headers } else { b"" };
    got.subject == message.subject
        && got.reply == message.reply.as_deref()
        && got.headers == headers
        && got.payload == message.payload
}

/// With or without its header block, since the wishes may have changed meanwhile.
pub fn check_content(got: &from_server::Message<'_>, message: &Message) {
    let with_headers = !got.headers.is_empty();
    assert!(
        has_content(got, message, with_headers),
        "got {got:?} instead of a message to {}",
        message.subject.escape_ascii()
    );
}
