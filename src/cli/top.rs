//! `jobmeter top`: what burns now, live.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table, TableState};

use super::output::Failure;
use super::settings::Settings;
use super::status;
use crate::domain::printable::printable;
use crate::domain::units::Nanocredits;
use crate::ledger::job_name::JobKey;
use crate::ledger::views::{AccountView, Change, JobView, Query, View};
use crate::ledger::{Ledger, LedgerError};
use crate::runner::summary::{credits, seconds};
use crate::sys::clock::{Clock, SystemClock};

/// The ledger is asked so often.
const EACH: Duration = Duration::from_secs(1);
const JOBS_MAX: u32 = 200;

/// What the rows are sorted by, the most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sort {
    #[default]
    Burn,
    Credits,
    Time,
}

impl Sort {
    const fn next(self) -> Self {
        match self {
            Self::Burn => Self::Credits,
            Self::Credits => Self::Time,
            Self::Time => Self::Burn,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Burn => "burn",
            Self::Credits => "credits",
            Self::Time => "virtual time",
        }
    }
}

/// What a key leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Quit,
    Stop(JobKey),
}

/// What the keys are for at present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Looking,
    Filtering,
    /// Whether this job is really to be stopped.
    Asking(JobKey),
}

/// What is shown.
#[derive(Debug, Default)]
struct Top {
    account: Option<AccountView>,
    jobs: Vec<(JobView, Nanocredits)>,
    before: HashMap<JobKey, (u64, Nanocredits)>,
    sort: Sort,
    filter: String,
    mode: Mode,
    selected: TableState,
    told: String,
}

pub(super) fn top(all: bool, settings: &Settings) -> Result<ExitCode, Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::new("top needs a terminal").hint("`jobmeter --json jobs list --running` is for programs"));
    }
    let mut ledger = settings.connect_to_read()?;
    let user = (!all).then(|| settings.user.clone());
    let mut shown = Top::default();
    // Before the screen is taken, so that a ledger that does not open is told as everywhere.
    shown.look(ledger.as_mut(), user.as_deref())?;
    let mut terminal =
        ratatui::try_init().map_err(|error| Failure::new("the terminal cannot be used").because(error))?;
    let ended = watch(&mut terminal, &mut shown, ledger.as_mut(), user.as_deref(), &settings.by);
    ratatui::restore();
    ended.map(|()| ExitCode::SUCCESS)
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    shown: &mut Top,
    ledger: &mut dyn Ledger,
    user: Option<&str>,
    by: &str,
) -> Result<(), Failure> {
    let lost = |error: std::io::Error| Failure::new("the terminal was lost").because(error);
    let mut look_at_us = 0;
    loop {
        let now_us = SystemClock.boottime_us();
        if now_us >= look_at_us {
            if let Err(error) = shown.look(ledger, user) {
                shown.told = error.to_string();
            }
            look_at_us = now_us.saturating_add(u64::try_from(EACH.as_micros()).unwrap_or(0));
        }
        terminal.draw(|frame| shown.draw(frame)).map_err(lost)?;
        let left_us = look_at_us.saturating_sub(SystemClock.boottime_us());
        if !event::poll(Duration::from_micros(left_us)).map_err(lost)? {
            continue;
        }
        let Event::Key(key) = event::read().map_err(lost)? else { continue };
        match shown.press(key) {
            Wish::Nothing => {}
            Wish::Quit => return Ok(()),
            Wish::Stop(job) => {
                let why = "stopped in top".to_owned();
                let told = format!("{} is being stopped", job.id);
                let stopped = ledger.change(&Change::StopJob { job: job.into(), by: by.to_owned(), why });
                shown.told = stopped.map_or_else(|error| error.to_string(), |_| told);
            }
        }
    }
}

impl Top {
    fn look(&mut self, ledger: &mut dyn Ledger, user: Option<&str>) -> Result<(), LedgerError> {
        self.account = match user {
            Some(user) => match ledger.read(&Query::Account { user: user.to_owned() })? {
                View::Account(account) => Some(*account),
                _ => return Err(LedgerError::unasked()),
            },
            None => None,
        };
        let query = Query::Jobs {
            user: user.map(str::to_owned),
            kind: None,
            running_only: true,
            count_max: JOBS_MAX,
            before: None,
        };
        let View::Jobs { jobs, .. } = ledger.read(&query)? else { return Err(LedgerError::unasked()) };
        self.take(jobs, SystemClock.boottime_us());
        Ok(())
    }

