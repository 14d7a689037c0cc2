//! A page of each kind, as a browser gets it. The pages of a job and of the report, whose figures depend on the day, are
//! snapshots of the unit tests of `src/server/pages`, on books whose clock stands still.

use crate::books::full;
use crate::kept::{keep, keep_all};
use crate::outputs::{month, within_a_day};
use crate::service::{Ask, Service};

/// A form that a page of ours sends.
const FORM: [(&str, &str); 2] =
    [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-site", "same-origin")];

/// The cookie of a session that is made with a key.
fn signed_in(service: &Service, by: &str) -> String {
    let body = format!("key={}", service.key(by));
    let answer = service.send(&Ask { by: "", what: "POST /sign-in", body, headers: &FORM });
    let cookie = answer.headers().get("set-cookie").expect("a cookie").to_str().expect("a text");
    cookie.split(';').next().expect("a pair").to_owned()
}

/// What stands for the token of a session that somebody gets.
fn without_token(text: &str) -> String {
    let mut parts = text.split("jobmeter-session=");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.trim_start_matches(|letter: char| letter.is_ascii_hexdigit());
        let token = if rest.len() + 64 == part.len() { "<token>" } else { "" };
        format!("{text}jobmeter-session={token}{rest}")
    })
}

/// By somebody who has signed in with a key, or by nobody.
fn seen(service: &Service, by: &str, what: &str, form: &str) -> String {
    let cookie = if by.is_empty() { String::new() } else { signed_in(service, by) };
    let mut headers: Vec<(&str, &str)> = if what.starts_with("POST ") { FORM.to_vec() } else { Vec::new() };
    if !by.is_empty() {
        headers.push(("cookie", &cookie));
    }
    let ask = Ask { by: "", what, body: form.to_owned(), headers: &headers };
    let who = if by.is_empty() { "nobody" } else { by };
    let form = if form.is_empty() { String::new() } else { format!("> {form}\n") };
    let answer = without_token(&service.answered(service.send(&ask)));
    service.machine.known.in_text(&format!("> {what}, by {who}\n{form}{answer}"))
}

/// A name, who looks, what at, and the form that is sent.
type Seen<'a> = (&'a str, &'a str, &'a str, &'a str);

