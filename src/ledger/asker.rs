//! Who asks for something: for whom they work, and whose attempts and jobs they may change.

/// Somebody who asks a ledger for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The node, cluster or service whose work they do: what they open belongs to it. Empty without a service.
    pub principal: String,
    /// What of the books they may change.
    pub reach: Reach,
}

/// Whose attempts and jobs somebody may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everybody's: an operator's.
    All,
    /// Those of this account, whoever has opened them.
    Owner(String),
    /// Those of the asker's own principal, for whatever account.
    Principal,
}

/// Whoever has the database itself. No rule keeps them from anything.
pub static DIRECT: Asker = Asker { principal: String::new(), reach: Reach::All };

impl Asker {
    /// Whether they may change what this principal has for this account.
    #[must_use]
    pub fn reaches(&self, owner: &str, principal: &str) -> bool {
        match &self.reach {
            Reach::All => true,
            Reach::Owner(own) => own == owner,
            Reach::Principal => self.principal == principal,
        }
    }

    /// Whether they may go on with an attempt. One of before there were principals has none: its secret says whose it is.
    #[must_use]
    pub fn may_go_on_with(&self, owner: &str, principal: &str) -> bool {
        self.reaches(owner, principal) || (self.reach == Reach::Principal && principal.is_empty())
    }

    /// Whether they may say an attempt's last word: its spool may be flushed by a key of another principal, with the secret that it has.
    #[must_use]
    pub fn may_finish(&self, owner: &str, principal: &str, knows_secret: bool) -> bool {
        self.may_go_on_with(owner, principal) || (self.reach == Reach::Principal && knows_secret)
    }

    /// Whether they may open attempts for this account.
    #[must_use]
    pub fn may_open_for(&self, owner: &str) -> bool {
        !matches!(&self.reach, Reach::Owner(own) if own != owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reach_ends_where_it_says() {
        let of = |reach: Reach| Asker { principal: "node-1".to_owned(), reach };
        for (reach, [own, others, of_before, bobs]) in [
            (Reach::All, [true, true, true, true]),
            (Reach::Owner("ann".to_owned()), [true, true, true, false]),
            (Reach::Principal, [true, false, false, true]),
        ] {
            let asker = of(reach);
            let reaches = |owner: &str, principal: &str| asker.reaches(owner, principal);
            let all =
                [reaches("ann", "node-1"), reaches("ann", "node-2"), reaches("ann", ""), reaches("bob", "node-1")];
            assert_eq!(all, [own, others, of_before, bobs], "{asker:?}");
            assert!(asker.may_go_on_with("ann", ""), "{asker:?}");
            assert_eq!(asker.may_go_on_with("ann", "node-2"), others, "{asker:?}");
            // A spool's secret is no more than a node's own key may have: nobody of another account has it.
            assert_eq!(asker.may_finish("bob", "node-2", true), !matches!(asker.reach, Reach::Owner(_)), "{asker:?}");
            assert_eq!(asker.may_finish("ann", "node-2", false), others, "{asker:?}");
            assert_eq!(asker.may_open_for("bob"), !matches!(asker.reach, Reach::Owner(_)), "{asker:?}");
        }
    }
}
