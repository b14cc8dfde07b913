//! Letters between workers, and from the control thread to workers.
//!
//! One lock and at most one system call a letter, and a letter holds everything a worker has for
//! another in one turn. Nobody is woken who is awake: a worker declares itself asleep before it
//! looks into the mailbox for the last time, so a letter is either seen by that look or wakes it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mio::Waker;
use mio::net::TcpStream;

/// Something a worker is told.
pub enum Letter {
    /// Records of another worker's shard, or of a publisher inside the process.
    Mail(Vec<u8>),
    /// An accepted connection to take over; counted as this worker's already.
    Adopt(TcpStream, SocketAddr),
    /// Accept no more, and tell clients that the server is about to go.
    LameDuck,
    /// Close one connection.
    EaseOne,
    /// Read no more, deliver what was read, and report to the control thread.
    Quiesce,
    /// Send what is queued as far as it goes, close everything, end.
    Finish,
}

/// What waits for one worker, and empty paper for those who write to it.
#[derive(Default)]
struct Contents {
    letters: VecDeque<Letter>,
    spare: Vec<Vec<u8>>,
}

/// Empty buffers kept in a mailbox: one for each of a few writers at work.
const SPARE_MAX: usize = 4;
/// Bytes of a buffer that is kept.
const SPARE_BYTES_MAX: usize = 1024 * 1024;

/// What waits for one worker.
pub struct Mailbox {
    contents: Mutex<Contents>,
    mail_bytes: AtomicUsize,
    is_awake: AtomicBool,
    waker: Waker,
}

impl Mailbox {
    /// An empty mailbox whose owner is woken by `waker`.
    pub fn new(waker: Waker) -> Mailbox {
        Mailbox {
            contents: Mutex::default(),
            mail_bytes: AtomicUsize::new(0),
            is_awake: AtomicBool::new(false),
            waker,
        }
    }

    /// Puts a letter in and wakes the owner if it sleeps.
    pub fn post(&self, letter: Letter) {
        let mut contents = self.lock();
        if let Letter::Mail(bytes) = &letter {
            self.mail_bytes.fetch_add(bytes.len(), Ordering::Release);
        }
        contents.letters.push_back(letter);
        drop(contents);
        self.wake();
    }

    /// Puts mail in, wakes the owner if it sleeps, and returns an empty buffer to write more: the
    /// owner gives back what it has read, so that buffers go to and fro and are not made anew.
    pub fn post_mail(&self, bytes: Vec<u8>) -> Vec<u8> {
        let mut contents = self.lock();
        self.mail_bytes.fetch_add(bytes.len(), Ordering::Release);
        contents.letters.push_back(Letter::Mail(bytes));
        let spare = contents.spare.pop();
        drop(contents);
        self.wake();
        spare.unwrap_or_default()
    }

    /// Gives a buffer back whose mail has been read.
    pub fn give_back(&self, mut bytes: Vec<u8>) {
        if bytes.capacity() <= SPARE_BYTES_MAX {
            bytes.clear();
            let mut contents = self.lock();
            if contents.spare.len() < SPARE_MAX {
                contents.spare.push(bytes);
            }
        }
    }

    fn wake(&self) {
        if !self.is_awake.swap(true, Ordering::SeqCst) {
            // The queue of an eventfd cannot be full in a way that loses the wake, and the
            // descriptor lives as long as the mailbox.
            let _ = self.waker.wake();
        }
    }

    /// Bytes of mail not taken yet.
    pub fn mail_bytes(&self) -> usize {
        self.mail_bytes.load(Ordering::Acquire)
    }

    /// Takes everything out, and declares the owner awake.
    pub fn take(&self) -> VecDeque<Letter> {
        self.is_awake.store(true, Ordering::SeqCst);
        let mut contents = self.lock();
        // Counted under the lock, so that the count is never less than what waits.
        self.mail_bytes.store(0, Ordering::Release);
        std::mem::take(&mut contents.letters)
    }

    /// Declares the owner asleep; `false` if there is a letter after all, so that it must not sleep.
    pub fn may_sleep(&self) -> bool {
        self.is_awake.store(false, Ordering::SeqCst);
        let may_sleep = self.lock().letters.is_empty();
        if !may_sleep {
            self.is_awake.store(true, Ordering::SeqCst);
        }
        may_sleep
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        // Nothing is done under the lock that could leave the queue half changed.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
