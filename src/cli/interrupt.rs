//! SIGINT and SIGTERM for tools that run until they are told to stop.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::failure::Failure;

#[derive(Default)]
struct State {
    is_stopping: bool,
    /// The socket that the tool may be reading from.
    stream: Option<TcpStream>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Tells a tool that it shall stop, whether it reads, waits or works. A second signal ends the
/// process on the spot.
#[derive(Clone)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

impl Interrupt {
    /// Starts to listen for the signals.
    pub fn install() -> Result<Self, Failure> {
        let mut signals = Signals::new([SIGINT, SIGTERM])
            .map_err(|error| Failure::run(format!("cannot wait for signals: {error}")))?;
        let shared = Arc::new(Shared::default());
        let interrupt = Interrupt {
            shared: shared.clone(),
        };
        std::thread::spawn(move || {
            for (count, signal) in signals.forever().enumerate() {
                if count > 0 {
                    std::process::exit(128 + signal);
                }
                let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.is_stopping = true;
                if let Some(stream) = &state.stream {
                    // The blocked read returns as if the server had closed.
                    let _ = stream.shutdown(Shutdown::Read);
                }
                shared.changed.notify_all();
            }
        });
        Ok(interrupt)
    }

    /// Names the socket to shut down; a stop that came before takes effect at once.
    pub fn watch(&self, stream: Option<TcpStream>) {
        let mut state = self.lock();
        if let (true, Some(stream)) = (state.is_stopping, &stream) {
            let _ = stream.shutdown(Shutdown::Read);
        }
        state.stream = stream;
    }

    /// Whether a signal has come.
    pub fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    /// Sleeps; true if a signal cut it short.
    pub fn sleep(&self, duration: Duration) -> bool {
        let state = self.lock();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, duration, |state| !state.is_stopping)
            .unwrap_or_else(PoisonError::into_inner);
        state.is_stopping
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        let state = &self.shared.state;
        state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
