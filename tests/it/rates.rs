//! The rate card over HTTP: a change names the version that it changes, so that of two who change it at once none undoes what
//! the other did.

use serde_json::{Value, json};

use crate::service::Service;

struct Answer {
    status: u16,
    etag: Option<String>,
    body: Value,
}

fn asked(service: &Service, method: &str, if_match: &[&str], body: &Value) -> Answer {
    rustls::crypto::ring::default_provider().install_default().ok();
    let client = reqwest::blocking::Client::builder().no_proxy().build().unwrap();
    let mut request = client.request(method.parse().unwrap(), format!("{}/api/v1/rates", service.url));
    request = request.bearer_auth(&service.admin);
    for value in if_match {
        request = request.header("if-match", *value);
    }
    if !body.is_null() {
        request = request.json(body);
    }
    let response = request.send().unwrap();
    let text = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (status, etag, kind) = (response.status().as_u16(), text("etag"), text("content-type"));
    let is_problem = kind.as_deref() == Some("application/problem+json");
    assert_eq!(is_problem, status >= 400, "{kind:?}");
    Answer { status, etag, body: response.json().unwrap() }
}

fn shown(service: &Service) -> Answer {
    asked(service, "GET", &[], &Value::Null)
}

/// The newest card, with another price of a CPU second.
fn card(service: &Service, cpu_per_second: f64) -> Value {
    let mut card = shown(service).body[0]["rates"].clone();
    card["cpu_per_second"] = json!(cpu_per_second);
    card
}

#[test]
fn a_change_names_the_version_that_it_changes() {
    let service = Service::start();
    let put = |if_match: &[&str], body: &Value| asked(&service, "PUT", if_match, body);
    assert_eq!(shown(&service).etag.as_deref(), Some("\"1\""));
    let (first, second) = (card(&service, 0.001), card(&service, 0.002));
    // Two read version 1: the first changes it, the second is told that it did.
    assert_eq!(put(&["\"1\""], &first).status, 200);
    let refused = put(&["\"1\""], &second);
    assert_eq!((refused.status, &refused.body["type"]), (412, &json!("urn:jobmeter:problem:precondition-failed")));
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains("version 2") && detail.contains("version 1") && detail.contains("rates show"), "{detail}");
    let now = shown(&service);
    assert_eq!((now.etag.as_deref(), now.body.as_array().unwrap().len()), (Some("\"2\""), 2));
    // The header counts, whatever the body says, and one tag of several is enough.
    assert_eq!(put(&["\"2\""], &second).status, 200);
    assert_eq!(put(&["\"1\", \"3\""], &first).status, 200);
    assert_eq!(put(&["\"1\"", "\"4\""], &second).status, 200);
    // A weak tag names no version for certain.
    for other in ["W/\"5\"", "\"6\"", "\"05\"", "\"words\"", "\"\"", "\"99999999999999999999\"", "\"1\", \"2\""] {
        assert_eq!(put(&[other], &card(&service, 0.003)).status, 412, "{other}");
    }
    for wrong in ["5", "", "\"5", "words", "\"5\" \"6\"", "*, \"5\"", "\"5\",,x"] {
        let refused = put(&[wrong], &card(&service, 0.003));
        assert_eq!((refused.status, &refused.body["type"]), (400, &json!("urn:jobmeter:problem:malformed")), "{wrong}");
        assert!(refused.body["detail"].as_str().unwrap().contains("If-Match"), "{}", refused.body);
    }
    assert_eq!(shown(&service).etag.as_deref(), Some("\"5\""));
    service.verify();
}

/// Without the header, and where it names any version there is, the body says which version it changes.
#[test]
fn without_the_header_the_version_in_the_body_counts() {
    let service = Service::start();
    let first = card(&service, 0.001);
    let second = card(&service, 0.002);
    assert_eq!(asked(&service, "PUT", &[], &first).status, 200);
    for if_match in [&[][..], &["*"]] {
        let refused = asked(&service, "PUT", if_match, &second);
        assert_eq!((refused.status, &refused.body["type"]), (409, &json!("urn:jobmeter:problem:refused")));
    }
    assert_eq!(asked(&service, "PUT", &["*"], &card(&service, 0.002)).status, 200);
    assert_eq!(shown(&service).etag.as_deref(), Some("\"3\""));
}

#[test]
fn the_same_card_again_makes_no_new_version() {
    let service = Service::start();
    for if_match in [&[][..], &["\"1\""], &["*"]] {
        let same = shown(&service).body[0]["rates"].clone();
        let answer = asked(&service, "PUT", if_match, &same);
        assert_eq!((answer.status, &answer.body["again"]), (200, &json!(true)), "{if_match:?}");
    }
    let same = service.call(&service.admin, &["rates", "set", "--cpu-per-second", "0.00025"]);
    assert_eq!(same.status, 0, "{same:?}");
    let now = shown(&service);
    assert_eq!((now.etag.as_deref(), now.body.as_array().unwrap().len()), (Some("\"1\""), 1));
}

#[test]
fn the_precondition_is_documented() {
    let service = Service::start();
    let document = service.ask("", "GET", "/api/v1/openapi.json", "").1;
    let put = &document["paths"]["/api/v1/rates"]["put"];
    let has_header = |parameter: &Value| parameter["name"] == "if-match" && parameter["in"] == "header";
    assert!(put["parameters"].as_array().unwrap().iter().any(has_header), "{put}");
    for status in ["400", "412"] {
        assert!(put["responses"][status]["content"]["application/problem+json"].is_object(), "{status}: {put}");
    }
    let get = &document["paths"]["/api/v1/rates"]["get"];
    assert!(get["responses"]["200"]["headers"]["etag"].is_object(), "{get}");
}
