//! What is not a ledger, and answers all the same.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// Answers every request so, for as long as the tests run; its address.
pub(crate) fn answers_always(status: &'static str, kind: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, status, kind, body);
        }
    });
    address
}

fn answer(stream: TcpStream, status: &str, kind: &str, body: &str) -> Option<Vec<String>> {
    let (head, _) = request(&stream)?;
    let length = body.len();
    let head_of_answer =
        format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    (&stream).write_all(format!("{head_of_answer}{body}").as_bytes()).ok()?;
    Some(head)
}

/// The lines of its head, and its body.
fn request(stream: &TcpStream) -> Option<(Vec<String>, String)> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let named = |line: &String| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok();
    let mut body = vec![0; head.iter().find_map(named).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8_lossy(&body).into_owned()))
}

/// Takes one request, says that it is welcome, and hands it on: its address, and what came.
pub(crate) fn takes_one() -> (String, std::sync::mpsc::Receiver<(Vec<String>, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (told, taken) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Some(came) = request(&stream) else { continue };
            (&stream).write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").ok();
            told.send(came).ok();
        }
    });
    (address, taken)
}
