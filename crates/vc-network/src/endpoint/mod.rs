mod kind;

pub use kind::EndpointKind;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::interworking::InterworkingModel;
use crate::link::Link;
use crate::mac::MacAddress;

/// A link of a namespace that a machine gets as a network interface.
///
/// ```no_run
/// use vc_network::{Endpoint, Namespace, Scan};
///
/// let scan = Scan::of(&Namespace::open("/run/netns/web")?)?;
/// let endpoints: Result<Vec<_>, _> = scan.links.into_iter().map(Endpoint::new).collect();
/// for endpoint in endpoints? {
///     println!("{}: {}", endpoint.link().name, endpoint.mac());
/// }
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Link", into = "Link")]
pub struct Endpoint {
    link: Link,
    kind: EndpointKind,
    mac: MacAddress,
}

impl Endpoint {
    /// Makes a scanned link an endpoint.
    ///
    /// # Errors
    ///
    /// [`Error::Impossible`] for a link that cannot be one, with the reason.
    pub fn new(link: Link) -> Result<Self> {
        let refuse = |reason| Error::Impossible {
            link: link.name.clone(),
            kind: link.kind.as_str().to_owned(),
            reason,
        };
        let kind = EndpointKind::of(&link.kind).map_err(refuse)?;
        let mac = link
            .mac
            .ok_or_else(|| refuse("it carries no Ethernet frames"))?;
        Ok(Self { link, kind, mac })
    }

    /// The link.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// What the link is to the machine.
    pub fn kind(&self) -> &EndpointKind {
        &self.kind
    }

    /// The hardware address, which the machine's interface gets too.
    pub fn mac(&self) -> MacAddress {
        self.mac
    }

    /// Checks that the endpoint can be attached by `model`.
    pub(crate) fn check(&self, model: InterworkingModel) -> Result<()> {
        if self.kind.can(model) {
            return Ok(());
        }
        Err(Error::Unsupported {
            model,
            link: self.link.name.clone(),
            kind: self.link.kind.as_str().to_owned(),
        })
    }
}

impl TryFrom<Link> for Endpoint {
    type Error = Error;

    fn try_from(link: Link) -> Result<Self> {
        Self::new(link)
    }
}

impl From<Endpoint> for Link {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.link
    }
}