    /// Rates are what was charged between two looks in which it changed.
    fn take(&mut self, jobs: Vec<JobView>, now_us: u64) {
        let rates: HashMap<String, Nanocredits> = self.jobs.drain(..).map(|(job, rate)| (job.job, rate)).collect();
        let mut before = HashMap::new();
        for job in jobs {
            let charged = job.charged.total;
            let known = self.before.get(&job.key()).copied();
            let (mut rate, mut since) = (rates.get(&job.job).copied().unwrap_or_default(), (now_us, charged));
            if let Some((at_us, was)) = known {
                let passed_us = i128::from(now_us.saturating_sub(at_us)).max(1);
                if charged > was {
                    let per_second = i128::from(charged.saturating_sub(was).0) * 1_000_000 / passed_us;
                    rate = Nanocredits(i64::try_from(per_second).unwrap_or(i64::MAX));
                } else {
                    since = (at_us, was);
                }
            }
            before.insert(job.key(), since);
            self.jobs.push((job, rate));
        }
        self.before = before;
    }

    fn rows(&self) -> Vec<&(JobView, Nanocredits)> {
        let wanted = self.filter.to_lowercase();
        let fits = |job: &JobView| {
            let texts = [&job.job, &job.user, job.name.as_ref().unwrap_or(&job.job)];
            texts.iter().any(|text| text.to_lowercase().contains(&wanted))
        };
        let mut rows: Vec<_> = self.jobs.iter().filter(|(job, _)| fits(job)).collect();
        let by = |(job, rate): &(JobView, Nanocredits)| match self.sort {
            Sort::Burn => i128::from(rate.0),
            Sort::Credits => i128::from(job.charged.total.0),
            Sort::Time => i128::from(job.virtual_time.total_seconds.0),
        };
        rows.sort_by_key(|row| (std::cmp::Reverse(by(row)), row.0.job.clone()));
        rows
    }

    fn press(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Wish::Quit;
        }
        self.told.clear();
        match (std::mem::take(&mut self.mode), key.code) {
            (Mode::Looking, KeyCode::Char('q') | KeyCode::Esc) => return Wish::Quit,
            (Mode::Looking, KeyCode::Char('s')) => self.sort = self.sort.next(),
            (Mode::Looking, KeyCode::Char('/')) => self.mode = Mode::Filtering,
            (Mode::Looking, KeyCode::Down | KeyCode::Char('j')) => self.selected.select_next(),
            (Mode::Looking, KeyCode::Up | KeyCode::Char('k')) => self.selected.select_previous(),
            (Mode::Looking, KeyCode::Char('x')) => {
                let at = self.selected.selected();
                if let Some((job, _)) = at.and_then(|at| self.rows().get(at).copied()) {
                    self.mode = Mode::Asking(job.key());
                }
            }
            (Mode::Looking, _) | (Mode::Filtering, KeyCode::Enter) => {}
            (Mode::Filtering, KeyCode::Esc) => self.filter.clear(),
            (Mode::Filtering, code) => {
                match code {
                    KeyCode::Char(letter) => self.filter.push(letter),
                    KeyCode::Backspace => {
                        self.filter.pop();
                    }
                    _ => {}
                }
                self.mode = Mode::Filtering;
            }
            (Mode::Asking(job), KeyCode::Char('y')) => return Wish::Stop(job),
            (Mode::Asking(job), _) => self.told = format!("{} runs on", job.id),
        }
        Wish::Nothing
    }

    fn headline(&self) -> String {
        let text = match &self.account {
            Some(account) => {
                let text = status::short(account);
                format!(
                    "{}  {} credits left, {} a second, {} tasks run",
                    account.user,
                    text.trim_end(),
                    credits(account.burn_per_second),
                    account.running
                )
            }
            None => {
                let sum = self.jobs.iter().fold(Nanocredits::ZERO, |sum, (_, rate)| sum.saturating_add(*rate));
                format!("all users  {} jobs run, {} credits a second", self.jobs.len(), credits(sum))
            }
        };
        printable(&text).into_owned()
    }

    fn footer(&self) -> String {
        let text = match &self.mode {
            Mode::Looking if !self.told.is_empty() => self.told.clone(),
            Mode::Looking => {
                format!("sorted by {}   s sort  / filter  ↑↓ choose  x stop  q quit", self.sort.as_str())
            }
            Mode::Filtering => format!("filter: {}▏ (Enter keeps it, Esc clears it)", self.filter),
            Mode::Asking(job) => format!("stop all tasks of {}? y stops it, any other key does not", job.id),
        };
        printable(&text).into_owned()
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let rows: Vec<Row<'static>> = self.rows().into_iter().map(|(job, rate)| row(job, *rate)).collect();
        let header = Row::new(["JOB", "USER", "KIND", "STATE", "BURN/S", "CREDITS", "CPU S", "GPU S", "TOKENS"]);
        let widths = [
            Constraint::Fill(2),
            Constraint::Fill(1),
            Constraint::Length(14),
            Constraint::Length(11),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(11),
            Constraint::Length(11),
            Constraint::Length(9),
        ];
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let table = Table::new(rows, widths)
            .header(header.style(bold))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let [above, middle, below] =
            Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
        frame.render_widget(Line::from(self.headline()).style(bold), above);
        frame.render_stateful_widget(table, middle, &mut self.selected);
        frame.render_widget(Line::from(self.footer()), below);
    }
}

