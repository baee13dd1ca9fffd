//! The rules of a guest's packet filter, as the programs of iptables print and read them.

use agent_protocol::agent::{GetIPTablesRequest, SetIPTablesRequest};

use super::answer::bad;
use crate::client::AgentClient;
use crate::error::Result;

/// Bytes of rules that are sent or taken: what fits into a message with room to spare.
const RULES_BYTES_MAX: usize = 2 << 20;

/// The version of IP that rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// IPv4: `iptables`.
    V4,
    /// IPv6: `ip6tables`.
    V6,
}

impl AgentClient {
    /// The guest's rules, as `iptables-save` prints them.
    ///
    /// ```no_run
    /// # async fn example(agent: vc_agent_client::AgentClient) -> vc_agent_client::Result<()> {
    /// use vc_agent_client::network::IpVersion;
    ///
    /// let rules = agent.get_iptables(IpVersion::V4).await?;
    /// agent.set_iptables(IpVersion::V4, &rules).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As every call, and [`Error::BadAnswer`](crate::Error::BadAnswer) for what is no text. The code
    /// is `Unimplemented` for a guest that has no such program.
    pub async fn get_iptables(&self, version: IpVersion) -> Result<String> {
        let call = "get the guest's iptables";
        let request = GetIPTablesRequest {
            is_ipv6: version == IpVersion::V6,
            ..GetIPTablesRequest::default()
        };
        let answer = self.agent.get_ip_tables(self.long(), &request);
        text(call, self.much(call, answer).await?.data)
    }

    /// Sets the guest's rules, as `iptables-restore` reads them, and gives what that says.
    ///
    /// # Errors
    ///
    /// As [`AgentClient::get_iptables`], and [`Error::BadRequest`](crate::Error::BadRequest) for
    /// rules that do not fit into a message.
    pub async fn set_iptables(&self, version: IpVersion, rules: &str) -> Result<String> {
        let call = "set the guest's iptables";
        if rules.len() > RULES_BYTES_MAX {
            return Err(crate::Error::BadRequest {
                call,
                reason: format!(
                    "there are {} bytes, of at most {RULES_BYTES_MAX}",
                    rules.len()
                ),
            });
        }
        let request = SetIPTablesRequest {
            is_ipv6: version == IpVersion::V6,
            data: rules.as_bytes().to_vec(),
            ..SetIPTablesRequest::default()
        };
        let answer = self.agent.set_ip_tables(self.long(), &request);
        text(call, self.much(call, answer).await?.data)
    }
}

/// Lines that can be printed: rules have no other characters.
fn text(call: &'static str, data: Vec<u8>) -> Result<String> {
    let bad = bad(call);
    if data.len() > RULES_BYTES_MAX {
        return Err(bad(format!(
            "there are {} bytes, of at most {RULES_BYTES_MAX}",
            data.len()
        )));
    }
    let text = String::from_utf8(data).map_err(|_| bad("it is no text".to_owned()))?;
    match text
        .chars()
        .find(|one| one.is_control() && !matches!(one, '\n' | '\t'))
    {
        None => Ok(text),
        Some(control) => Err(bad(format!("it has the character {control:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_can_be_printed_are_taken() {
        let taken = |data: &[u8]| text("get", data.to_vec());
        let rules = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m comment --comment \"\tü\"\nCOMMIT\n";
        assert_eq!(taken(rules.as_bytes()).unwrap(), rules);
        for bad in [&b"\x1b[2J"[..], b"\xff", "\u{9b}2J".as_bytes(), b"\0"] {
            let error = taken(bad).unwrap_err().to_string();
            assert!(
                error.contains("makes no sense") && !error.contains('\x1b'),
                "{error}"
            );
        }
        assert!(taken(&vec![b'a'; RULES_BYTES_MAX]).is_ok());
        assert!(taken(&vec![b'a'; RULES_BYTES_MAX + 1]).is_err());
    }
}
