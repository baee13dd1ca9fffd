use crate::endpoint::{Endpoint, EndpointKind};
use crate::error::{Error, Result, invalid, io};
use crate::interworking::{
    InterworkingModel, TapFlags, add_ingress, has_ingress, macvtap, open_tap, redirect, tbf,
};
use crate::limits::QUEUES_MAX;
use crate::link;
use crate::namespace::Namespace;
use crate::netlink::Netlink;
use crate::rate::{Direction, RateLimits};
use crate::tap::{self, Tap, check_queues};
use crate::undo::Undo;

/// A planned connection of one endpoint.
///
/// ```no_run
/// use vc_network::{Attachment, Endpoint, InterworkingModel, Namespace, Scan};
///
/// let namespace = Namespace::open("/run/netns/web")?;
/// let link = Scan::of(&namespace)?.links.remove(0);
/// let endpoint = Endpoint::new(link)?;
/// let attachment = Attachment::plan(&namespace, &endpoint, InterworkingModel::Tcfilter, 1)?;
/// // Write `attachment.undo()` into the state now: what a killed process added is found then.
/// let attached = attachment.attach(&namespace)?;
/// let for_the_vmm = attached.tap.queues();
/// // And when the machine has ended:
/// attached.undo.undo(&namespace)?;
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Debug)]
pub struct Attachment {
    undo: Undo,
    mtu: u32,
    queues: u16,
    limits: RateLimits,
}

/// A connected endpoint.
///
/// It is no guard: the machine that has the tap may live longer than who attached it. Dropping it
/// closes its descriptors; [`Attached::undo`] takes away the rest.
#[derive(Debug)]
#[non_exhaustive]
pub struct Attached {
    /// The tap for the machine.
    pub tap: Tap,
    /// What takes the connection away again.
    pub undo: Undo,
}

impl Attachment {
    /// Checks that the endpoint can be attached, with this many queues, and changes nothing yet.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a model that is not there for this endpoint, [`Error::Invalid`]
    /// for a number of queues that cannot be, [`Error::LinkGone`] when the link has vanished since it
    /// was scanned, [`Error::InTheWay`] when it has an ingress qdisc, or another link the tap's
    /// name, and [`Error::Io`] when the kernel cannot be asked.
    pub fn plan(
        namespace: &Namespace,
        endpoint: &Endpoint,
        model: InterworkingModel,
        queues: u16,
    ) -> Result<Self> {
        endpoint.check(model)?;
        check_queues(queues)?;
        let link = endpoint.link();
        let mut undo = Undo {
            namespace: namespace.id(),
            model,
            link: link.name.clone(),
            index: link.index,
            mac: endpoint.mac(),
            tap: match model {
                InterworkingModel::None => link.name.clone(),
                _ => tap::name_for(link.index)?,
            },
            found: None,
            limited: false,
        };
        let mut netlink = namespace.netlink()?;
        check_link(&mut netlink, &undo)?;
        if model == InterworkingModel::None {
            undo.found = Some(check_tap(&mut netlink, &undo, queues)?);
        } else {
            check_free(&mut netlink, &undo)?;
        }
        Ok(Self {
            undo,
            mtu: link.mtu,
            queues,
            limits: RateLimits::default(),
        })
    }

    /// The most queues with which the endpoint can be attached.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the kernel cannot be asked, [`Error::LinkGone`] when the link has vanished.
    pub fn queues_max(namespace: &Namespace, endpoint: &Endpoint) -> Result<u16> {
        if *endpoint.kind() != EndpointKind::Tap {
            return Ok(QUEUES_MAX);
        }
        let link = endpoint.link();
        let mut netlink = namespace.netlink()?;
        let found = link::tap_flags(&mut netlink, link.index);
        let found = found.map_err(io("look at the link", &link.name))?;
        let gone = || Error::LinkGone {
            link: link.name.clone(),
            index: link.index,
        };
        Ok(found.ok_or_else(gone)?.queues_max())
    }

