//! Keeps a tool at work over the restarts of its server: connects, hands the connection to the
//! tool, and when it breaks connects again, with growing waits.

use super::backoff::Backoff;
use super::connection::{Connection, ConnectionError};
use super::duration;
use super::failure::{Failure, say};
use super::interrupt::Interrupt;
use super::settings::Settings;

/// Why a tool is through with a connection before its work is done.
pub enum Ended {
    /// The connection broke, or the server refuses us.
    Connection(ConnectionError),
    /// Something that no other connection would help with.
    Failure(Failure),
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        Ended::Connection(error)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended::Failure(failure)
    }
}

/// How a tool that came to its end got there.
#[derive(PartialEq, Eq)]
pub enum Ending {
    /// Its work is done.
    Done,
    /// A signal told it to stop.
    Stopped,
}

/// Calls `work` with one connection after the other until it is done or a signal comes. The first
/// connection must succeed: a wrong address is better told at once.
pub fn follow(
    mut settings: Settings,
    mut work: impl FnMut(&mut Connection) -> Result<(), Ended>,
) -> Result<Ending, Failure> {
    let mut connection = Connection::open(&settings)?;
    // Not before: until there is something to wind up, a signal shall end the process at once,
    // and a server that does not answer may keep us for seconds.
    let interrupt = Interrupt::install()?;
    loop {
        let stream = connection.stream_handle();
        let stream =
            stream.map_err(|error| Failure::run(format!("cannot watch the socket: {error}")))?;
        interrupt.watch(Some(stream));
        let Err(ended) = work(&mut connection) else {
            return Ok(match interrupt.is_stopping() {
                true => Ending::Stopped,
                false => Ending::Done,
            });
        };
        // From the latest INFO: the cluster may have changed since the first.
        settings.learn(&connection.info);
        match ended {
            Ended::Failure(failure) => return Err(failure),
            // The signal shut the socket down: that is no failure.
            Ended::Connection(_) if interrupt.is_stopping() => return Ok(Ending::Stopped),
            Ended::Connection(error) if error.is_temporary => say(format_args!("{error}")),
            Ended::Connection(error) => return Err(error.into()),
        }
        match reconnect(&settings, &interrupt)? {
            Some(next) => connection = next,
            None => return Ok(Ending::Stopped),
        }
    }
}

/// Tries until a server answers; `None` if a signal came first.
fn reconnect(settings: &Settings, interrupt: &Interrupt) -> Result<Option<Connection>, Failure> {
    interrupt.watch(None);
    let mut backoff = Backoff::default();
    let mut last_text = String::new();
    loop {
        let wait = backoff.next_wait();
        if last_text.is_empty() {
            say(format_args!("reconnecting in {}", duration::format(wait)));
        }
        if interrupt.sleep(wait) {
            return Ok(None);
        }
        match Connection::open(settings) {
            Ok(connection) => {
                say(format_args!("connected to {} again", connection.address));
                return Ok(Some(connection));
            }
            Err(error) if !error.is_temporary => return Err(error.into()),
            // Once is enough: the same news every few seconds helps nobody.
            Err(error) if error.text != last_text => {
                say(format_args!("{error}; still trying"));
                last_text = error.text;
            }
            Err(_) => {}
        }
    }
}
