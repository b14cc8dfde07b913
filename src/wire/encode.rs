//! Writes the frames a server sends.

use super::parse::Publish;

/// Room for a decimal `u64`.
const DECIMAL_BYTES_MAX: usize = 20;

/// A decimal number without allocating.
pub struct Decimal {
    digits: [u8; DECIMAL_BYTES_MAX],
    start: usize,
}

impl Decimal {
    /// The digits of `value`.
    pub fn new(mut value: u64) -> Decimal {
        let mut digits = [0; DECIMAL_BYTES_MAX];
        let mut start = DECIMAL_BYTES_MAX;
        loop {
            start -= 1;
            digits[start] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return Decimal { digits, start };
            }
        }
    }

    /// The digits as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

/// Appends what a delivery says behind the sid, from `[reply ]size` through the last CR LF, in the
/// form for subscribers with headers (HMSG when there is a header block).
pub fn append_tail(out: &mut Vec<u8>, publish: &Publish<'_>) {
    append_reply(out, publish.reply);
    if publish.header_bytes > 0 {
        out.extend_from_slice(Decimal::new(publish.header_bytes as u64).as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(Decimal::new(publish.body.len() as u64).as_bytes());
    append_body(out, publish.body);
}

/// Appends the same for subscribers without headers: the payload alone.
pub fn append_headerless_tail(out: &mut Vec<u8>, publish: &Publish<'_>) {
    let payload = &publish.body[publish.header_bytes..];
    append_reply(out, publish.reply);
    out.extend_from_slice(Decimal::new(payload.len() as u64).as_bytes());
    append_body(out, payload);
}

fn append_reply(out: &mut Vec<u8>, reply: Option<&[u8]>) {
    if let Some(reply) = reply {
        out.extend_from_slice(reply);
        out.push(b' ');
    }
}

fn append_body(out: &mut Vec<u8>, body: &[u8]) {
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out.extend_from_slice(b"\r\n");
}

/// Appends the answer to a request that nobody listens for. Source: core-protocol section 5.2.
pub fn append_no_responders(out: &mut Vec<u8>, reply: &[u8], sid: &[u8], subject: &[u8]) {
    const BEFORE: &[u8] = b"NATS/1.0 503\r\nNats-Subject: ";
    const AFTER: &[u8] = b"\r\n\r\n";
    let size = Decimal::new((BEFORE.len() + subject.len() + AFTER.len()) as u64);
    for part in [
        b"HMSG ",
        reply,
        b" ",
        sid,
        b" ",
        size.as_bytes(),
        b" ",
        size.as_bytes(),
        b"\r\n",
        BEFORE,
        subject,
        AFTER,
        b"\r\n",
    ] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal() {
        for value in [0, 7, 10, 65_536, u64::MAX] {
            assert_eq!(Decimal::new(value).as_bytes(), value.to_string().as_bytes());
        }
    }

    #[test]
    fn a_tail_is_what_the_client_wrote_in_its_usual_form() {
        let publish = Publish {
            subject: b"foo",
            reply: Some(b"bar"),
            header_bytes: 12,
            body: b"NATS/1.0\r\n\r\nhi",
            tail: b"",
        };
        let mut out = Vec::new();
        append_tail(&mut out, &publish);
        assert_eq!(out, b"bar 12 14\r\nNATS/1.0\r\n\r\nhi\r\n");
        out.clear();
        append_headerless_tail(&mut out, &publish);
        assert_eq!(out, b"bar 2\r\nhi\r\n");
    }

    #[test]
    fn the_no_responders_answer_has_the_reference_s_bytes() {
        let mut out = Vec::new();
        append_no_responders(&mut out, b"_INBOX.1", b"3", b"svc");
        let expected = "HMSG _INBOX.1 3 35 35\r\nNATS/1.0 503\r\nNats-Subject: svc\r\n\r\n\r\n";
        assert_eq!(out, expected.as_bytes());
    }
}