    /// Limits how much the machine receives and sends, in place of earlier limits.
    ///
    /// # Errors
    ///
    /// [`Error::NoRateLimit`] for what the model cannot limit: what is received by a macvtap, and
    /// what is sent by a tap that is there. [`Error::InTheWay`] when the link has a qdisc that
    /// somebody has set, [`Error::Io`] when the kernel cannot be asked.
    pub fn limit(mut self, namespace: &Namespace, limits: RateLimits) -> Result<Self> {
        let cannot = match self.undo.model {
            InterworkingModel::Tcfilter => None,
            InterworkingModel::Macvtap => limits.receive.map(|_| Direction::Receive),
            InterworkingModel::None => limits.send.map(|_| Direction::Send),
        };
        if let Some(direction) = cannot {
            return Err(Error::NoRateLimit {
                link: self.undo.link.clone(),
                direction,
                model: self.undo.model,
            });
        }
        self.undo.limited = match self.undo.model {
            InterworkingModel::Tcfilter => limits.send.is_some(),
            InterworkingModel::Macvtap => false,
            InterworkingModel::None => limits.receive.is_some(),
        };
        self.limits = limits;
        let mut netlink = namespace.netlink()?;
        if self.undo.limited
            && tbf::has_root(&mut netlink, self.undo.index)
                .map_err(io("list the qdiscs of", &self.undo.link))?
        {
            return Err(Error::InTheWay {
                link: self.undo.link,
                what: "a qdisc".to_owned(),
            });
        }
        Ok(self)
    }

    /// What will undo it, at whichever step it may be interrupted.
    pub fn undo(&self) -> &Undo {
        &self.undo
    }

    /// Makes the tap and what connects it, or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::LinkGone`] when the link has vanished, or when `namespace` is another one than that of
    /// the plan, and [`Error::Io`] when a step fails. What the
    /// steps before have added is taken away then.
    pub fn attach(self, namespace: &Namespace) -> Result<Attached> {
        if namespace.id() != self.undo.namespace {
            return Err(gone(&self.undo));
        }
        let netlink = namespace.netlink()?;
        let mut attaching = Attaching {
            netlink,
            namespace,
            undo: &self.undo,
            opened: false,
            tap: false,
            filters: false,
            limited: false,
            done: false,
        };
        let tap = attaching.connect(self.mtu, self.queues)?;
        attaching.limit(&tap, self.mtu, self.limits)?;
        attaching.done = true;
        drop(attaching);
        Ok(Attached {
            tap,
            undo: self.undo,
        })
    }
}

/// Undoes the steps that have begun, unless all are done.
struct Attaching<'a> {
    netlink: Netlink,
    namespace: &'a Namespace,
    undo: &'a Undo,
    opened: bool,
    tap: bool,
    filters: bool,
    limited: bool,
    done: bool,
}