fn row(job: &JobView, rate: Nanocredits) -> Row<'static> {
    let text = |text: &str| Cell::from(printable(text).into_owned());
    let number = |text: String| Cell::from(Line::from(text).right_aligned());
    let time = &job.virtual_time;
    Row::new([
        text(job.name.as_ref().unwrap_or(&job.job)),
        text(&job.user),
        Cell::from(job.kind.to_string()),
        text(&job.state),
        number(credits(rate)),
        number(credits(job.charged.total)),
        number(seconds(time.cpu_seconds)),
        number(seconds(time.gpu_seconds)),
        number(job.tokens.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::domain::rating::{Price, VirtualTime};
    use crate::ledger::protocol::JobKind;

    fn job(id: &str, charged: i64) -> JobView {
        JobView {
            job: id.to_owned(),
            user: "ann".to_owned(),
            principal: String::new(),
            kind: JobKind::Training,
            name: None,
            state: "running".to_owned(),
            started_at: String::new(),
            ended_at: None,
            charged: Price { total: Nanocredits(charged), ..Price::default() },
            overshoot: Nanocredits::ZERO,
            virtual_time: VirtualTime::default(),
            tokens: 0,
            limit: None,
            attempts: Vec::new(),
        }
    }

    fn press(top: &mut Top, keys: &str) -> Wish {
        let wishes = keys.chars().map(|letter| match letter {
            '\n' => KeyCode::Enter,
            '↓' => KeyCode::Down,
            letter => KeyCode::Char(letter),
        });
        let mut last = Wish::Nothing;
        wishes.for_each(|code| last = top.press(KeyEvent::new(code, KeyModifiers::NONE)));
        last
    }

    #[test]
    fn what_burns_most_stands_first() {
        let mut top = Top::default();
        top.take(vec![job("old", 9_000_000_000), job("new", 1_000_000_000)], 0);
        top.take(vec![job("old", 9_001_000_000), job("new", 2_000_000_000)], 1_000_000);
        // No change in between two reports: the rate stays.
        top.take(vec![job("old", 9_001_000_000), job("new", 2_000_000_000)], 2_000_000);
        assert_eq!(
            top.rows().iter().map(|(job, rate)| (job.job.as_str(), rate.0)).collect::<Vec<_>>(),
            [("new", 1_000_000_000), ("old", 1_000_000)]
        );
        press(&mut top, "s");
        assert_eq!(top.rows()[0].0.job, "old");
        let mut terminal = Terminal::new(TestBackend::new(120, 8)).unwrap();
        terminal.draw(|frame| top.draw(frame)).unwrap();
        let screen = terminal.backend().to_string();
        assert!(
            screen.contains("BURN/S") && screen.contains("9.001") && screen.contains("sorted by credits"),
            "{screen}"
        );
    }

    #[test]
    fn a_name_does_nothing_to_the_screen() {
        let named =
            JobView { name: Some("a\u{202e}\u{1b}[2Jb".to_owned()), user: "u\u{2066}".to_owned(), ..job("j", 1) };
        let mut top = Top { told: "why\u{9b}\u{200f}".to_owned(), ..Top::default() };
        top.take(vec![named, job("\u{202e}", 2)], 0);
        let mut terminal = Terminal::new(TestBackend::new(160, 8)).unwrap();
        terminal.draw(|frame| top.draw(frame)).unwrap();
        let screen = terminal.backend().to_string();
        assert!(screen.contains("\\u{202e}\\u{1b}[2Jb") && screen.contains("\\u{200f}"), "{screen}");
        assert!(
            !screen.chars().any(|letter| letter != '\n' && crate::domain::printable::is_hidden(letter)),
            "{screen}"
        );
    }

    #[test]
    fn a_job_is_stopped_after_a_yes_alone() {
        let mut top = Top::default();
        top.take(vec![job("one", 1), job("two", 2)], 0);
        assert_eq!(press(&mut top, "/tw\n↓x"), Wish::Nothing);
        let two = job("two", 1).key();
        assert_eq!(top.mode, Mode::Asking(two.clone()));
        assert_eq!(press(&mut top, "n"), Wish::Nothing);
        assert_eq!(press(&mut top, "xy"), Wish::Stop(two));
        assert_eq!(press(&mut top, "q"), Wish::Quit);
    }
}
