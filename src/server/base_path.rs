//! The path below which the service stands where it shares a host with others, as behind a proxy.
//!
//! A proxy passes on the whole path. Handlers know nothing of it: it is taken from what is asked, and put before what an
//! answer leads to: `Location`, the path of cookies, and what pages name from the root.

use std::fmt;
use std::str::FromStr;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};

use crate::ledger::LedgerError;

/// No page is longer.
const PAGE_MAX_BYTES: usize = 64 << 20;
/// The attributes by which pages name what is elsewhere. No value holds a quotation mark that is not escaped, so that none of
/// them stands in one.
const ATTRIBUTES: [&str; 4] = [" href=\"/", " action=\"/", " src=\"/", " data-url=\"/"];

/// A path such as `/jobmeter`, without a slash at its end; empty for the root of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BasePath(String);

impl fmt::Display for BasePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BasePath {
    type Err = LedgerError;

    fn from_str(text: &str) -> Result<Self, LedgerError> {
        let path = text.strip_suffix('/').unwrap_or(text);
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._~".contains(letter);
        let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.chars().all(is_plain);
        let is_path = path.strip_prefix('/').is_some_and(|parts| parts.split('/').all(is_part));
        if is_path || text == "/" {
            return Ok(Self(path.to_owned()));
        }
        let expected = "expected a path such as /jobmeter, of letters, digits and -._~";
        Err(LedgerError::Refused(expected.to_owned()))
    }
}

impl BasePath {
    /// Whether it is the root of the host.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// These routes below the path.
    pub(super) fn before(&self, routes: Router) -> Router {
        if self.is_root() {
            return routes;
        }
        let base = self.clone();
        let routes = routes.layer(map_response(move |response| {
            let base = base.clone();
            async move { base.led(response).await }
        }));
        Router::new().nest_service(&self.0, routes)
    }

    /// The answer, which leads to places below the path.
    async fn led(&self, mut response: Response) -> Response {
        self.lead_headers(response.headers_mut());
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("text/html") {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let Ok(page) = to_bytes(body, PAGE_MAX_BYTES).await else {
            tracing::error!("A page is too long.");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        parts.headers.remove(CONTENT_LENGTH);
        Response::from_parts(parts, Body::from(self.page(&String::from_utf8_lossy(&page))))
    }

    fn lead_headers(&self, headers: &mut HeaderMap) {
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let target = headers.get(LOCATION).map(text).filter(|to| to.starts_with('/') && !to.starts_with("//"));
        // Made of what were values of headers, and of letters that may stand in one.
        if let Some(value) = target.and_then(|to| HeaderValue::from_str(&format!("{}{to}", self.0)).ok()) {
            headers.insert(LOCATION, value);
        }
        let cookies: Vec<String> = headers.get_all(SET_COOKIE).iter().map(text).collect();
        headers.remove(SET_COOKIE);
        for cookie in cookies {
            if let Ok(value) = HeaderValue::from_str(&self.cookie(cookie)) {
                headers.append(SET_COOKIE, value);
            }
        }
    }

    /// Browsers take one that begins with `__Host-` for the whole host alone.
    fn cookie(&self, cookie: String) -> String {
        if cookie.starts_with("__Host-") {
            return cookie;
        }
        cookie.replace("; Path=/;", &format!("; Path={};", self.0))
    }

    fn page(&self, page: &str) -> String {
        ATTRIBUTES.iter().fold(page.to_owned(), |page, attribute| {
            let (name, slash) = attribute.split_at(attribute.len() - 1);
            page.replace(attribute, &format!("{name}{}{slash}", self.0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_of_plain_parts() {
        for (text, path) in [("/jobmeter", "/jobmeter"), ("/a/b.c/", "/a/b.c"), ("/", "")] {
            assert_eq!(text.parse::<BasePath>().unwrap().to_string(), path);
        }
        for wrong in ["", "jobmeter", "//", "/a//b", "/a/../b", "/{job}", "/a b", "/a%20b", "https://host/a"] {
            assert!(wrong.parse::<BasePath>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_an_answer_leads_to_is_below_the_path() {
        let base: BasePath = "/jobmeter".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static("/sign-in?next=%2Fjobs"));
        for cookie in ["session=a; Path=/; HttpOnly", "__Host-session=a; Path=/; Secure"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(cookie));
        }
        base.lead_headers(&mut headers);
        assert_eq!(headers[LOCATION], "/jobmeter/sign-in?next=%2Fjobs");
        let cookies: Vec<&HeaderValue> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(cookies, ["session=a; Path=/jobmeter; HttpOnly", "__Host-session=a; Path=/; Secure"]);
        let page = "<a href=\"/jobs\">/jobs</a><form action=\"/x\" title=\"&#34; href=&#34;/\"><a href=\"#main\">";
        let led = "<a href=\"/jobmeter/jobs\">/jobs</a><form action=\"/jobmeter/x\" title=\"&#34; href=&#34;/\"><a href=\"#main\">";
        assert_eq!(base.page(page), led);
    }
}
