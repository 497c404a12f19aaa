//! The levels that a client chooses from for its operations (DESIGN section 6).

/// How strong an operation's promises are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Any committed value; writes carry no dependencies but what they supersede.
    Eventual,
    /// Linearizable per key in this datacenter, causal across datacenters.
    #[default]
    Linearizable,
}

impl Consistency {
    /// The name that clients use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eventual => "eventual",
            Self::Linearizable => "linearizable",
        }
    }
}
