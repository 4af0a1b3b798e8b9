//! The four objects of Exchange's that are ours, by name.

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Where Gatepost delivers.
    Inbound,
    /// Where Exchange delivers to Gatepost.
    Outbound,
    /// The rule that sends mail to the outbound connector.
    Route,
    /// The rule that takes the loop header off what has come back.
    CleanUp,
}

impl Kind {
    /// Its name in the tenant.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inbound => "From Gatepost",
            Self::Outbound => "To Gatepost",
            Self::Route => "Route to Gatepost",
            Self::CleanUp => "Back from Gatepost",
        }
    }

    /// What it is, in words.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Inbound => "inbound connector",
            Self::Outbound => "outbound connector",
            Self::Route | Self::CleanUp => "transport rule",
        }
    }

    /// The cmdlet that changes it.
    pub(super) fn setter(self) -> &'static str {
        match self {
            Self::Inbound => "Set-InboundConnector",
            Self::Outbound => "Set-OutboundConnector",
            Self::Route | Self::CleanUp => "Set-TransportRule",
        }
    }

    /// The property that carries our mark.
    pub(super) fn comment(self) -> &'static str {
        match self {
            Self::Inbound | Self::Outbound => "Comment",
            Self::Route | Self::CleanUp => "Comments",
        }
    }
}
