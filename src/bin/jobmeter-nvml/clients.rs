//! The meters that ask.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use jobmeter::sys::bell::Bell;
use jobmeter::sys::outside::detach;
use jobmeter::sys::poll::readable_of;
use jobmeter::sys::process::{die_with_parent, forbid_tracing, silence_standard_output};
use jobmeter::sys::sockets::{Inherited, inherited, is_socket, limit_writes, listen_as_this_process, peer};

/// Who has started it connects at once.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(10);
/// One that does not read its answers is left.
const WRITE_WAIT_MAX: Duration = Duration::from_millis(100);
/// No question is longer: 112 MIG devices.
const QUESTION_MAX_BYTES: usize = 1024 * 1024;
const CHUNK_BYTES: usize = 64 * 1024;

/// Those that are there.
#[derive(Debug)]
pub(super) struct Clients {
    listener: Option<UnixListener>,
    first: Option<(File, File)>,
}

struct Client {
    number: u64,
    questions: File,
    answers: File,
    unread: Vec<u8>,
    /// How many of its questions are not answered yet.
    open: usize,
}

/// What the thread is asked that waits for the library.
#[derive(Debug)]
pub(super) enum Question {
    /// A line of this client's.
    Line(u64, Vec<u8>),
    /// It has gone.
    Gone(u64),
}

/// Whoever answers, on the thread that waits for the library.
pub(super) trait Answer {
    /// When it wants to be woken though nobody asks.
    fn pause(&self) -> Option<Duration>;
    fn wake(&mut self);
    /// A line for the client that asks.
    fn answer(&mut self, question: Question) -> Option<Vec<u8>>;
}

/// Both ends of what passes between the two threads.
struct Reader {
    questions: Sender<Question>,
    /// Each for the client of this number.
    answers: Receiver<(u64, Vec<u8>)>,
    bell: Arc<Bell>,
}

impl Clients {
    /// Before the library is there, since what that prints is no answer, and one that hangs in it sees no end of its input.
    pub(super) fn begin() -> io::Result<Self> {
        // A job of the same user may not change what is told.
        forbid_tracing()?;
        let own = match inherited(io::stdin())? {
            Inherited::Listener(listener) => {
                detach()?;
                listen_as_this_process(&listener)?;
                Self { listener: Some(listener), first: None }
            }
            Inherited::Other(questions) => {
                die_with_parent()?;
                let answers = if is_socket(&questions) {
                    questions.try_clone()?
                } else {
                    io::stdout().as_fd().try_clone_to_owned()?
                };
                Self { listener: None, first: Some((File::from(questions), File::from(answers))) }
            }
        };
        silence_standard_output()?;
        Ok(own)
    }

    /// Whether all meters of the machine may ask.
    pub(super) fn are_many(&self) -> bool {
        self.listener.is_some()
    }

    /// Until the last has gone, also while an answer hangs: those are made on a thread of its own.
    pub(super) fn serve<A: Answer>(mut self, make: impl FnOnce() -> A + Send + 'static) -> io::Result<()> {
        let (questions, inbox) = channel::<Question>();
        let (outbox, answers) = channel();
        let bell = Arc::new(Bell::new()?);
        let ring = Arc::clone(&bell);
        Builder::new().name("library".to_owned()).spawn(move || answer_all(&mut make(), &inbox, &outbox, &ring))?;
        let reader = Reader { questions, answers, bell };
        let mut clients: Vec<Client> = self.first.take().map(|files| Client::of(0, files)).into_iter().collect();
        let mut count = 1;
        let mut wait_max = self.listener.as_ref().map(|_| FIRST_WAIT_MAX);
        loop {
            let mut fds: Vec<BorrowedFd<'_>> = clients.iter().map(|client| client.questions.as_fd()).collect();
            fds.push(reader.bell.as_fd());
            fds.extend(self.listener.as_ref().map(AsFd::as_fd));
            let told = readable_of(&fds, wait_max);
            let is_quiet = !told.contains(&true);
            let mut told = told.into_iter();
            let has_ended =
                |client: &mut Client| told.next().unwrap_or(false) && client.hear(&reader.questions).is_err();
            let ended: Vec<Client> = clients.extract_if(.., has_ended).collect();
            // Only the machine's helper must not hang for one that has gone: another one ends with its meter.
            ended.into_iter().filter(|_| self.listener.is_none()).for_each(|client| client.answer_to_the_end(&reader));
            if told.next().unwrap_or(false) && reader.bell.silence() {
                for (number, line) in reader.answers.try_iter() {
                    clients.retain_mut(|client| client.number != number || client.tell(&line).is_ok());
                }
            }
            if told.next().unwrap_or(false) {
                clients.extend(self.accept(count)?);
                (count, wait_max) = (count + 1, None);
            } else if clients.is_empty() && (wait_max.is_none() || is_quiet) {
                return Ok(());
            }
        }
    }

    fn accept(&self, number: u64) -> io::Result<Option<Client>> {
        let Some(listener) = &self.listener else { return Ok(None) };
        let (stream, _) = listener.accept()?;
        // Another user could keep it alive, or busy.
        if !peer(&stream).is_ok_and(|peer| peer.uid == 0) {
            return Ok(None);
        }
        limit_writes(&stream, WRITE_WAIT_MAX)?;
        let questions = OwnedFd::from(stream);
        let answers = questions.try_clone()?;
        Ok(Some(Client::of(number, (File::from(questions), File::from(answers)))))
    }
}

/// Until the other ends are gone, with the process.
fn answer_all(answer: &mut impl Answer, inbox: &Receiver<Question>, outbox: &Sender<(u64, Vec<u8>)>, ring: &Bell) {
    loop {
        let question = match answer.pause() {
            Some(pause) => inbox.recv_timeout(pause),
            None => inbox.recv().map_err(RecvTimeoutError::from),
        };
        let question = match question {
            Ok(question) => question,
            Err(RecvTimeoutError::Timeout) => {
                answer.wake();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let number = question.number();
        if let Some(line) = answer.answer(question) {
            if outbox.send((number, line)).is_err() {
                return;
            }
            ring.ring();
        }
    }
}

impl Question {
    fn number(&self) -> u64 {
        match self {
            Self::Line(number, _) | Self::Gone(number) => *number,
        }
    }
}

impl Client {
    fn of(number: u64, (questions, answers): (File, File)) -> Self {
        Self { number, questions, answers, unread: Vec::new(), open: 0 }
    }

    /// Passes on what it asks; an error is its end.
    fn hear(&mut self, questions: &Sender<Question>) -> io::Result<()> {
        let heard = self.read();
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line = self.unread.drain(..=end).collect();
            questions.send(Question::Line(self.number, line)).map_err(io::Error::other)?;
            self.open += 1;
        }
        if heard.is_err() || self.unread.len() > QUESTION_MAX_BYTES {
            questions.send(Question::Gone(self.number)).map_err(io::Error::other)?;
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn tell(&mut self, line: &[u8]) -> io::Result<()> {
        self.open = self.open.saturating_sub(1);
        self.answers.write_all(line)
    }

    /// It asks nothing more, and may still read.
    fn answer_to_the_end(mut self, reader: &Reader) {
        while self.open > 0
            && let Ok((_, line)) = reader.answers.recv()
            && self.tell(&line).is_ok()
        {}
    }

    fn read(&mut self) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        match self.questions.read(&mut chunk)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            length => {
                self.unread.extend_from_slice(chunk.get(..length).unwrap_or_default());
                Ok(())
            }
        }
    }
}
