//! The usage report as cost tools read it: FOCUS 1.2 (FinOps Open Cost and Usage Specification), as CSV.
//!
//! A row is what one account used of one thing on one day. Credits are a virtual currency (`PricingCurrency`), and what is
//! priced are credits, one for one: the unit prices of seconds and tokens may change within a day. No national currency is
//! paid, which ISO 4217 writes as `XXX`.

use super::downloads::quoted;
use crate::domain::units::Nanocredits;
use crate::ledger::views::UsageRow;

/// All columns of FOCUS 1.2, in the order of its specification. What jobmeter has no word for is null.
const COLUMNS: [&str; 57] = [
    "AvailabilityZone",
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "CapacityReservationId",
    "CapacityReservationStatus",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountQuantity",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "CommitmentDiscountUnit",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "InvoiceId",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingCurrency",
    "PricingCurrencyContractedUnitPrice",
    "PricingCurrencyEffectiveCost",
    "PricingCurrencyListUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
];

/// One thing that is charged for.
struct Sku {
    id: &'static str,
    meter: &'static str,
    unit: &'static str,
    category: &'static str,
    subcategory: &'static str,
    of: fn(&UsageRow) -> (Nanocredits, String),
}

const SKUS: [Sku; 3] = [
    Sku {
        id: "cpu",
        meter: "CPU time",
        unit: "Seconds",
        category: "Compute",
        subcategory: "Other (Compute)",
        of: |row| (row.cpu_credits, row.total_virtual_cpu_time.to_string()),
    },
    Sku {
        id: "gpu",
        meter: "GPU time",
        unit: "Seconds",
        category: "Compute",
        subcategory: "Other (Compute)",
        of: |row| (row.gpu_credits, row.total_virtual_gpu_time.to_string()),
    },
    Sku {
        id: "tokens",
        meter: "Tokens",
        unit: "Tokens",
        category: "AI and Machine Learning",
        subcategory: "Generative AI",
        of: |row| (row.token_credits, row.total_tokens_consumed.to_string()),
    },
];

/// The first line of the file.
pub(super) fn head() -> String {
    format!("{}\r\n", COLUMNS.join(","))
}

/// The lines of these rows.
pub(super) fn written(rows: &[UsageRow]) -> String {
    let mut text = String::new();
    for row in rows {
        for sku in &SKUS {
            let (credits, quantity) = (sku.of)(row);
            if credits != Nanocredits::ZERO {
                let cells = COLUMNS.map(|column| cell(column, row, sku, &credits.to_string(), &quantity));
                text.push_str(&cells.join(","));
                text.push_str("\r\n");
            }
        }
    }
    text
}

/// The value of a column; nothing for what is null.
fn cell(column: &str, row: &UsageRow, sku: &Sku, credits: &str, quantity: &str) -> String {
    let month = |text: &str| text.get(..7).map(|month| format!("{month}-01T00:00:00Z")).unwrap_or_default();
    let text = match column {
        "BilledCost"
        | "ContractedCost"
        | "EffectiveCost"
        | "ListCost"
        | "PricingCurrencyEffectiveCost"
        | "PricingQuantity" => credits,
        "ContractedUnitPrice"
        | "ListUnitPrice"
        | "PricingCurrencyContractedUnitPrice"
        | "PricingCurrencyListUnitPrice" => "1.0",
        "BillingAccountId" | "BillingAccountName" | "InvoiceIssuerName" | "ProviderName" | "PublisherName"
        | "ServiceName" => "jobmeter",
        "BillingAccountType" => "Ledger",
        "BillingCurrency" => "XXX",
        "BillingPeriodStart" => return month(&row.period_start),
        "BillingPeriodEnd" => return month_after(&row.period_start),
        "ChargeCategory" => "Usage",
        "ChargeDescription" => return format!("Virtual {} of a day", sku.meter),
        "ChargeFrequency" => "Usage-Based",
        "ChargePeriodStart" => &row.period_start,
        "ChargePeriodEnd" => &row.period_end,
        "ConsumedQuantity" => quantity,
        "ConsumedUnit" => sku.unit,
        "PricingCategory" => "Standard",
        "PricingCurrency" | "PricingUnit" => "Credits",
        "ServiceCategory" => sku.category,
        "ServiceSubcategory" => sku.subcategory,
        "SkuId" | "SkuPriceId" => sku.id,
        "SkuMeter" => sku.meter,
        "SubAccountId" | "SubAccountName" => return quoted(row.user.as_deref()),
        "SubAccountType" => "Account",
        _ => "",
    };
    text.to_owned()
}

/// The start of the month after the one of this time.
fn month_after(rfc3339: &str) -> String {
    let time = rfc3339.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
    let end = crate::domain::calendar::month_end(time);
    jiff::Timestamp::from_second(end).map_or_else(|_| String::new(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::units::Microseconds;

    #[test]
    fn a_row_is_what_was_used_of_one_thing() {
        let row = UsageRow {
            user: Some("ann, the \"first\"".to_owned()),
            period_start: "2026-12-31T00:00:00Z".to_owned(),
            period_end: "2027-01-01T00:00:00Z".to_owned(),
            total_credits: Nanocredits(1_500_000_001),
            total_virtual_cpu_time: Microseconds(2_000_000),
            total_tokens_consumed: 7,
            cpu_credits: Nanocredits(1_500_000_000),
            token_credits: Nanocredits(1),
            ..UsageRow::default()
        };
        let text = head() + &written(&[row]);
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(lines.len(), 3, "no GPU, no row of one");
        assert!(lines.iter().all(|line| line.replace("ann, the", "ann the").split(',').count() == COLUMNS.len()));
        assert!(lines[1].contains("2027-01-01T00:00:00Z,2026-12-01T00:00:00Z"), "{}", lines[1]);
        assert!(lines[1].contains(",1.500000000,Credits,"), "{}", lines[1]);
        assert!(lines[2].contains(",7,Tokens,0.000000001,1.0,"), "{}", lines[2]);
    }
}
