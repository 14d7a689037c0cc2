//! `jobmeter rates`: the rate card and its versions.

use std::process::ExitCode;

use super::args::{Rates, RatesSet};
use super::output::{Failure, Output, Style};
use super::settings::Settings;
use crate::domain::printable::printable;
use crate::domain::rating::{CpuBasis, GpuBasis, RateCard};
use crate::domain::units::Microseconds;
use crate::ledger::views::{Change, Query, RatesView, View};
use crate::ledger::{Ledger, LedgerError};
use crate::runner::summary::credits;

pub(super) fn rates(rates: &Rates, settings: &Settings, out: &Output) -> Result<ExitCode, Failure> {
    let mut ledger = match rates {
        Rates::Show => settings.connect_to_read()?,
        Rates::Set(_) => settings.connect()?,
    };
    if let Rates::Set(set) = rates {
        let newest = versions(ledger.as_mut())?.first().map(|version| version.rates.clone()).unwrap_or_default();
        ledger.change(&Change::SetRates { rates: changed(newest, set), by: settings.by.clone() })?;
    }
    let versions = versions(ledger.as_mut())?;
    out.print(&versions, |style| text(&versions, style))
}

fn versions(ledger: &mut dyn Ledger) -> Result<Vec<RatesView>, Failure> {
    match ledger.read(&Query::Rates)? {
        View::Rates(versions) => Ok(versions),
        _ => Err(LedgerError::unasked().into()),
    }
}

/// What was not named stays as it is.
fn changed(card: RateCard, set: &RatesSet) -> RateCard {
    let ppm = |weight: Option<Microseconds>, before: u64| weight.map_or(before, |weight| weight.0);
    RateCard {
        version: card.version,
        cpu_per_second: set.cpu_per_second.unwrap_or(card.cpu_per_second),
        gpu_per_second: set.gpu_per_second.unwrap_or(card.gpu_per_second),
        per_million_tokens: set.per_million_tokens.unwrap_or(card.per_million_tokens),
        cpu_weight_ppm: ppm(set.cpu_weight, card.cpu_weight_ppm),
        gpu_weight_ppm: ppm(set.gpu_weight, card.gpu_weight_ppm),
        gpu_weights: if set.gpu_models.is_empty() {
            card.gpu_weights
        } else {
            set.gpu_models.iter().flatten().cloned().collect()
        },
        cpu_basis: set.cpu_basis.unwrap_or(card.cpu_basis),
        gpu_basis: set.gpu_basis.unwrap_or(card.gpu_basis),
        gpu_holding_ppm: ppm(set.gpu_holding, card.gpu_holding_ppm),
    }
}

fn text(versions: &[RatesView], style: &Style) -> String {
    let weight = |ppm: u64| Microseconds(ppm).to_string().trim_end_matches('0').trim_end_matches('.').to_owned();
    let row = |version: &RatesView| {
        let card = &version.rates;
        vec![
            card.version.to_string(),
            credits(card.cpu_per_second),
            credits(card.gpu_per_second),
            credits(card.per_million_tokens),
            weight(card.cpu_weight_ppm),
            weight(card.gpu_weight_ppm),
            match card.cpu_basis {
                CpuBasis::Used => "used",
                CpuBasis::Allocated => "allocated",
                CpuBasis::Max => "max",
            }
            .to_owned(),
            match card.gpu_basis {
                GpuBasis::Busy if card.gpu_holding_ppm > 0 => format!("busy, idle × {}", weight(card.gpu_holding_ppm)),
                GpuBasis::Busy => "busy".to_owned(),
                GpuBasis::Allocated => "allocated".to_owned(),
            },
            version.since.clone(),
            version.by.clone(),
        ]
    };
    let header = [
        "VERSION",
        "PER CPU S",
        "PER GPU S",
        "PER M TOKENS",
        "CPU ×",
        "GPU ×",
        "CPU BASIS",
        "GPU BASIS",
        "SINCE",
        "BY",
    ];
    let mut text = style.table(&header, &versions.iter().map(row).collect::<Vec<_>>());
    for of in versions.first().map(|version| version.rates.gpu_weights.as_slice()).unwrap_or_default() {
        text.push_str(&format!("GPU × {} for {}\n", weight(of.weight_ppm), printable(&of.pattern)));
    }
    text
}
