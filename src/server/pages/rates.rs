//! The rate card: shown, and changed to a new version.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::super::api::try_change;
use super::super::problem::Problem;
use super::super::reads::newest_rates;
use super::super::sent::{self, Filled};
use super::super::{App, bounds};
use super::admin::confirmed;
use super::session::Visitor;
use super::{encoded, page_or};
use crate::domain::rating::RateCard;
use crate::domain::units::{Microseconds, Nanocredits};
use crate::ledger::LedgerError;
use crate::ledger::views::{Change, RatesView};

/// As it stands on the page.
pub(super) struct Rates {
    pub(super) version: u64,
    pub(super) by: String,
    /// What can be changed here: the name of the field, what it is, its value.
    pub(super) fields: [(&'static str, &'static str, String); 5],
    /// What is changed by the command line.
    pub(super) others: Vec<(String, String)>,
}

/// A weight has six digits as a time has.
fn weight(ppm: u64) -> String {
    Microseconds(ppm).to_string()
}

impl From<RatesView> for Rates {
    fn from(newest: RatesView) -> Self {
        let card = newest.rates;
        let mut others = vec![
            ("CPU time that is priced".to_owned(), word(&card.cpu_basis)),
            ("GPU time that is priced".to_owned(), word(&card.gpu_basis)),
        ];
        if card.gpu_holding_ppm > 0 {
            others.push(("Weight of a GPU that is held and idle".to_owned(), weight(card.gpu_holding_ppm)));
        }
        others.extend(card.gpu_weights.iter().map(|of| (format!("Weight of {}", of.pattern), weight(of.weight_ppm))));
        Self {
            version: card.version,
            by: newest.by,
            fields: [
                ("cpu_per_second", "A, per virtual CPU second", card.cpu_per_second.to_string()),
                ("gpu_per_second", "B, per virtual GPU second", card.gpu_per_second.to_string()),
                ("per_million_tokens", "Per million tokens", card.per_million_tokens.to_string()),
                ("cpu_weight", "Weight of a CPU", weight(card.cpu_weight_ppm)),
                ("gpu_weight", "Weight of another GPU", weight(card.gpu_weight_ppm)),
            ],
            others,
        }
    }
}

/// The word by which the API says it.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[derive(Deserialize)]
pub(super) struct Given {
    /// Which version was on the page.
    version: u64,
    cpu_per_second: String,
    gpu_per_second: String,
    per_million_tokens: String,
    cpu_weight: String,
    gpu_weight: String,
    sure: Option<String>,
}

pub(super) async fn set(
    State(app): State<Arc<App>>,
    visitor: Visitor,
    Filled(given): Filled<Given, { sent::CHANGE }>,
) -> Response {
    let made = changed(&app, &visitor, given).await;
    page_or(&app, &visitor, made).await
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(what: &str, text: &str) -> Result<T, Problem> {
    text.trim().parse().map_err(|error: T::Err| Problem::malformed(format!("{what}: {error}")))
}

/// Somebody else has changed it since the page was made.
fn outdated(newest: &str, seen: u64) -> Problem {
    Problem::precondition_failed(format!(
        "nothing was changed: the rate card is at {newest} by now, and the page showed {seen}: open the page again, and repeat \
         your change"
    ))
}

async fn changed(app: &Arc<App>, visitor: &Visitor, given: Given) -> Result<Response, Problem> {
    visitor.caller.may_administer()?;
    confirmed(given.sure.as_deref())?;
    let before = newest_rates(app).await?.rates;
    let seen = given.version;
    if before.version != seen {
        return Err(outdated(&format!("version {}", before.version), seen));
    }
    let price = |what: &str, text: &str| parsed::<Nanocredits>(what, text);
    let ppm = |what: &str, text: &str| parsed::<Microseconds>(what, text).map(|weight| weight.0);
    let rates = RateCard {
        cpu_per_second: price("A", &given.cpu_per_second)?,
        gpu_per_second: price("B", &given.gpu_per_second)?,
        per_million_tokens: price("the price of a million tokens", &given.per_million_tokens)?,
        cpu_weight_ppm: ppm("the weight of a CPU", &given.cpu_weight)?,
        gpu_weight_ppm: ppm("the weight of a GPU", &given.gpu_weight)?,
        ..before
    };
    bounds::rates(&rates)?;
    match try_change(app, &visitor.caller, Change::SetRates { rates, by: visitor.caller.name() }).await {
        // In between.
        Err(LedgerError::Outdated(_)) => return Err(outdated("a newer version", seen)),
        made => made?,
    };
    let done = encoded("A new rate card counts for what starts from now on.");
    Ok(Redirect::to(&format!("/admin?done={done}")).into_response())
}
