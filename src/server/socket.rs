//! One client's socket, and what the loop must remember of it.

use std::io::{self, IoSlice, Read};

use mio::net::TcpStream;
use socket2::SockRef;

/// What a worker keeps with a connection.
pub struct Socket {
    pub stream: TcpStream,
    /// Whether there may be something to read: readiness is told once and must be remembered.
    pub is_readable: bool,
    /// Whether the peer has closed its side, so that reading must go on to the end.
    pub is_read_closed: bool,
    /// Whether it stands in the list of connections to read.
    pub is_queued: bool,
    /// Whether it counts for its worker's load and the connection limit.
    pub is_counted: bool,
    /// Bytes read but not worked off, since the connection has to wait.
    pub backlog: Vec<u8>,
}

impl Socket {
    pub fn new(stream: TcpStream, is_counted: bool) -> Socket {
        Socket {
            stream,
            is_readable: false,
            is_read_closed: false,
            is_queued: false,
            is_counted,
            backlog: Vec::new(),
        }
    }

    /// Writes without ever raising SIGPIPE, which in an embedding process would kill the host.
    /// `None` when the socket takes no more now.
    pub fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        loop {
            let socket = SockRef::from(&self.stream);
            let written = match slices {
                [slice] => socket.send_with_flags(slice, libc::MSG_NOSIGNAL),
                slices => socket.send_vectored_with_flags(slices, libc::MSG_NOSIGNAL),
            };
            match written {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads once. `None` when there is nothing now; 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.stream.read(buffer) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
