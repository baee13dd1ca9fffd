pub(crate) mod macvtap;
mod none;
mod qdisc;
pub(crate) mod tbf;
mod tcfilter;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) use none::{TapFlags, open as open_tap, restore as restore_tap};
pub(crate) use tcfilter::{add_ingress, has_ingress, redirect, remove_ingress};

use crate::error::{Error, Result, invalid};

/// How an endpoint reaches the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum InterworkingModel {
    /// A tap beside the link, and a filter on each that hands to the other what it receives. Works
    /// with every kind of link that carries Ethernet frames.
    #[default]
    Tcfilter,
    /// A macvtap on the link, which gets all frames for one hardware address: the link's own. What
    /// goes to all of a network, the namespace receives too, and answers questions for its addresses
    /// as the machine does. Works with veths, cards, and what else is no part of another link.
    Macvtap,
    /// The link itself, where that is a tap: the machine opens it.
    None,
}

impl fmt::Display for InterworkingModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcfilter => "tcfilter",
            Self::Macvtap => "macvtap",
            Self::None => "none",
        })
    }
}

impl FromStr for InterworkingModel {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tcfilter" => Ok(Self::Tcfilter),
            "macvtap" => Ok(Self::Macvtap),
            "none" => Ok(Self::None),
            _ => Err(invalid(
                "interworking model",
                text,
                "tcfilter, macvtap or none is expected",
            )),
        }
    }
}