/// All of them on the same books.
fn pages(looks: &[Seen<'_>]) {
    let texts = within_a_day(|| {
        let service = full();
        let page = |(name, by, what, form): &Seen<'_>| (format!("page-{name}"), seen(&service, by, what, form));
        looks.iter().map(page).collect::<Vec<_>>()
    });
    keep_all(&texts);
}

#[test]
fn of_who_has_not_signed_in() {
    let text = within_a_day(|| {
        let service = full();
        let key = format!("key={}&next=/usage", service.key("ann"));
        let wrong = "key=jm_0123456789ab_00&next=/usage";
        [
            seen(&service, "", "GET /", ""),
            seen(&service, "", "GET /jobs?running=true", ""),
            seen(&service, "", "GET /sign-in?next=/usage", ""),
            seen(&service, "", "GET /sign-in?next=//elsewhere", ""),
            seen(&service, "", "POST /sign-in", wrong),
            seen(&service, "", "POST /sign-in", &key),
            seen(&service, "ann", "POST /sign-out", ""),
        ]
        .join("\n")
    });
    keep("page-sign-in", &text);
}

/// Of a job, one whose page is not among the unit tests: nothing of it was measured.
#[test]
fn of_jobs_usage_and_administration() {
    pages(&[
        ("jobs", "operator", "GET /jobs", ""),
        ("jobs-of-one", "ann", "GET /jobs?kind=training", ""),
        ("jobs-none", "ann", "GET /jobs?running=true&kind=generation", ""),
        ("job", "ann", "GET /jobs/chat-1", ""),
        ("usage-nothing", "ann", "GET /usage?month=2001-02", ""),
        ("trouble", "ann", "GET /jobs/none-such", ""),
        ("admin", "operator", "GET /admin", ""),
        ("admin-account", "operator", "GET /admin?user=ann", ""),
        ("admin-done", "operator", "GET /admin?user=nobody&done=Done.", ""),
        ("key", "operator", "POST /admin/key", "name=node-8&scope=report&user=&sure=yes"),
    ]);
}

#[test]
fn of_downloads() {
    let text = within_a_day(|| {
        let (service, month) = (full(), month());
        let kinds = ["csv", "json", "focus.csv"];
        kinds.map(|kind| seen(&service, "reader", &format!("GET /usage.{kind}?month={month}"), "")).join("\n")
    });
    keep("downloads", &text);
}

#[test]
fn of_changes_by_administrators() {
    let text = within_a_day(|| {
        let service = full();
        let id = service.key("node").split('_').nth(1).expect("an id").to_owned();
        let revoke = format!("id={id}&user=ann&sure=yes");
        let account = "user=ann&why=w&key=k1";
        [
            seen(&service, "operator", "POST /admin/limit", &format!("{account}&amount=5&sure=yes")),
            seen(&service, "operator", "POST /admin/grant", &format!("{account}&amount=1&sure=yes")),
            seen(&service, "operator", "POST /admin/grant", &format!("{account}&amount=1&sure=yes")),
            seen(&service, "operator", "POST /admin/adjust", &format!("{account}2&amount=-1&sure=yes")),
            seen(&service, "operator", "POST /admin/revoke", &revoke),
            seen(&service, "operator", "POST /admin/rates", &rates("2")),
            seen(&service, "operator", "POST /jobs/chat-1/stop", "why=w"),
        ]
        .join("\n")
    });
    keep("page-changes", &text);
}

fn rates(version: &str) -> String {
    format!(
        "version={version}&cpu_per_second=0.0003&gpu_per_second=0.003&per_million_tokens=6&cpu_weight=1&gpu_weight=1&sure=yes"
    )
}

/// What a page says where something is wrong. The frame around it is that of `page-trouble`.
#[test]
fn of_trouble() {
    let account = "user=ann&why=w&key=k1";
    let asks = [
        ("ann", "GET /jobs?user=bob", String::new()),
        ("ann", "GET /jobs?kind=mining", String::new()),
        ("ann", "GET /jobs/gen-", String::new()),
        ("ann", "GET /usage?user=bob", String::new()),
        ("ann", "GET /usage?month=2001-13", String::new()),
        ("ann", "GET /admin", String::new()),
        ("ann", "POST /jobs/chat-1/stop", "why=w".to_owned()),
        ("operator", "POST /jobs/none-such/stop", "why=w".to_owned()),
        ("operator", "POST /jobs/chat-1/stop", "why=".to_owned()),
        ("operator", "POST /admin/limit", format!("{account}&amount=5")),
        ("operator", "POST /admin/limit", format!("{account}&amount=-5&sure=yes")),
        ("operator", "POST /admin/limit", format!("{account}&amount=much&sure=yes")),
        ("operator", "POST /admin/limit", format!("{account}&amount=5&period=year&sure=yes")),
        ("operator", "POST /admin/grant", "user=ann&why=&key=k1&amount=1&sure=yes".to_owned()),
        ("operator", "POST /admin/grant", format!("{account}&amount=0&sure=yes")),
        ("operator", "POST /admin/revoke", "id=0123456789ab&user=&sure=yes".to_owned()),
        ("operator", "POST /admin/rates", rates("1")),
        ("operator", "POST /admin/rates", rates("2").replace("0.0003", "much")),
        ("operator", "POST /admin/key", "name=&scope=report&user=&sure=yes".to_owned()),
    ];
    let service = full();
    let text = asks.map(|(by, what, form)| essence(&seen(&service, by, what, &form))).join("\n");
    keep("page-troubles", &text);
    let foreign =
        Ask { by: "", what: "POST /sign-out", body: String::new(), headers: &[("sec-fetch-site", "cross-site")] };
    keep("page-of-another-site", &service.exchange(&foreign));
}

/// Without the frame of the page.
fn essence(text: &str) -> String {
    let is_asked = |line: &&str| line.starts_with('>');
    let main = text.split_once("<main").and_then(|(_, rest)| rest.split_once("</main>")).map(|(main, _)| main);
    let status = text.lines().find(|line| !is_asked(line)).unwrap_or_default();
    let main = main.and_then(|main| main.split_once('>')).map_or(text, |(_, main)| main.trim());
    let asked: String = text.lines().filter(is_asked).map(|line| format!("{line}\n")).collect();
    format!("{asked}{status}\n{main}\n")
}

#[test]
fn of_the_status_bar_alone() {
    let text = within_a_day(|| {
        let service = full();
        [
            seen(&service, "ann", "GET /widget/credits", ""),
            seen(&service, "operator", "GET /widget/credits", ""),
            seen(&service, "operator", "GET /widget/credits?user=bob", ""),
            seen(&service, "operator", "GET /widget/credits?user=poor", ""),
        ]
        .join("\n")
    });
    keep("widget", &text);
}
