//! One connection of HTTP/1.1, one request at a time, as a sidecar keeps it.

use std::io;
use std::time::Duration;

use jobmeter::ledger::attempt_secret::{self, AttemptSecret};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// As long as `ledger::http` waits.
const ANSWER_MAX: Duration = Duration::from_secs(15);

#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) address: String,
    pub(crate) key: String,
}

/// Status and body of an answer; of a service that did not answer, why.
pub(crate) type Answer = Result<(u16, Vec<u8>), String>;

#[derive(Debug)]
pub(crate) struct Line {
    service: Service,
    secret: Option<AttemptSecret>,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Line {
    /// It connects with the first request, and anew after each failure.
    pub(crate) fn new(service: &Service, secret: Option<AttemptSecret>) -> Self {
        Self { service: service.clone(), secret, stream: None, buffer: Vec::new() }
    }

    pub(crate) async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.ask_kept(method, path, body, Duration::ZERO).await
    }

    /// The same where the service keeps the question for so long.
    pub(crate) async fn ask_kept(&mut self, method: &str, path: &str, body: &[u8], kept: Duration) -> Answer {
        // Only what has answered to the end is used again.
        let stream = self.stream.take();
        let asked = async {
            let mut stream = match stream {
                Some(stream) => stream,
                None => TcpStream::connect(&self.service.address).await?,
            };
            stream.set_nodelay(true)?;
            stream.write_all(&self.request(method, path, body)).await?;
            let answer = read_answer(&mut stream, &mut self.buffer).await?;
            self.buffer = Vec::new();
            Ok::<_, io::Error>((stream, answer))
        };
        let (stream, answer) = match tokio::time::timeout(ANSWER_MAX + kept, asked).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer in time".to_owned()),
        };
        self.stream = Some(stream);
        Ok(answer)
    }

    fn request(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let Service { address, key } = &self.service;
        let secret = self.secret.map(|secret| format!("{}: {}\r\n", attempt_secret::HEADER, secret.text()));
        let head = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\nuser-agent: jobmeter/load\r\naccept: \
             */*\r\n{}content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            secret.unwrap_or_default(),
            body.len()
        );
        [head.as_bytes(), body].concat()
    }
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<(u16, Vec<u8>)> {
    let cut = || io::Error::new(io::ErrorKind::UnexpectedEof, "the service hung up");
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "this is no answer with a length");
    buffer.clear();
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(wrong)?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or_else(wrong)?;
            let total = end + 4 + length.trim().parse::<usize>().map_err(|_| wrong())?;
            while buffer.len() < total {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(cut());
                }
            }
            return Ok((status, buffer[end + 4..total].to_vec()));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(cut());
        }
    }
}