impl Attaching<'_> {
    fn connect(&mut self, mtu: u32, queues: u16) -> Result<Tap> {
        check_link(&mut self.netlink, self.undo)?;
        match self.undo.model {
            InterworkingModel::Tcfilter => self.connect_by_filters(mtu, queues),
            InterworkingModel::Macvtap => {
                let Undo { tap, index, .. } = self.undo;
                macvtap::make(&mut self.netlink, tap, *index)?;
                self.tap = true;
                macvtap::open(self.namespace, &mut self.netlink, tap, queues)
            }
            InterworkingModel::None => {
                let Undo { link, index, .. } = self.undo;
                let found = self.undo.found.ok_or_else(|| gone(self.undo))?;
                self.opened = true;
                open_tap(self.namespace, link, *index, found, queues)
            }
        }
    }

    /// Frames for the machine leave the namespace by the tap, and its own ones by the link, or by the
    /// macvtap on it.
    fn limit(&mut self, tap: &Tap, mtu: u32, limits: RateLimits) -> Result<()> {
        let Undo { link, index, .. } = self.undo;
        if let Some(rate) = limits.receive {
            self.limited |= tap.index() == *index;
            tbf::limit(&mut self.netlink, tap.index(), mtu, rate)
                .map_err(io("limit the rate of", tap.name()))?;
        }
        if let Some(rate) = limits.send {
            let (name, by) = match self.undo.model {
                InterworkingModel::Macvtap => (tap.name(), tap.index()),
                _ => (link, *index),
            };
            self.limited |= by == *index;
            tbf::limit(&mut self.netlink, by, mtu, rate).map_err(io("limit the rate of", name))?;
        }
        Ok(())
    }

    fn connect_by_filters(&mut self, mtu: u32, queues: u16) -> Result<Tap> {
        let Undo { link, index, .. } = self.undo;
        // A tap that cannot be made leaves nothing, and one of that name is another's.
        let tap = Tap::make(self.namespace, &self.undo.tap, mtu, queues)?;
        self.tap = true;
        add_ingress(&mut self.netlink, tap.index())
            .map_err(io("add the qdisc for filters to", tap.name()))?;
        redirect(&mut self.netlink, tap.index(), *index)
            .map_err(io("add the filter to", tap.name()))?;
        // The link is last: from here on, the namespace receives nothing itself. A qdisc that
        // cannot be added is another's, or none.
        add_ingress(&mut self.netlink, *index).map_err(io("add the qdisc for filters to", link))?;
        self.filters = true;
        redirect(&mut self.netlink, *index, tap.index()).map_err(io("add the filter to", link))?;
        Ok(tap)
    }
}

impl Drop for Attaching<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // The error that led here is the one to report.
        if self.opened
            && let Err(error) = self.undo.restore(self.namespace, &mut self.netlink)
        {
            tracing::warn!(tap = %self.undo.link, %error, "a tap stays as the machine was to have it");
        }
        if self.limited
            && let Err(error) = self.undo.remove_limit(&mut self.netlink)
        {
            tracing::warn!(link = %self.undo.link, %error, "the limit of a failed attachment stays");
        }
        if self.filters
            && let Err(error) = self.undo.remove_filters(&mut self.netlink)
        {
            tracing::warn!(link = %self.undo.link, %error, "filters of a failed attachment stay");
        }
        if self.tap
            && let Err(error) = self.undo.remove_tap(&mut self.netlink)
        {
            tracing::warn!(tap = %self.undo.tap, %error, "the tap of a failed attachment stays");
        }
    }
}

/// Checks that nothing is there that the attachment would add.
fn check_free(netlink: &mut Netlink, undo: &Undo) -> Result<()> {
    let in_the_way = |what| Error::InTheWay {
        link: undo.link.clone(),
        what,
    };
    if undo.model == InterworkingModel::Tcfilter
        && has_ingress(netlink, undo.index).map_err(io("list the qdiscs of", &undo.link))?
    {
        return Err(in_the_way("an ingress qdisc".to_owned()));
    }
    if link::by_name(netlink, &undo.tap)
        .map_err(io("look for the tap", &undo.tap))?
        .is_some()
    {
        return Err(in_the_way(format!("a link with the name {}", undo.tap)));
    }
    Ok(())
}

/// How the tap was made, which the machine is to open with this many queues.
fn check_tap(netlink: &mut Netlink, undo: &Undo, queues: u16) -> Result<TapFlags> {
    let found = link::tap_flags(netlink, undo.index).map_err(io("look at the link", &undo.link))?;
    let found = found.ok_or_else(|| gone(undo))?;
    if queues > found.queues_max() {
        let reason = "the tap was made for a single one";
        return Err(invalid("number of queues", &queues.to_string(), reason));
    }
    Ok(found)
}

/// Checks that the link is still the one that was scanned.
fn check_link(netlink: &mut Netlink, undo: &Undo) -> Result<()> {
    let found = link::by_index(netlink, undo.index).map_err(io("look at the link", &undo.link))?;
    match found {
        Some(link) if undo.is_of(&link) => Ok(()),
        _ => Err(gone(undo)),
    }
}

fn gone(undo: &Undo) -> Error {
    Error::LinkGone {
        link: undo.link.clone(),
        index: undo.index,
    }
}
