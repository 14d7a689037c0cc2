//! What may be typed.

mod account;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

pub(super) use self::account::{Account, Reasoned};
use super::attach::Attach;
use super::relay::Relay;
use super::run::Run;
use super::values::{self, Span};
use crate::domain::rating::{CpuBasis, GpuBasis};
use crate::domain::units::{Microseconds, Nanocredits};
use crate::domain::weight::GpuWeight;
use crate::ledger::job_name::JobName;
use crate::ledger::keys::Scope;
use crate::ledger::protocol::JobKind;
use crate::ledger::views::PeriodLength;
use crate::server::{BasePath, Listen};

/// Runs a job, meters what it really uses, charges credits while it runs, and stops it at zero.
#[derive(Debug, Parser)]
#[command(name = "jobmeter", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Examples:\n  jobmeter run -- python3 train.py\n  jobmeter status\n  jobmeter jobs list")]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Global {
    /// The ledger: a file, postgres://… or http(s)://… [default: $XDG_STATE_HOME/jobmeter/ledger.db, as root
    /// /var/lib/jobmeter/ledger.db]
    #[arg(long, global = true, env = "JOBMETER_LEDGER", value_name = "LOCATION", hide_env_values = true, value_parser = values::not_empty)]
    pub(super) ledger: Option<String>,
    /// A file that holds the key for a ledger service; the variable may hold the key itself
    #[arg(long, global = true, env = "JOBMETER_KEY", value_name = "FILE", hide_env_values = true)]
    pub(super) key_file: Option<String>,
    /// Whose credits [default: that of --as, else the login name]
    #[arg(long, global = true, env = "JOBMETER_USER", value_name = "NAME", value_parser = values::name)]
    pub(super) user: Option<String>,
    /// Settings, TOML [default: $XDG_CONFIG_HOME/jobmeter/config.toml or /etc/jobmeter/config.toml]
    #[arg(long, global = true, env = "JOBMETER_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where burn is kept until the ledger has taken it [default: "spool" beside the default ledger]
    #[arg(long, global = true, env = "JOBMETER_SPOOL", value_name = "DIR")]
    pub(super) spool_dir: Option<PathBuf>,
    /// Print JSON for programs
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a job under the meter
    Run(Box<Run>),
    /// Meter and stop what something else has started
    Attach(Box<Attach>),
    /// Credits left in this period, burn rate, time to zero
    Status(Status),
    /// A live view of what burns now
    Top {
        /// The jobs of every user
        #[arg(long)]
        all: bool,
    },
    /// Jobs, and the time breakdown of one
    #[command(subcommand)]
    Jobs(Jobs),
    /// The usage report, by day or by month
    Usage(Usage),
    /// Charge tokens to a job
    Tokens(Tokens),
    /// Limits, grants and corrections
    #[command(subcommand)]
    Account(Account),
    /// Prices
    #[command(subcommand)]
    Rates(Rates),
    /// Audit, settle and copy the ledger
    #[command(subcommand)]
    Ledger(Ledger),
    /// Burn that the ledger has not taken yet
    #[command(subcommand)]
    Spool(Spool),
    /// Keys of a ledger service
    #[command(subcommand)]
    Key(Key),
    /// Serve the ledger over HTTP
    Serve(Serve),
    /// Carry a job's burn to the ledger for a wrapper that holds no key
    Relay(Relay),
    /// Copy the wrapper, and what meters GPUs for it, to where another container finds them
    Install {
        /// Into this directory
        directory: PathBuf,
    },
    /// What can be metered and enforced here, and how exactly
    Doctor {
        /// The NVML library [default: libnvidia-ml.so.1 of the system]
        #[arg(long, value_name = "PATH")]
        nvml_library: Option<PathBuf>,
    },
    /// Write a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    Man {
        /// Into this directory, one page a verb; without it, jobmeter(1) to standard output
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Wait until so many credits are free for a new job: for the period's reset or a grant
    #[arg(long, value_name = "CREDITS", value_parser = values::amount_above_zero)]
    pub(super) wait_for: Option<Nanocredits>,
    /// One line of a few characters, for a prompt
    #[arg(long, short)]
    pub(super) short: bool,
    /// Wait at most so long; exit 75 when that is over
    #[arg(long, value_name = "TIME", requires = "wait_for", value_parser = values::span)]
    pub(super) timeout: Option<Span>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Jobs {
    /// The newest jobs first
    List {
        /// Those of every user
        #[arg(long)]
        all: bool,
        /// Only those that run
        #[arg(long)]
        running: bool,
        /// Only those of this kind
        #[arg(long, value_enum, value_name = "KIND")]
        kind: Option<JobKind>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
        /// The next page: the cursor that the last page ended with
        #[arg(long, value_name = "CURSOR")]
        before: Option<String>,
    },
    /// The time breakdown of one job, its tasks and attempts, and why it ended
    Show {
        /// Its id, or the first letters of it (at least 4); where several have it, --user and --principal say which
        job: String,
        #[command(flatten)]
        of: OfJob,
        /// One line: what it cost and used, for a scheduler's comment
        #[arg(long)]
        brief: bool,
    },
    /// Stop all tasks of a job
    Stop {
        /// Its id; where several have it, --user and --principal say which
        job: String,
        #[command(flatten)]
        of: OfJob,
        /// For the books
        #[arg(long, value_name = "TEXT", default_value = "operator's stop", value_parser = values::text)]
        why: String,
    },
}

