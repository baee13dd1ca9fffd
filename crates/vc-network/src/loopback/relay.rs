use std::fmt::Write;
use std::io;
use std::net::TcpListener;

use super::undo::LoopbackUndo;
use super::{LOOPBACK, OWN_MARK, TABLE};
use crate::error::{Error, Result, io};
use crate::namespace::Namespace;
use crate::nft;

/// A planned relay of the connections that processes inside a namespace make to its own addresses,
/// such as those of a port-forward: what they look for is in the machine.
///
/// The namespace gets listeners on its loopback addresses, and a table of nftables by which every TCP
/// connection over `lo` comes to them. Whoever accepts one asks for its first destination
/// ([`original_destination`](super::original_destination)) and connects it with the machine's.
/// Connections that come from outside are not touched, nor are those by
/// [`dial_inside`](super::dial_inside).
///
/// ```no_run
/// use vc_network::{LoopbackRelay, Namespace, original_destination};
///
/// let namespace = Namespace::open("/run/netns/web")?;
/// let relay = LoopbackRelay::plan(&namespace)?;
/// // Write `relay.undo()` into the state now: what a killed process added is found then.
/// let undo = relay.undo().clone();
/// let listeners = relay.open(&namespace)?;
/// // Whenever a listener is readable:
/// if let Ok((stream, _)) = listeners.ipv4.accept() {
///     println!("for {}", original_destination(&stream)?);
/// }
/// undo.undo(&namespace)?;
/// # Ok::<(), vc_network::Error>(())
/// ```
#[derive(Debug)]
pub struct LoopbackRelay {
    undo: LoopbackUndo,
}

/// Where the relayed connections arrive. They are non-blocking.
///
/// They are no guard: [`LoopbackUndo`] takes the rules away. While the rules are there and these are
/// not, connections inside the namespace are refused.
#[derive(Debug)]
#[non_exhaustive]
pub struct LoopbackListeners {
    /// Those of IPv4.
    pub ipv4: TcpListener,
    /// Those of IPv6; `None` where the namespace has no IPv6.
    pub ipv6: Option<TcpListener>,
}

impl LoopbackRelay {
    /// Checks that a relay can be opened, and changes nothing yet.
    ///
    /// # Errors
    ///
    /// [`Error::RelayInTheWay`] when the namespace has one, [`Error::NoProgram`] without `nft`, and
    /// [`Error::Program`] and [`Error::Io`] when the kernel cannot be asked.
    pub fn plan(namespace: &Namespace) -> Result<Self> {
        if nft::has_table(namespace, TABLE)? {
            return Err(Error::RelayInTheWay {
                path: namespace.path().to_owned(),
                table: TABLE,
            });
        }
        let undo = LoopbackUndo {
            namespace: namespace.id(),
        };
        Ok(Self { undo })
    }

    /// What will undo it, at whichever step it may be interrupted.
    pub fn undo(&self) -> &LoopbackUndo {
        &self.undo
    }

    /// Makes the listeners and the rules, or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::NamespaceGone`] when `namespace` is another one than that of the plan,
    /// [`Error::Program`] and [`Error::Io`] when a step fails.
    pub fn open(self, namespace: &Namespace) -> Result<LoopbackListeners> {
        if namespace.id() != self.undo.namespace {
            let path = namespace.path().to_owned();
            return Err(Error::NamespaceGone { path });
        }
        let listeners = namespace
            .run_io(bind)
            .map_err(io("listen inside", namespace.path().display()))?;
        // All of a script or nothing: there is no half of it to take back.
        nft::apply(namespace, &rules(&listeners)?)?;
        Ok(listeners)
    }
}

fn bind() -> io::Result<LoopbackListeners> {
    let ipv4 = TcpListener::bind((LOOPBACK.0, 0))?;
    let ipv6 = match TcpListener::bind((LOOPBACK.1, 0)) {
        Ok(listener) => Some(listener),
        Err(error) if has_no_ipv6(&error) => None,
        Err(error) => return Err(error),
    };
    for listener in [Some(&ipv4), ipv6.as_ref()].into_iter().flatten() {
        listener.set_nonblocking(true)?;
    }
    Ok(LoopbackListeners { ipv4, ipv6 })
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT)
    )
}

/// An existing table of that name, which came after the plan, is an error.
fn rules(listeners: &LoopbackListeners) -> Result<String> {
    let mut redirects = String::new();
    let families = [
        ("ipv4", Some(&listeners.ipv4)),
        ("ipv6", listeners.ipv6.as_ref()),
    ];
    for (family, listener) in families {
        let Some(listener) = listener else { continue };
        let address = listener
            .local_addr()
            .map_err(io("ask for the address of", "a listener"))?;
        // Nothing can fail in writing to a string.
        let _ = writeln!(
            redirects,
            "    meta nfproto {family} meta l4proto tcp redirect to :{}",
            address.port()
        );
    }
    Ok(format!(
        "create table {TABLE}
table {TABLE} {{
  chain output {{
    type nat hook output priority -100
    oifname != \"lo\" return
    meta mark {OWN_MARK:#x} return
{redirects}  }}
}}
"
    ))
}
