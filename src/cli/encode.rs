//! What the client tools send.

use super::failure::Failure;
use midge::wire::encode::Decimal;

/// Appends PUB, or HPUB if there are headers.
pub fn publish(
    out: &mut Vec<u8>,
    subject: &[u8],
    reply: Option<&[u8]>,
    headers: &[u8],
    payload: &[u8],
) {
    let verb: &[u8] = if headers.is_empty() {
        b"PUB "
    } else {
        b"HPUB "
    };
    out.extend_from_slice(verb);
    out.extend_from_slice(subject);
    if let Some(reply) = reply {
        out.push(b' ');
        out.extend_from_slice(reply);
    }
    out.push(b' ');
    if !headers.is_empty() {
        append_number(out, headers.len());
        out.push(b' ');
    }
    append_number(out, headers.len() + payload.len());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Appends SUB.
pub fn subscribe(out: &mut Vec<u8>, subject: &[u8], queue: Option<&[u8]>, sid: usize) {
    out.extend_from_slice(b"SUB ");
    out.extend_from_slice(subject);
    if let Some(queue) = queue {
        out.push(b' ');
        out.extend_from_slice(queue);
    }
    out.push(b' ');
    append_number(out, sid);
    out.extend_from_slice(b"\r\n");
}

/// The nine digits that servers read in an UNSUB; of a longer number they make "at once".
const UNSUBSCRIBE_AFTER_MAX: u64 = 999_999_999;

/// Appends the UNSUB that ends a subscription after so many messages, so that the server gives
/// what comes after them to others. Nothing if the number is too large for servers to read.
pub fn unsubscribe_after(out: &mut Vec<u8>, sid: usize, message_count: u64) {
    if message_count > UNSUBSCRIBE_AFTER_MAX {
        return;
    }
    out.extend_from_slice(b"UNSUB ");
    append_number(out, sid);
    out.push(b' ');
    append_number(out, message_count as usize);
    out.extend_from_slice(b"\r\n");
}

/// Without a formatter, since repliers come here once a message and it is ten times slower.
fn append_number(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(Decimal::new(number as u64).as_bytes());
}

/// A subject of our own that nobody else publishes to.
pub fn new_inbox() -> Result<String, Failure> {
    let random = midge::crypto::random_array::<16>()
        .map_err(|error| Failure::run(format!("the system gives no random numbers: {error}")))?;
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("_INBOX.{hex}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_with_and_without_headers_and_reply() {
        for (reply, headers, payload, expected) in [
            (None, "", "hi", "PUB foo 2\r\nhi\r\n"),
            (Some("r"), "", "", "PUB foo r 0\r\n\r\n"),
            (
                None,
                "NATS/1.0\r\n\r\n",
                "hi",
                "HPUB foo 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
            ),
            (
                Some("r"),
                "NATS/1.0\r\n\r\n",
                "",
                "HPUB foo r 12 12\r\nNATS/1.0\r\n\r\n\r\n",
            ),
        ] {
            let mut out = Vec::new();
            let reply = reply.map(str::as_bytes);
            publish(
                &mut out,
                b"foo",
                reply,
                headers.as_bytes(),
                payload.as_bytes(),
            );
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn subscriptions_are_encoded_with_and_without_queue() {
        let mut out = Vec::new();
        subscribe(&mut out, b"foo.>", None, 10);
        subscribe(&mut out, b"foo", Some(b"q"), 205);
        assert_eq!(out, b"SUB foo.> 10\r\nSUB foo q 205\r\n");
    }

    #[test]
    fn an_end_is_told_only_in_numbers_that_servers_read() {
        let mut out = Vec::new();
        unsubscribe_after(&mut out, 1, 10);
        unsubscribe_after(&mut out, 2, 999_999_999);
        unsubscribe_after(&mut out, 3, 1_000_000_000);
        unsubscribe_after(&mut out, 4, u64::MAX);
        assert_eq!(out, b"UNSUB 1 10\r\nUNSUB 2 999999999\r\n");
    }

    #[test]
    fn inboxes_differ() {
        let (one, other) = (new_inbox().unwrap(), new_inbox().unwrap());
        assert!(one != other && one.starts_with("_INBOX.") && one.len() == 39);
    }
}