/// Whose a job is, beside the account that --user names.
#[derive(Debug, Args)]
pub(super) struct OfJob {
    /// The node, cluster or service that opened it; "" for jobs that were opened without a service
    #[arg(long, value_name = "NAME", value_parser = values::text)]
    principal: Option<String>,
}

impl OfJob {
    /// The job of this id, of the account that was said on the command line where one was.
    pub(super) fn named(&self, id: &str, user: Option<&str>) -> JobName {
        JobName { id: id.to_owned(), user: user.map(str::to_owned), principal: self.principal.clone() }
    }
}

#[derive(Debug, Args)]
pub(super) struct Usage {
    /// The days of this month; without any option, all months
    #[arg(long, value_name = "YYYY-MM", conflicts_with_all = ["from", "to"])]
    pub(super) month: Option<String>,
    /// From this day on (UTC)
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub(super) from: Option<String>,
    /// Up to this day, which is not counted (UTC)
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub(super) to: Option<String>,
    /// One row for each
    #[arg(long, value_enum, value_name = "LENGTH")]
    pub(super) by: Option<PeriodLength>,
    /// Of all accounts together
    #[arg(long)]
    pub(super) all: bool,
}

#[derive(Debug, Args)]
pub(super) struct Tokens {
    /// The job; where several have the id, --user and --principal say which
    #[arg(value_parser = values::name)]
    pub(super) job: String,
    #[command(flatten)]
    pub(super) of: OfJob,
    /// How many
    pub(super) count: u64,
    /// Set aside what so many can cost at most, and print what to settle by
    #[arg(long, conflicts_with = "settle")]
    pub(super) reserve: bool,
    /// How long they are reserved for (default: 15m)
    #[arg(long = "for", value_name = "TIME", requires = "reserve", value_parser = values::reserved)]
    pub(super) lasts: Option<values::Span>,
    /// Charge what was used of a reservation, and give the rest of it back
    #[arg(long, value_name = "RESERVATION")]
    pub(super) settle: Option<uuid::Uuid>,
    /// Makes a repeat harmless: the same key is charged once
    #[arg(long, value_name = "KEY", value_parser = values::name)]
    pub(super) key: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Rates {
    /// All versions of the rate card, the newest first
    Show,
    /// Make a new version; attempts that run keep theirs
    Set(RatesSet),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct RatesSet {
    /// A: credits per virtual CPU second
    #[arg(long, value_name = "CREDITS", value_parser = values::amount)]
    pub(super) cpu_per_second: Option<Nanocredits>,
    /// B: credits per virtual GPU second
    #[arg(long, value_name = "CREDITS", value_parser = values::amount)]
    pub(super) gpu_per_second: Option<Nanocredits>,
    /// Credits per million tokens
    #[arg(long, value_name = "CREDITS", value_parser = values::amount)]
    pub(super) per_million_tokens: Option<Nanocredits>,
    /// Virtual seconds per CPU second, 0 to 1000
    #[arg(long, value_name = "WEIGHT", value_parser = values::weight::<1_000>)]
    pub(super) cpu_weight: Option<Microseconds>,
    /// Virtual seconds per second of a GPU that no pattern fits, 0 to 1000
    #[arg(long, value_name = "WEIGHT", value_parser = values::weight::<1_000>)]
    pub(super) gpu_weight: Option<Microseconds>,
    /// Virtual seconds per second of a GPU whose whole name fits, such as '*H200*=3' or '*MIG 1g.10gb=0.14'; the first
    /// that fits decides. Those that are given take the place of all before; none takes them away
    #[arg(long = "gpu-model", value_name = "PATTERN=WEIGHT", value_parser = values::gpu_weight)]
    pub(super) gpu_models: Vec<Option<GpuWeight>>,
    /// Which CPU time is priced
    #[arg(long, value_name = "BASIS", value_enum)]
    pub(super) cpu_basis: Option<CpuBasis>,
    /// Which GPU time is priced
    #[arg(long, value_name = "BASIS", value_enum)]
    pub(super) gpu_basis: Option<GpuBasis>,
    /// Where busy time is priced: what a second counts for which a job has a GPU that does nothing for it, 0 to 1
    #[arg(long, value_name = "WEIGHT", value_parser = values::weight::<1>)]
    pub(super) gpu_holding: Option<Microseconds>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Ledger {
    /// Replay all entries and compare every balance
    Verify,
    /// Settle an attempt that fell silent
    Settle {
        /// Which
        attempt: Uuid,
        /// CPU time that it used [default: its full hold is charged]
        #[arg(long, value_name = "SECONDS")]
        cpu_seconds: Option<Microseconds>,
        /// For the books
        #[arg(long, value_name = "TEXT", value_parser = values::text)]
        why: String,
    },
    /// Believe the ledger's clock again after it jumped, where it is right now
    TrustClock {
        /// Why, as the books tell it
        #[arg(long, value_name = "TEXT", value_parser = values::text)]
        why: String,
    },
    /// Copy the ledger to a new file while it is in use
    Backup {
        /// The new file
        to: PathBuf,
    },
    /// Put a copy in the place of the ledger, and send it again what this machine's spool still knows
    ///
    /// What was acknowledged after the copy was made is forgotten. Jobs that run go on and report their totals anew; new
    /// jobs wait for half a minute. On other machines `jobmeter spool flush --acknowledged` sends again what ended there
    /// in the last 7 days.
    Restore {
        /// The copy. Without one: the PostgreSQL database of the ledger was put back, which it has not noticed itself
        from: Option<PathBuf>,
        /// Take a copy that was made without its log (-wal), of which the last that was written is missing
        #[arg(long, requires = "from")]
        incomplete: bool,
        /// For the books
        #[arg(long, value_name = "TEXT", default_value = "restored from a copy", value_parser = values::text)]
        why: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Spool {
    /// Attempts whose burn the ledger has not taken
    List,
    /// End what nobody meters any more, and settle it
    Flush {
        /// After a restore of the ledger: also send again what it acknowledged in the last 7 days
        #[arg(long)]
        acknowledged: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Key {
    /// Make a key; it is shown once
    Create {
        /// For people: who or what has it
        #[arg(value_parser = values::name)]
        name: String,
        /// What it may do
        #[arg(long, value_enum, default_value = "report")]
        scope: Scope,
        /// The node, cluster or service that it works for; what one key of it opens, the others go on with [default: NAME]
        #[arg(long, value_name = "NAME", value_parser = values::name)]
        principal: Option<String>,
        /// It ends after so long, such as 90d [default: never]
        #[arg(long, value_name = "TIME", value_parser = values::span)]
        expires_in: Option<Span>,
        /// For the account of the user of --user alone
        #[arg(long)]
        only_user: bool,
        /// Write it to this new file, mode 0600, instead of showing it
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// All keys, without the keys themselves
    List,
    /// Make a key invalid, within a second
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  jobmeter serve --db /srv/jobmeter/ledger.db\n  jobmeter serve --db \
                  postgres://jobmeter@db/jobmeter --listen 0.0.0.0:7770 --tls-certificate chain.pem --tls-key key.pem")]
pub(super) struct Serve {
    /// The database: a file, or postgres://… [default: that of --ledger]
    #[arg(long, env = "JOBMETER_DB", value_name = "LOCATION", hide_env_values = true)]
    pub(super) db: Option<String>,
    /// Where to listen: ADDRESS:PORT, HOST:PORT or unix:PATH (mode 0660, without TLS); several with commas or by repeating it
    /// [default: the sockets that systemd passes, else 127.0.0.1:7770]
    #[arg(long, value_name = "PLACE", value_delimiter = ',')]
    pub(super) listen: Vec<Listen>,
    /// Serve below this path of the host, as behind a proxy that passes it on: /jobmeter
    #[arg(long, value_name = "PATH", default_value = "/", hide_default_value = true)]
    pub(super) base_path: BasePath,
    /// Where the first start writes a key of the scope admin, mode 0600 [default: <db>.admin-key]
    #[arg(long, value_name = "FILE")]
    pub(super) admin_key_file: Option<PathBuf>,
    /// Serve with TLS: the certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(super) tls_certificate: Option<PathBuf>,
    /// Serve with TLS: the private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub(super) tls_key: Option<PathBuf>,
    /// Believe this header when it names a user: only behind a proxy that signs users in and lets nobody else set it
    #[arg(long, value_name = "NAME")]
    pub(super) trust_header: Option<String>,
    /// Connections at the same time: a running sidecar keeps two
    #[arg(long, value_name = "COUNT", default_value_t = 40_000)]
    pub(super) connections: usize,
    /// Where accounts that have spent 80 or 95 % or everything are told, as CloudEvents
    #[arg(
        long,
        env = "JOBMETER_WEBHOOK",
        value_name = "URL",
        requires = "webhook_secret_file",
        hide_env_values = true
    )]
    pub(super) webhook: Option<String>,
    /// What they are signed with (Standard Webhooks): whsec_ and base64, or any text of 16 bytes or more
    #[arg(long, env = "JOBMETER_WEBHOOK_SECRET_FILE", value_name = "FILE")]
    pub(super) webhook_secret_file: Option<PathBuf>,
}
