//! What comes over HTTP and from a relay as JSON: read, it says the same when it is written and read again; priced, its parts sum up.

use jobmeter::domain::rating::RateCard;
use jobmeter::domain::usage::Usage;
use jobmeter::ledger::protocol::{Finish, FinishAnswer, OpenAnswer, OpenRequest, Report, ReportAnswer};
use jobmeter::ledger::relay::{FromRelay, ToRelay};
use jobmeter::ledger::views::{AccountView, Change, ChangeAnswer, JobView, Query};
use serde_json::{from_slice, to_vec};

fn priced(card: &RateCard, usage: &Usage) {
    let price = card.price(usage);
    assert_eq!(price.cpu.0 + price.gpu.0 + price.tokens.0, price.total.0);
    assert_eq!(usage.merged(usage), *usage);
}

macro_rules! read_again {
    ($data:expr, $($kind:ty),*) => {
        $(if let Ok(read) = from_slice::<$kind>($data) {
            let written = to_vec(&read).expect("it can be written");
            assert_eq!(from_slice::<$kind>(&written).expect("it can be read again"), read);
        })*
    };
}

/// What compares by what it is written as.
fn said_again<T: serde::Serialize + serde::de::DeserializeOwned>(data: &[u8]) {
    if let Ok(read) = from_slice::<T>(data) {
        let written = to_vec(&read).expect("it can be written");
        let again = from_slice::<T>(&written).expect("it can be read again");
        assert_eq!(to_vec(&again).expect("it can be written"), written);
    }
}

pub fn check(data: &[u8]) {
    said_again::<ToRelay>(data);
    said_again::<FromRelay>(data);
    read_again!(data, OpenRequest, OpenAnswer, Report, ReportAnswer, Finish, FinishAnswer, Change, ChangeAnswer, Query);
    read_again!(data, AccountView, JobView, RateCard, Usage);
    if let Ok(usage) = from_slice::<Usage>(data) {
        priced(&RateCard::default(), &usage);
    }
    if let Ok(card) = from_slice::<RateCard>(data) {
        priced(&card, &Usage { tokens: u64::MAX, ..Usage::default() });
    }
}
