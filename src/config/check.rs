//! What must hold between options, checked once all of them are known, before anything starts.

use super::ArgsError;
use super::kind::Draft;
use super::options::{Credentials, Options};
use super::values::format_duration_ms;

/// Above this size nats-server warns.
const PAYLOAD_BYTES_WARN: usize = 8 * 1024 * 1024;
/// Above this time nats-server warns; it is mostly a missing unit.
const AUTH_TIMEOUT_MS_WARN: u64 = 60_000;

/// Whether nats-server would take a password for a bcrypt hash. Source: core-protocol section 7.
fn is_bcrypt(password: &str) -> bool {
    let is_hash = |rest: &[u8]| {
        matches!(rest, [b'a' | b'b' | b'x' | b'y', b'$', tens, ones, b'$', ..]
            if tens.is_ascii_digit() && ones.is_ascii_digit())
    };
    password.as_bytes().strip_prefix(b"$2").is_some_and(is_hash)
}

/// The finished options, or why they cannot be. Texts follow nats-server where it has one.
pub(super) fn finish(draft: Draft) -> Result<Options, ArgsError> {
    let conflict = |text: String| Err(ArgsError::Conflict(text));
    let mut options = draft.options;

    if draft.password.as_deref().is_some_and(is_bcrypt) {
        let text =
            "--pass is a bcrypt hash, which midge cannot check yet: give the password itself";
        return conflict(text.to_owned());
    }
    options.credentials = match (draft.user, draft.password, draft.token) {
        (None, None, None) => Credentials::Open,
        (None, None, Some(token)) => Credentials::Token(token),
        (Some(user), Some(password), None) => Credentials::User { user, password },
        (Some(_), None, None) => return conflict("flag --user needs --pass beside it".to_owned()),
        (None, Some(_), None) => return conflict("flag --pass needs --user beside it".to_owned()),
        (_, _, Some(_)) => {
            let text = "cannot have a user/pass and token: give --user and --pass, or --auth";
            return conflict(text.to_owned());
        }
    };

    let pending = options.pending_bytes_max;
    if let Some(payload) = options.payload_bytes_max {
        if payload > pending {
            return conflict(format!(
                "max_payload ({payload}) cannot be higher than max_pending ({pending})"
            ));
        }
        if payload > PAYLOAD_BYTES_WARN {
            let text = "Maximum payloads over 8.00 MB are generally discouraged and could lead to \
                        poor performance";
            options.warnings.push(text.to_owned());
        }
    }

    let (grace_ms, duration_ms) = (options.lame_duck_grace_ms, options.lame_duck_duration_ms);
    if grace_ms >= duration_ms {
        return conflict(format!(
            "lame duck grace period ({}) should be strictly lower than lame duck duration ({})",
            format_duration_ms(grace_ms),
            format_duration_ms(duration_ms)
        ));
    }

    if options.auth_timeout_ms > AUTH_TIMEOUT_MS_WARN {
        options.warnings.push(format!(
            "An auth_timeout of {} lets strangers hold connections for long",
            format_duration_ms(options.auth_timeout_ms)
        ));
    }
    Ok(options)
}
