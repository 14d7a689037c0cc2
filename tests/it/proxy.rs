//! A small proxy that delays what it passes on, and cuts connections in the middle.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// It lives as long as the test's process.
pub(crate) struct Proxy {
    pub(crate) url: String,
    line: Arc<Line>,
}

/// A good one until it is spoiled.
#[derive(Debug)]
struct Line {
    is_bad: AtomicBool,
    chance: AtomicU64,
    cut: AtomicU64,
}

/// SplitMix64.
fn mixed(state: &AtomicU64) -> u64 {
    let z = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Line {
    /// Passes on what `from` says, until a cut or its end; with either both directions end.
    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let dice = if self.is_bad.load(Ordering::Relaxed) { mixed(&self.chance) % 100 } else { 50 };
            // One in ten waits, one in forty is cut in the middle of what it says.
            if dice < 10 {
                std::thread::sleep(Duration::from_millis(mixed(&self.chance) % 300));
            }
            let cuts = dice >= 97;
            let end = if cuts { read / 2 } else { read };
            if to.write_all(&buffer[..end]).is_err() || cuts {
                self.cut.fetch_add(u64::from(cuts), Ordering::Relaxed);
                break;
            }
        }
        from.shutdown(Shutdown::Both).ok();
        to.shutdown(Shutdown::Both).ok();
    }
}

impl Proxy {
    /// To a service at `address`.
    pub(crate) fn start(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let line = Line { is_bad: AtomicBool::new(false), chance: AtomicU64::new(7), cut: AtomicU64::new(0) };
        let (address, line) = (address.to_owned(), Arc::new(line));
        let passing = Arc::clone(&line);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A service that is away is away here as well.
                let Ok(server) = TcpStream::connect(&address) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let line = Arc::clone(&passing);
                    std::thread::spawn(move || line.pass(from, to));
                }
            }
        });
        Self { url, line }
    }

    /// From now on.
    pub(crate) fn spoil(&self) {
        self.line.is_bad.store(true, Ordering::Relaxed);
    }

    /// How often it was cut.
    pub(crate) fn cuts(&self) -> u64 {
        self.line.cut.load(Ordering::Relaxed)
    }
}
