//! The meters that ask.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use jobmeter::meter::gpu::identity::DriverFiles;
use jobmeter::meter::gpu::openings::Openings;
use jobmeter::meter::gpu::program::READY_VARIABLE;
use jobmeter::meter::gpu::wire::{self, Told};
use jobmeter::sys::bell::Bell;
use jobmeter::sys::clock::pause;
use jobmeter::sys::limits::raise_own;
use jobmeter::sys::outside::detach;
use jobmeter::sys::poll::readable_of;
use jobmeter::sys::process::{die_with_parent, forbid_tracing, schedule_as_usual, silence_standard_output};
use jobmeter::sys::sockets::{Inherited, inherited, is_socket};

/// Who has started it connects at once.
const FIRST_WAIT_MAX: Duration = Duration::from_secs(10);
/// One that does not read its answers is left.
const WRITE_WAIT_MAX: Duration = Duration::from_millis(100);
/// Between two words of openings.
const OPENINGS_PAUSE: Duration = Duration::from_millis(10);
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
    /// Somebody who looks whether the machine has a helper says nothing.
    is_meter: bool,
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
                // What the first meter was started with is not for all.
                let _raised = raise_own();
                schedule_as_usual();
                Self { listener: Some(listener), first: None }
            }
            Inherited::Other(questions) => {
                die_with_parent()?;
                let answers = if is_socket(&questions) {
                    questions.try_clone()?
                } else {
                    io::stdout().as_fd().try_clone_to_owned()?
                };
                let mut answers = File::from(answers);
                if std::env::var_os(READY_VARIABLE).is_some() {
                    answers.write_all(&wire::line(&Told::Ready)?)?;
                }
                Self { listener: None, first: Some((File::from(questions), answers)) }
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
        // A helper of one meter has it from the beginning.
        let (is_shared, mut had_meter) = (self.listener.is_some(), self.listener.is_none());
        let openings = if is_shared { Openings::watch(&DriverFiles::default()) } else { Openings::of_none() };
        loop {
            if clients.is_empty() && had_meter {
                return self.leave();
            }
            let mut fds: Vec<BorrowedFd<'_>> = clients.iter().map(|client| client.questions.as_fd()).collect();
            fds.push(reader.bell.as_fd());
            fds.extend(self.listener.as_ref().map(AsFd::as_fd));
            fds.extend(openings.fd());
            let told = readable_of(&fds, (!had_meter).then_some(FIRST_WAIT_MAX));
            if clients.is_empty() && !told.contains(&true) {
                return self.leave();
            }
            let mut told = told.into_iter();
            let has_ended =
                |client: &mut Client| told.next().unwrap_or(false) && client.hear(&reader.questions).is_err();
            let ended: Vec<Client> = clients.extract_if(.., has_ended).collect();
            had_meter |= ended.iter().any(|client| client.is_meter);
            // Only the machine's helper must not hang for one that has gone: another one ends with its meter.
            ended.into_iter().filter(|_| !is_shared).for_each(|client| client.answer_to_the_end(&reader));
            if told.next().unwrap_or(false) && reader.bell.silence() {
                reader.tell_all(&mut clients);
            }
            if told.next().unwrap_or(false) {
                match self.accept(count) {
                    Ok(client) => clients.extend(client),
                    // No more files may be opened: it has a helper of its own.
                    Err(_) => pause(WRITE_WAIT_MAX),
                }
                count += 1;
            }
            if openings.fd().is_some() && told.next_back().unwrap_or(false) {
                // A program opens several, and others may open some all the time.
                pause(OPENINGS_PAUSE);
                let _had_one = openings.forget();
                reader.tell_of_opening(&mut clients);
            }
        }
    }

    fn accept(&self, number: u64) -> io::Result<Option<Client>> {
        let Some(listener) = &self.listener else { return Ok(None) };
        let (stream, _) = listener.accept()?;
        stream.set_write_timeout(Some(WRITE_WAIT_MAX))?;
        let questions = OwnedFd::from(stream);
        let answers = questions.try_clone()?;
        Ok(Some(Client::of(number, (File::from(questions), File::from(answers)))))
    }

    /// Whoever comes next begins anew, and whoever is about to connect here has a helper of his own.
    fn leave(&self) -> io::Result<()> {
        let address = self.listener.as_ref().map(UnixListener::local_addr).transpose()?;
        address.as_ref().and_then(SocketAddr::as_pathname).map_or(Ok(()), std::fs::remove_file)
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

impl Reader {
    fn tell_of_opening(&self, clients: &mut Vec<Client>) {
        if let Ok(line) = wire::line(&Told::Opened) {
            self.leave_who(clients, |client| client.answers.write_all(&line).is_err());
        }
    }

    fn tell_all(&self, clients: &mut Vec<Client>) {
        for (number, line) in self.answers.try_iter() {
            self.leave_who(clients, |client| client.number == number && client.tell(&line).is_err());
        }
    }

    /// Those that do not read.
    fn leave_who(&self, clients: &mut Vec<Client>, does_not_read: impl FnMut(&mut Client) -> bool) {
        for client in clients.extract_if(.., does_not_read) {
            let _is_told = self.questions.send(Question::Gone(client.number));
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
        Self { number, questions, answers, unread: Vec::new(), open: 0, is_meter: number == 0 }
    }

    /// Passes on what it asks; an error is its end.
    fn hear(&mut self, questions: &Sender<Question>) -> io::Result<()> {
        let heard = self.read();
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            self.is_meter = true;
            if line.len() == 1 {
                continue;
            }
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
