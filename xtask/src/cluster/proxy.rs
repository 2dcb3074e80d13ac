//! A wire that can be cut: passes connections on until told otherwise.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

/// Passes what comes to its address on to another.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    cut: AtomicBool,
    /// Both ends of every connection since the last cut.
    open: Mutex<Vec<TcpStream>>,
}

impl State {
    fn end_all(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.drain(..) {
            // An end that has gone already is as good.
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

impl Proxy {
    /// Listens on a free port of loopback, for as long as this process lives.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A connection that fails is its client's to try again.
                pass(client, target, &shared).ok();
            }
        });
        Ok(Self { address, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends every connection and takes no new one, or takes them again.
    pub fn cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::SeqCst);
        if cut {
            self.state.end_all();
        }
    }
}

fn pass(client: TcpStream, target: SocketAddr, state: &Arc<State>) -> io::Result<()> {
    if state.cut.load(Ordering::SeqCst) {
        return client.shutdown(Shutdown::Both);
    }
    let server = TcpStream::connect(target)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        let mut open = state.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push(stream.try_clone()?);
    }
    let (mut from_client, mut to_client) = (client.try_clone()?, client);
    let (mut from_server, mut to_server) = (server.try_clone()?, server);
    thread::spawn(move || {
        io::copy(&mut from_client, &mut to_server).ok();
        to_server.shutdown(Shutdown::Both).ok();
    });
    thread::spawn(move || {
        io::copy(&mut from_server, &mut to_client).ok();
        to_client.shutdown(Shutdown::Both).ok();
    });
    // Cut while it was being connected.
    if state.cut.load(Ordering::SeqCst) {
        state.end_all();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_cut_ends_connections_and_a_mended_wire_takes_new_ones() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(server.local_addr().unwrap()).unwrap();
        let echo = thread::spawn(move || {
            for stream in server.incoming().take(2) {
                let mut stream = stream.unwrap();
                let mut letter = [0];
                while stream.read(&mut letter).unwrap_or(0) == 1 {
                    stream.write_all(&letter).unwrap();
                }
            }
        });
        let mut letter = [0];
        let mut first = TcpStream::connect(proxy.address()).unwrap();
        first.write_all(b"a").unwrap();
        first.read_exact(&mut letter).unwrap();
        assert_eq!(&letter, b"a");

        proxy.cut(true);
        assert_eq!(first.read(&mut letter).unwrap_or(0), 0, "the wire is cut");
        let mut refused = TcpStream::connect(proxy.address()).unwrap();
        assert_eq!(refused.read(&mut letter).unwrap_or(0), 0);

        proxy.cut(false);
        let mut second = TcpStream::connect(proxy.address()).unwrap();
        second.write_all(b"b").unwrap();
        second.read_exact(&mut letter).unwrap();
        assert_eq!(&letter, b"b");
        drop(second);
        echo.join().unwrap();
    }
}
