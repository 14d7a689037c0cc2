//! How an account stands: what could be spent, what was charged, and what is left.

use super::units::Nanocredits;

/// An account as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What could be spent in the period; `None` without a limit.
    pub limit: Option<Nanocredits>,
    /// For what was used in the period, whatever paid.
    pub charged: Nanocredits,
    /// By corrections and debt: zero at most.
    pub corrected: Nanocredits,
    /// Not charged yet, less what is owed; `None` without a limit.
    pub left: Option<Nanocredits>,
    /// For new leases; `None` without a limit.
    pub free: Option<Nanocredits>,
    /// Of this period's allowance and of grants.
    pub held: Nanocredits,
    /// What the account owes, zero or more.
    pub debt: Nanocredits,
    /// Whether an operator has suspended it.
    pub suspended: bool,
}
