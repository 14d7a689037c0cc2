//! A browser's session: what it opens, how it is made, and how it ends.

use std::process::Child;

use nix::sys::signal::Signal;
use reqwest::blocking::{Client, Response};
use reqwest::redirect::Policy;

use crate::service::{Service, own_address, serve};
use crate::station::Station;

/// Another service on the same database.
pub(crate) struct Replica {
    child: Child,
    pub(crate) url: String,
}

impl Replica {
    pub(crate) fn of(service: &Service) -> Self {
        let (child, url) = serve(&service.station, &own_address(), &[]);
        Self { child, url }
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(crate) fn client() -> Client {
    rustls::crypto::ring::default_provider().install_default().ok();
    Client::builder().no_proxy().redirect(Policy::none()).build().unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// What a form of a page of ours sends, with these cookies.
pub(crate) fn form(url: &str, cookie: &str, body: String) -> Response {
    let request = client().post(url).header("sec-fetch-site", "same-origin").header("cookie", cookie);
    request.header("content-type", "application/x-www-form-urlencoded").body(body).send().unwrap()
}

fn cookies_set(response: &Response) -> Vec<&str> {
    response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect()
}

/// Signs in: the cookie as the browser sends it from now on.
pub(crate) fn sign_in(url: &str, key: &str) -> String {
    let answer = form(&format!("{url}/sign-in"), "", format!("key={key}&next=/usage"));
    assert_eq!((answer.status().as_u16(), header(&answer, "location")), (303, "/usage"));
    cookies_set(&answer)[0].split(';').next().unwrap().to_owned()
}

fn status(method: &str, url: &str, cookie: &str) -> u16 {
    client().request(method.parse().unwrap(), url).header("cookie", cookie).send().unwrap().status().as_u16()
}

/// Whether this cookie opens the pages; else they lead to where one signs in.
fn opens(url: &str, cookie: &str) -> bool {
    let answer = client().get(format!("{url}/usage")).header("cookie", cookie).send().unwrap();
    let led = header(&answer, "location");
    match answer.status().as_u16() {
        200 => true,
        303 if led.starts_with("/sign-in?next=") => false,
        other => panic!("{other} {led}"),
    }
}

pub(crate) fn id_of(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

#[test]
fn a_session_is_a_token_of_its_own() {
    let mut service = Service::start();
    let alice = service.key(&["a", "--scope", "read", "--only-user", "--user", "alice"]);
    let answer = form(&format!("{}/sign-in", service.url), "", format!("key={alice}&next=/usage"));
    let cookies = cookies_set(&answer);
    let [cookie] = cookies[..] else { panic!("{cookies:?}") };
    let mut parts = cookie.split("; ");
    let pair = parts.next().unwrap();
    let token = pair.strip_prefix("jobmeter-session=").unwrap();
    assert_eq!(parts.collect::<Vec<_>>(), ["Path=/", "HttpOnly", "SameSite=Lax", "Max-Age=43200"]);
    assert!(token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit()) && !cookie.contains(&alice));
    // It reads what the key reads, and no more.
    assert!(opens(&service.url, pair));
    assert_eq!(status("GET", &format!("{}/api/v1/users/alice/credits", service.url), pair), 200);
    assert_eq!(status("GET", &format!("{}/api/v1/users/bob/credits", service.url), pair), 404);
    assert_eq!(status("GET", &format!("{}/admin", service.url), pair), 403);
    // What a browser shows to a proxy in front is none of our business.
    let rates = client().get(format!("{}/api/v1/rates", service.url)).header("cookie", pair);
    assert_eq!(rates.basic_auth("alice", Some("word")).send().unwrap().status().as_u16(), 200);
    // Neither does the key open pages as a cookie, nor the token anything as a key.
    for other in [format!("jobmeter-session={alice}"), format!("jobmeter-key={alice}"), "jobmeter-session=".to_owned()]
    {
        assert!(!opens(&service.url, &other), "{other}");
    }
    assert_eq!(service.ask(token, "GET", "/api/v1/rates", "").0, 401);
    // A restart of the service ends no session. What it keeps of one opens nothing.
    service.signal(Signal::SIGTERM);
    service.again();
    assert!(opens(&service.url, pair));
    for entry in std::fs::read_dir(service.station.path(".")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("service.db") && !name.ends_with("key") {
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!bytes.windows(token.len()).any(|part| part == token.as_bytes()), "the token is in {name}");
        }
    }
}

#[test]
fn signing_out_ends_a_session_and_signing_in_again_the_one_before() {
    let service = Service::start();
    let (first, other) = (sign_in(&service.url, &service.admin), sign_in(&service.url, &service.admin));
    assert_ne!(first, other);
    let again = form(&format!("{}/sign-in", service.url), &first, format!("key={}", service.admin));
    let second = cookies_set(&again)[0].split(';').next().unwrap().to_owned();
    assert!(!opens(&service.url, &first) && opens(&service.url, &second) && opens(&service.url, &other));
    // A form of another site does neither.
    for path in ["sign-out", "sign-in", "admin/revoke"] {
        let request = client().post(format!("{}/{path}", service.url)).header("cookie", &second);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body("key=x&id=x&user=");
        let cross = request.header("sec-fetch-site", "cross-site").send().unwrap();
        assert_eq!((cross.status().as_u16(), cookies_set(&cross).len()), (403, 0), "{path}");
    }
    assert!(opens(&service.url, &second));
    let out = form(&format!("{}/sign-out", service.url), &second, String::new());
    let cleared = "jobmeter-session=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0";
    assert_eq!((out.status().as_u16(), header(&out, "location"), cookies_set(&out)), (303, "/sign-in", vec![cleared]));
    assert!(!opens(&service.url, &second) && opens(&service.url, &other));
    assert_eq!(status("GET", &format!("{}/api/v1/rates", service.url), &second), 401);
    // Who has none is signed out already.
    assert_eq!(form(&format!("{}/sign-out", service.url), "", String::new()).status().as_u16(), 303);
}

/// What an earlier version left in a browser is a key, and good for a month.
#[test]
fn the_key_in_an_old_cookie_is_taken_out_of_the_browser() {
    let service = Service::start();
    let old = format!("jobmeter-key={}", service.admin);
    let asked = client().get(format!("{}/sign-in", service.url)).header("cookie", &old).send().unwrap();
    assert_eq!(cookies_set(&asked), ["jobmeter-key=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"]);
    let plain = client().get(format!("{}/sign-in", service.url)).send().unwrap();
    assert_eq!(cookies_set(&plain), Vec::<&str>::new());
}

/// The cookie alone, which a browser sends by itself, changes nothing by the API.
#[test]
fn a_session_changes_nothing_but_by_forms_of_our_own() {
    let service = Service::start();
    let session = sign_in(&service.url, &service.admin);
    for (method, path) in
        [("PUT", "api/v1/rates"), ("POST", "api/v1/keys"), ("DELETE", "api/v1/keys/x"), ("POST", "api/v1/jobs/x/stop")]
    {
        assert_eq!(status(method, &format!("{}/{path}", service.url), &session), 401, "{method} {path}");
    }
    let limit = "user=ann&amount=2&period=day&why=w&key=k&sure=yes";
    let url = format!("{}/admin/limit", service.url);
    let request = client().post(&url).header("content-type", "application/x-www-form-urlencoded").body(limit);
    assert_eq!(request.header("cookie", &session).send().unwrap().status().as_u16(), 403, "nobody says where it was");
    assert_eq!(form(&url, &session, limit.to_owned()).status().as_u16(), 303);
}

/// Two replicas on one database: what is made on one is known on the other, and ends there as well, with the key at once.
#[test]
fn every_replica_knows_every_session() {
    let service = Service::start();
    let replica = Replica::of(&service);
    let other = &replica.url;
    let alice = service.key(&["a", "--scope", "admin"]);
    let [first, left] = [sign_in(&service.url, &alice), sign_in(other, &alice)];
    for url in [&service.url, other] {
        assert!(opens(url, &first) && opens(url, &left), "{url}");
    }
    form(&format!("{other}/sign-out"), &first, String::new());
    for url in [&service.url, other] {
        assert!(!opens(url, &first) && opens(url, &left), "{url}");
    }
    service.json(&["key", "revoke", id_of(&alice)]);
    for url in [&service.url, other] {
        assert!(!opens(url, &left), "{url}");
    }
    let again = form(&format!("{}/sign-in", service.url), "", format!("key={alice}"));
    assert!(again.status().as_u16() == 401 || !opens(&service.url, cookies_set(&again)[0]), "a revoked key signs in");
}

#[test]
fn with_tls_the_cookie_is_bound_to_this_host() {
    let station = Station::new();
    let made = station
        .sh("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
         -addext subjectAltName=IP:127.0.0.1 -keyout $DIR/key.pem -out $DIR/cert.pem 2>&1");
    assert_eq!(made.status, 0, "{made:?}");
    let (certificate, private) = (station.path("cert.pem"), station.path("key.pem"));
    let tls = ["--tls-certificate", certificate.to_str().unwrap(), "--tls-key", private.to_str().unwrap()];
    let (child, url) = serve(&station, "127.0.0.1:0", &tls);
    let service = Service::at(station, child, url);
    let curl = |arguments: &[&str]| {
        let mut curl = service.station.program("curl");
        let told =
            curl.args(["-ks", "-o", "/dev/null", "-D", "-"]).args(arguments).output().expect("curl is installed");
        String::from_utf8(told.stdout).unwrap()
    };
    let key = format!("key={}", service.admin);
    let same = "sec-fetch-site: same-origin";
    let told = curl(&["-H", same, "-d", &key, &format!("{}/sign-in", service.url)]);
    let cookie = told.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap_or_else(|| panic!("{told}"));
    let (pair, rest) = cookie.trim().split_once("; ").unwrap();
    assert!(pair.starts_with("__Host-jobmeter-session="), "{cookie}");
    assert_eq!(rest, "Path=/; HttpOnly; SameSite=Lax; Max-Age=43200; Secure");
    let usage = format!("{}/usage", service.url);
    assert!(curl(&["-b", pair, &usage]).contains(" 200"));
    // One without the prefix may be another host's.
    let tossed = pair.strip_prefix("__Host-").unwrap();
    assert!(curl(&["-b", tossed, &usage]).contains("location: /sign-in"));
}
