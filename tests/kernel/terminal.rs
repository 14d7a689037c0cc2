//! On a terminal of its own: job control, window size, modes, and the title.

use crate::station::{Called, Station};
use crate::{alone, v2};

fn on_terminal(script: &str) -> Option<Called> {
    v2()?;
    let _one = alone();
    let station = Station::new();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/terminal.py");
    let called: Called = station.shell(&format!("exec python3 {path} {script}")).output().unwrap().into();
    assert_eq!(called.status, 0, "{script}: {called:?}");
    station.verify();
    Some(called)
}

#[test]
fn ctrl_z_stops_and_fg_continues() {
    on_terminal("ctrl_z");
}

#[test]
fn fg_continues_the_command_once() {
    on_terminal("fg");
}

#[test]
fn top_shows_what_runs_and_stops_what_it_is_told_to() {
    on_terminal("top");
}

#[test]
fn ctrl_c_reaches_the_command_once() {
    on_terminal("ctrl_c");
}

#[test]
fn ctrl_c_ends_what_the_command_left_behind() {
    on_terminal("ctrl_c_afterwards");
}

#[test]
fn a_job_of_another_user_has_no_hold_on_the_terminal() {
    on_terminal("as_another_user");
}

#[test]
fn an_interactive_python_works() {
    on_terminal("python");
}

#[test]
fn an_editor_works_and_can_be_put_aside() {
    on_terminal("vim");
}

#[test]
fn the_window_size_passes_and_modes_are_restored_after_a_kill() {
    on_terminal("modes");
}
