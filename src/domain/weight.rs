//! Weights of GPU models: how many virtual seconds one second of a device counts as.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The weight of all devices whose name fits a pattern. A MIG device is named as its parent with its profile behind it,
/// as NVML does: `NVIDIA H100 80GB HBM3 MIG 1g.10gb`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GpuWeight {
    /// The whole name, where `*` stands for any text; capital and small letters are the same.
    pub pattern: String,
    /// Parts per million.
    pub weight_ppm: u64,
}

impl GpuWeight {
    /// Whether the pattern is that of a device of this name.
    #[must_use]
    pub fn fits(&self, model: &str) -> bool {
        let (pattern, model) = (self.pattern.to_lowercase(), model.to_lowercase());
        let mut parts = pattern.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = model.strip_prefix(first) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        for part in parts {
            let Some((_, behind)) = rest.split_once(part) else { return false };
            rest = behind;
        }
        rest.ends_with(last)
    }

    /// Whether the pattern fits one of [`UNREAD_MODELS`] by a word that is its own.
    fn names(&self, model: &str) -> bool {
        let own = match model {
            AMD => "amd",
            INTEL => "intel",
            _ => "jetson",
        };
        self.fits(model) && self.pattern.to_lowercase().contains(own)
    }
}

/// GPUs whose busy time cannot be read. They are charged by the time for which a job has them, and where a rate card says so alone.
pub const UNREAD_MODELS: [&str; 3] = [AMD, INTEL, JETSON];
/// One of AMD's, whatever its generation.
pub const AMD: &str = "AMD GPU";
/// One of Intel's that can compute, integrated or not.
pub const INTEL: &str = "Intel GPU";
/// A board on which CPU and GPU share the memory.
pub const JETSON: &str = "NVIDIA Jetson";

/// The first of `weights` that fits decides, else `otherwise_ppm`; of [`UNREAD_MODELS`], else nothing.
#[must_use]
pub fn weight_of(weights: &[GpuWeight], otherwise_ppm: u64, model: &str) -> u64 {
    if UNREAD_MODELS.contains(&model) {
        // A pattern that fits all is older than these, and means them no more than the weight of all others does.
        return weights.iter().find(|weight| weight.names(model)).map_or(0, |weight| weight.weight_ppm);
    }
    weights.iter().find(|weight| weight.fits(model)).map_or(otherwise_ppm, |weight| weight.weight_ppm)
}

/// The weights of so many devices of each model, added up.
#[must_use]
pub fn weight_of_all(weights: &[GpuWeight], otherwise_ppm: u64, models: &BTreeMap<String, u64>) -> u64 {
    let of = |(model, count): (&String, &u64)| weight_of(weights, otherwise_ppm, model).saturating_mul(*count);
    models.iter().map(of).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_charged_where_it_is_named() {
        let of = |pattern: &str, model: &str| {
            weight_of(&[GpuWeight { pattern: pattern.to_owned(), weight_ppm: 7 }], 1_000_000, model)
        };
        for model in UNREAD_MODELS {
            assert_eq!((of("*", model), of("NVIDIA*", model), of("*H200*", model), of(model, model)), (0, 0, 0, 7));
        }
        assert_eq!((of("amd*", AMD), of("*Jetson", JETSON), of("Intel*", AMD), of("*", "NVIDIA H200")), (7, 7, 0, 7));
    }

    fn fits(pattern: &str, model: &str) -> bool {
        GpuWeight { pattern: pattern.to_owned(), weight_ppm: 1 }.fits(model)
    }

    #[test]
    fn patterns_are_of_whole_names() {
        let slice = "NVIDIA H100 80GB HBM3 MIG 1g.10gb";
        for (pattern, model, expected) in [
            ("NVIDIA A10", "NVIDIA A10", true),
            ("NVIDIA A10", "NVIDIA A100-SXM4-40GB", false),
            ("*A10*", "NVIDIA A100-SXM4-40GB", true),
            ("*h100*", slice, true),
            ("*MIG 1g.10gb", slice, true),
            ("*MIG 1g.10gb", "NVIDIA H100 80GB HBM3", false),
            ("NVIDIA*HBM3*1g*", slice, true),
            ("NVIDIA*1g*HBM3*", slice, false),
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, model), expected, "{pattern:?} {model:?}");
        }
    }

    #[test]
    fn the_first_that_fits_decides() {
        let weight = |pattern: &str, weight_ppm| GpuWeight { pattern: pattern.to_owned(), weight_ppm };
        let weights = [weight("*MIG 1g.*", 140_000), weight("*H100*", 3_000_000)];
        let models: BTreeMap<String, u64> =
            [("NVIDIA H100".to_owned(), 2), ("NVIDIA H100 MIG 1g.10gb".to_owned(), 3), ("Tesla T4".to_owned(), 1)]
                .into();
        assert_eq!(weight_of_all(&weights, 1_000_000, &models), 6_000_000 + 420_000 + 1_000_000);
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn a_pattern_fits_what_it_was_made_of(parts in proptest::collection::vec("[a-c]{0,3}", 1..5), fill in "[a-c]{0,4}") {
            let (pattern, model) = (parts.join("*"), parts.join(&fill));
            prop_assert!(fits(&pattern, &model), "{pattern:?} {model:?}");
            prop_assert!(parts.len() > 1 || fits(&pattern, &pattern));
        }
    }
}
