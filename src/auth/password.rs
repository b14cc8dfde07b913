//! Logins by a shared token or by one user and password, kept as plain text.

use crate::config::options::Credentials;
use crate::crypto::equals_secret;

/// What a client shows in CONNECT; a field that it left out is `None`.
#[derive(Clone, Copy, Default)]
pub struct Presented<'a> {
    /// `auth_token`.
    pub token: Option<&'a str>,
    /// `user`.
    pub user: Option<&'a str>,
    /// `pass`.
    pub password: Option<&'a str>,
}

/// Whether a client that shows `presented` may connect.
///
/// What is not asked for is ignored: a token does not harm where a password is wanted. User and
/// password are both compared, always, so that the time does not tell a known user from an unknown
/// one. An empty configured token or user admits nobody: it is a mistake, not an open door.
pub fn admits(credentials: &Credentials, presented: &Presented) -> bool {
    let equals = |secret: &str, shown: Option<&str>| {
        equals_secret(secret.as_bytes(), shown.unwrap_or_default().as_bytes())
    };
    match credentials {
        Credentials::Open => true,
        Credentials::Token(token) => !token.is_empty() & equals(token, presented.token),
        Credentials::User { user, password } => {
            !user.is_empty() & equals(user, presented.user) & equals(password, presented.password)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown<'a>(token: &'a str, user: &'a str, password: &'a str) -> Presented<'a> {
        let some = |text: &'a str| (!text.is_empty()).then_some(text);
        Presented {
            token: some(token),
            user: some(user),
            password: some(password),
        }
    }

    #[test]
    fn admits_only_what_is_configured() {
        let token = Credentials::Token("s3cr3t".into());
        let user = Credentials::User {
            user: "ann".into(),
            password: "pw".into(),
        };
        let nameless = Credentials::User {
            user: String::new(),
            password: "pw".into(),
        };
        for (credentials, presented, expected, why) in [
            (&Credentials::Open, shown("", "", ""), true, "open"),
            (&Credentials::Open, shown("x", "y", "z"), true, "open"),
            (&token, shown("s3cr3t", "", ""), true, "right token"),
            (&token, shown("s3cr3t", "a", "b"), true, "rest is ignored"),
            (&token, shown("s3cr3", "", ""), false, "shorter token"),
            (&token, shown("s3cr3tt", "", ""), false, "longer token"),
            (&token, shown("", "", ""), false, "no token"),
            (&token, shown("", "", "s3cr3t"), false, "token as password"),
            (&user, shown("", "ann", "pw"), true, "right login"),
            (&user, shown("t", "ann", "pw"), true, "rest is ignored"),
            (&user, shown("", "ann", "px"), false, "wrong password"),
            (&user, shown("", "ann", ""), false, "no password"),
            (&user, shown("", "bob", "pw"), false, "wrong user"),
            (&user, shown("", "", "pw"), false, "no user"),
            (&user, shown("pw", "", ""), false, "password as token"),
            (&user, shown("", "pw", "ann"), false, "swapped"),
            (&nameless, shown("", "", "pw"), false, "empty name"),
            (
                &Credentials::Token(String::new()),
                shown("", "", ""),
                false,
                "empty token",
            ),
        ] {
            assert_eq!(admits(credentials, &presented), expected, "{why}");
        }
    }
}
