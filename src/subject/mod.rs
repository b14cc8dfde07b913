//! Subjects: dot-separated names, with the wildcards `*` (one token) and `>` (one or more, last).
//!
//! Any byte but blank, tab, CR and LF may stand in a token; `*` and `>` are wildcards only as whole
//! tokens. Source: core-protocol section 3.1, ADR-6.

#![forbid(unsafe_code)]

use memchr::memchr_iter;

/// Iterates over the tokens of `subject` without allocating.
pub fn tokens(subject: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr_iter(b'.', subject)
        .chain(std::iter::once(subject.len()))
        .map(move |dot| {
            let token = &subject[start..dot];
            start = dot + 1;
            token
        })
}

/// Whether a client may subscribe to `subject`: no empty token, `>` only as the last one.
pub fn is_valid_subscribe(subject: &[u8]) -> bool {
    let mut after_full_wildcard = false;
    for token in tokens(subject) {
        if token.is_empty() || after_full_wildcard {
            return false;
        }
        after_full_wildcard = token == b">";
    }
    true
}

/// Whether `subject` names one subject exactly: no token is empty, `*` or `>`. This is what
/// pedantic clients have their publishes checked against.
pub fn is_valid_literal(subject: &[u8]) -> bool {
    tokens(subject).all(|token| !matches!(token, b"" | b"*" | b">"))
}

/// Whether a valid subscribe subject has a wildcard.
pub fn has_wildcard(subject: &[u8]) -> bool {
    memchr::memchr2(b'*', b'>', subject).is_some()
        && tokens(subject).any(|token| matches!(token, b"*" | b">"))
}

/// Whether the subscribe subject `pattern` matches the published `subject`, token by token. This is
/// the plain definition: the router must agree with it, and few-off checks may use it.
pub fn matches(pattern: &[u8], subject: &[u8]) -> bool {
    let mut published = tokens(subject);
    for wanted in tokens(pattern) {
        match (wanted, published.next()) {
            (_, None | Some(b"")) => return false,
            (b">", Some(_)) => return published.all(|token| !token.is_empty()),
            (b"*", Some(_)) => {}
            (wanted, Some(token)) if wanted != token => return false,
            _ => {}
        }
    }
    published.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribe_subjects_have_no_empty_token_and_end_at_the_full_wildcard() {
        for valid in [
            "foo", "foo.bar", "*", ">", "foo.*", "foo.>", "*.>", "foo*", "foo>", ">>", "a>b",
        ] {
            assert!(is_valid_subscribe(valid.as_bytes()), "{valid}");
        }
        for invalid in [
            "",
            ".",
            "foo.",
            ".foo",
            "foo..bar",
            "foo.>.bar",
            ">.",
            ">.a",
        ] {
            assert!(!is_valid_subscribe(invalid.as_bytes()), "{invalid}");
        }
    }

    #[test]
    fn a_wildcard_is_a_whole_token() {
        assert!(has_wildcard(b"foo.*") && has_wildcard(b">") && has_wildcard(b"*.x"));
        assert!(!has_wildcard(b"foo*") && !has_wildcard(b"a>b.c") && !has_wildcard(b"foo"));
    }
}
