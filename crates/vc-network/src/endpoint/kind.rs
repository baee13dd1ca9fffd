use crate::interworking::InterworkingModel;
use crate::link::LinkKind;

/// What a link is to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointKind {
    /// One end of a pair.
    Veth,
    /// An address of its own on another link.
    Macvlan,
    /// An IP address of its own on another link, with that one's hardware address.
    Ipvlan,
    /// A macvtap. Filters see its frames before its file does.
    Macvtap,
    /// A tap that somebody has made for the machine to open.
    Tap,
    /// A network card. It can also be passed to a machine as a whole, which is not done here.
    Physical {
        /// The kind of its bus, such as `pci`.
        bus: Option<String>,
        /// The device on the bus.
        device: Option<String>,
    },
    /// Any other kind that carries Ethernet frames, by the kernel's name.
    Other(String),
}

impl EndpointKind {
    /// The kind of endpoint for a link, or the reason why there is none.
    pub(crate) fn of(kind: &LinkKind) -> Result<Self, &'static str> {
        match kind {
            LinkKind::Veth => Ok(Self::Veth),
            LinkKind::Macvlan => Ok(Self::Macvlan),
            LinkKind::Ipvlan => Ok(Self::Ipvlan),
            LinkKind::Macvtap => Ok(Self::Macvtap),
            LinkKind::Tap => Ok(Self::Tap),
            LinkKind::Physical { bus, device } => Ok(Self::Physical {
                bus: bus.clone(),
                device: device.clone(),
            }),
            LinkKind::Other(name) => Ok(Self::Other(name.clone())),
            LinkKind::Loopback => Err("a machine has a loopback interface of its own"),
            LinkKind::Tun => Err("it carries IP packets, not Ethernet frames"),
        }
    }

    /// Whether it can be attached by a model.
    pub(crate) fn can(&self, model: InterworkingModel) -> bool {
        match (model, self) {
            // Filters take the frames of every link that receives any. The frames of a tap go to
            // whoever has opened it.
            (InterworkingModel::Tcfilter, kind) => *kind != Self::Tap,
            // On a link that is itself on another one, the kernel would make it on that.
            (InterworkingModel::Macvtap, kind) => {
                matches!(kind, Self::Veth | Self::Physical { .. } | Self::Other(_))
            }
            (InterworkingModel::None, kind) => *kind == Self::Tap,
        }
    }
}
