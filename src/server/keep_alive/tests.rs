use axum::response::IntoResponse;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

/// Tells when it goes.
struct Guard(mpsc::UnboundedSender<&'static str>);

impl Drop for Guard {
    fn drop(&mut self) {
        // Nobody may listen any more.
        _ = self.0.send("gone");
    }
}

struct Client {
    stream: DuplexStream,
    served: JoinHandle<Result<(), String>>,
    told: mpsc::UnboundedReceiver<&'static str>,
}

/// Says the body back; `/kept` is never answered.
fn connected(silence_max: Duration) -> Client {
    let (stream, theirs) = tokio::io::duplex(1 << 16);
    let (tell, told) = mpsc::unbounded_channel();
    let answer = move |request: Request<Incoming>| {
        let guard = Guard(tell.clone());
        async move {
            if request.uri().path() == "/kept" {
                _ = guard.0.send("asked");
                std::future::pending::<()>().await;
            }
            let body = axum::body::to_bytes(Body::new(request.into_body()), 1 << 20).await;
            Ok(body.map_or_else(|_| "cut".into_response(), IntoResponse::into_response))
        }
    };
    let mut protocol = http1::Builder::new();
    protocol.timer(hyper_util::rt::TokioTimer::new()).header_read_timeout(silence_max);
    let connection = KeptAlive::new(protocol, theirs, silence_max, answer);
    let served = tokio::spawn(async move { connection.await.map_err(|error| error.to_string()) });
    Client { stream, served, told }
}

impl Client {
    async fn say(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        // Both sides take turns on one thread.
        tokio::task::yield_now().await;
    }

    /// The body of an answer of so many bytes.
    async fn hear(&mut self, count: usize) -> String {
        let mut heard = Vec::new();
        loop {
            heard.push(self.stream.read_u8().await.expect("an answer"));
            if heard.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let mut body = vec![0; count];
        self.stream.read_exact(&mut body).await.expect("a body");
        String::from_utf8(body).unwrap()
    }
}

fn put(body: &str) -> String {
    format!("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn requests_are_answered_one_after_the_other_however_they_come() {
    let mut client = connected(MINUTE);
    client.say(&put("one")).await;
    assert_eq!(client.hear(3).await, "one");
    // Two at once, and a third whose head is cut anywhere.
    for at in [1, 20, 45, 50] {
        let (third, two) = (put("three"), put("two"));
        client.say(&format!("{two}{two}{}", &third[..at])).await;
        assert_eq!((client.hear(3).await, client.hear(3).await), ("two".to_owned(), "two".to_owned()));
        client.say(&third[at..]).await;
        assert_eq!(client.hear(5).await, "three", "cut at {at}");
    }
    let large = "x".repeat(200_000);
    let (request, mut heard) = (put(&large), String::new());
    let (mut reads, mut writes) = tokio::io::split(std::mem::replace(&mut client.stream, tokio::io::duplex(1).0));
    let writing = tokio::spawn(async move { writes.write_all(request.as_bytes()).await.map(|()| writes) });
    let mut piece = vec![0; 1 << 16];
    while !heard.ends_with(&large) {
        let count = reads.read(&mut piece).await.unwrap();
        assert!(count > 0, "the answer was cut after {} bytes", heard.len());
        heard.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    drop((reads, writing.await.unwrap().unwrap()));
    assert_eq!(client.served.await.unwrap(), Ok(()), "it ends with its client");
}

#[tokio::test]
async fn a_question_ends_with_who_has_asked_it() {
    let mut client = connected(MINUTE);
    client.say("GET /kept HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.told.recv().await, Some("asked"));
    drop(client.stream);
    assert_eq!(client.told.recv().await, Some("gone"));
    assert_eq!(client.served.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn nothing_is_kept_for_who_says_nothing() {
    let (mut stream, theirs) = tokio::io::duplex(1 << 16);
    let answer = |_| async { Ok("yes".into_response()) };
    let mut connection = Box::pin(KeptAlive::new(http1::Builder::new(), theirs, MINUTE, answer));
    let mut poll = async |silent: bool| {
        let polled = std::future::poll_fn(|context| Poll::Ready(connection.as_mut().poll(context))).await;
        assert!(polled.is_pending());
        assert_eq!(connection.speaking.is_none(), silent);
    };
    poll(true).await;
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
        poll(false).await;
        stream.write_all(b"st: a\r\n\r\n").await.unwrap();
        poll(true).await;
    }
    let mut heard = vec![0; 4_096];
    let count = stream.read(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&heard[..count]).matches("200 OK").count(), 2);
}

#[tokio::test]
async fn who_is_silent_or_slow_is_hung_up_on() {
    for said in ["", "GET / HT"] {
        let mut client = connected(Duration::from_millis(1));
        client.say(said).await;
        let ended = tokio::time::timeout(MINUTE, &mut client.served).await;
        assert_eq!(ended.expect("it ends").unwrap().is_ok(), said.is_empty());
    }
}

#[tokio::test]
async fn a_yes_or_no_that_comes_later_needs_nobody_who_speaks_http() {
    for is_gone in [false, true] {
        let (mut stream, theirs) = tokio::io::duplex(1 << 16);
        let (tell, told) = tokio::sync::watch::channel(false);
        let answer = move |request: Request<Incoming>| {
            let mut told = told.clone();
            let is_kept = request.uri().path() == "/kept";
            async move {
                let kept = async move { told.wait_for(|told| *told).await.is_ok() };
                Ok(if is_kept { super::super::later::later(kept) } else { "next".into_response() })
            }
        };
        let mut connection = Box::pin(KeptAlive::new(http1::Builder::new(), theirs, MINUTE, answer));
        let mut poll = async || std::future::poll_fn(|context| Poll::Ready(connection.as_mut().poll(context))).await;
        // The next one comes before the first is answered.
        stream.write_all(b"GET /kept HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nho").await.unwrap();
        assert!(poll().await.is_pending());
        let mut heard = vec![0; 4_096];
        let count = stream.read(&mut heard).await.unwrap();
        let head = String::from_utf8_lossy(&heard[..count]).into_owned();
        assert!(head.ends_with("\r\n\r\n") && head.contains("content-length: 5"), "{head}");
        if is_gone {
            drop(stream);
            // What came behind the question is still there: that the client has gone is seen after it.
            tell.send_replace(true);
            assert!(poll().await.is_ready());
            continue;
        }
        tell.send_replace(true);
        assert!(poll().await.is_pending());
        stream.write_all(b"st: a\r\n\r\n").await.unwrap();
        assert!(poll().await.is_pending());
        let count = stream.read(&mut heard).await.unwrap();
        let rest = String::from_utf8_lossy(&heard[..count]).into_owned();
        assert!(rest.starts_with("true HTTP/1.1 200") && rest.ends_with("next"), "{rest}");
        assert_eq!(tell.receiver_count(), 1, "nobody waits any more");
    }
}
