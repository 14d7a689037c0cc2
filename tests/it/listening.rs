//! Where the service listens: host names, several places, unix sockets, and sockets of systemd.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::station::{Called, Station, ended, line_of};

/// The service with these arguments, and the URLs that it tells.
fn started(command: &mut Command) -> (Child, Vec<String>) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = child.stderr.take().unwrap();
    let told = line_of(&mut log);
    let line: Value = serde_json::from_str(&told).unwrap_or_else(|_| panic!("{told}"));
    let also = line["also"].as_str().unwrap_or_default().split(", ").filter(|url| !url.is_empty());
    let urls = std::iter::once(line["url"].as_str().unwrap()).chain(also).map(str::to_owned).collect();
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    (child, urls)
}

fn stop(child: &mut Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(ended(child).success());
}

fn is_ready(station: &Station, arguments: &str) -> Called {
    let asked =
        station.sh(&format!("curl -sS --noproxy '*' --max-time 20 -o /dev/null -w '%{{http_code}}' {arguments}"));
    assert_eq!(asked.out, "200", "{arguments}: {asked:?}");
    asked
}

#[test]
fn it_listens_at_every_place_that_is_named() {
    let station = Station::new();
    let (db, socket) = (station.path("service.db"), station.path("socket"));
    let unix = format!("unix:{}", socket.display());
    let places = format!("localhost:0,{unix}");
    // One that a service left which was killed.
    drop(UnixListener::bind(&socket).unwrap());
    let arguments = ["serve", "--db", db.to_str().unwrap(), "--listen", &places, "--listen", "127.0.0.2:0"];
    let (mut child, urls) = started(&mut station.command(&arguments));
    assert!(urls.len() >= 3 && urls.contains(&unix), "{urls:?}");
    assert!(urls.iter().any(|url| url.starts_with("http://127.0.0.2:")), "{urls:?}");
    for url in &urls {
        match url.strip_prefix("unix:") {
            Some(path) => is_ready(&station, &format!("--unix-socket {path} http://ledger/readyz")),
            None => is_ready(&station, &format!("{url}/readyz")),
        };
    }
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    // Another service takes it from nobody who is there, and no file that is something else.
    let file = station.path("file");
    std::fs::write(&file, "kept").unwrap();
    for (path, why) in [(&socket, "another process listens there"), (&file, "the file there is not a socket")] {
        let (db, place) = (station.path("other.db"), format!("unix:{}", path.display()));
        let called = station.call(&["serve", "--db", db.to_str().unwrap(), "--listen", &place]);
        assert_eq!(called.status, 1, "{called:?}");
        assert!(called.err.contains(&format!("cannot listen on {place}: {why}")), "{called:?}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    stop(&mut child);
    assert!(!socket.exists());
}

/// As systemd starts it: the sockets follow standard error, and it takes nothing else then.
#[test]
fn it_takes_the_sockets_that_systemd_passes() {
    let station = Station::new();
    let passing = "import os, socket, sys\n\
        tcp = socket.create_server(('127.0.0.1', 0))\n\
        unix = socket.socket(socket.AF_UNIX)\n\
        unix.bind(os.environ['DIR'] + '/passed')\n\
        unix.listen()\n\
        held = [os.dup(tcp.fileno()), os.dup(unix.fileno())]\n\
        high = [os.dup2(fd, 100 + at) for at, fd in enumerate(held)]\n\
        for at, fd in enumerate(high): os.dup2(fd, 3 + at, inheritable=True)\n\
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2')\n\
        os.execv(sys.argv[1], sys.argv[1:])\n";
    let mut command = station.program("python3");
    command.args(["-c", passing, env!("CARGO_BIN_EXE_jobmeter"), "serve", "--db"]).arg(station.path("service.db"));
    let (mut child, urls) = started(&mut command);
    let passed = station.path("passed");
    assert_eq!(urls.len(), 2, "{urls:?}");
    assert_eq!(urls[1], format!("unix:{}", passed.display()));
    is_ready(&station, &format!("{}/readyz", urls[0]));
    is_ready(&station, &format!("--unix-socket {} http://ledger/readyz", passed.display()));
    stop(&mut child);
    // It is systemd's, who starts the service again by it.
    assert!(passed.exists());
    // What is passed and is no listening socket is told.
    let mut command =
        station.shell("LISTEN_PID=$BASHPID LISTEN_FDS=1 exec \"$JOBMETER\" serve --db $DIR/service.db 3</dev/null");
    let called = Called::from(command.output().unwrap());
    assert!(called.status == 1 && called.err.contains("cannot listen on the socket with the number 3"), "{called:?}");
}
