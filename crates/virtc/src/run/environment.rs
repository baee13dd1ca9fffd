//! What the command finds in its environment: little of the host's, and what the user asks for.

use std::collections::BTreeMap;

/// Where programs are in a root that is not the host's.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who the command is, for the variables that say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// Makes the environment.
///
/// `host` is the host's, `asked` what flags and files give, in order: a value, or the host's of
/// that name where there is none.
pub(crate) fn environment(
    host: &BTreeMap<String, String>,
    identity: &Identity,
    host_root: bool,
    terminal: bool,
    asked: &[(String, Option<String>)],
) -> Vec<String> {
    let mut env = BTreeMap::new();
    for (name, value) in host {
        let locale = name == "LANG" || name.starts_with("LC_");
        if locale || name == "TZ" {
            env.insert(name.clone(), value.clone());
        }
    }
    let path = host
        .get("PATH")
        .filter(|path| host_root && !path.is_empty());
    env.insert(
        "PATH".into(),
        path.cloned().unwrap_or_else(|| PATH_DEFAULT.into()),
    );
    env.insert("HOME".into(), identity.home.clone());
    env.insert("USER".into(), identity.name.clone());
    env.insert("LOGNAME".into(), identity.name.clone());
    env.insert("SHELL".into(), identity.shell.clone());
    let term = host.get("TERM").filter(|term| !term.is_empty()).cloned();
    match (term, terminal) {
        (Some(term), _) => _ = env.insert("TERM".into(), term),
        (None, true) => _ = env.insert("TERM".into(), "xterm".into()),
        (None, false) => {}
    }
    for (name, value) in asked {
        match value.as_ref().or_else(|| host.get(name)) {
            Some(value) => _ = env.insert(name.clone(), value.clone()),
            // Passing on what is not there passes nothing, as with podman.
            None => _ = env.remove(name),
        }
    }
    env.into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Identity {
        Identity {
            name: "root".into(),
            home: "/root".into(),
            shell: "/bin/sh".into(),
        }
    }

    fn host() -> BTreeMap<String, String> {
        [
            ("PATH", "/opt/x/bin:/bin"),
            ("LC_ALL", "C"),
            ("TZ", "UTC"),
            ("SECRET", "s"),
            ("HOME", "/home/else"),
            ("TERM", "screen"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn nothing_else_of_the_host_comes_along() {
        let env = environment(&host(), &root(), true, false, &[]);
        assert_eq!(
            env,
            [
                "HOME=/root",
                "LC_ALL=C",
                "LOGNAME=root",
                "PATH=/opt/x/bin:/bin",
                "SHELL=/bin/sh",
                "TERM=screen",
                "TZ=UTC",
                "USER=root"
            ]
        );
    }

    #[test]
    fn another_root_has_its_own_path() {
        let env = environment(&host(), &root(), false, false, &[]);
        assert!(env.contains(&format!("PATH={PATH_DEFAULT}")));
    }

    #[test]
    fn what_is_asked_for_wins_and_the_hosts_is_passed_by_name() {
        let asked = [
            ("HOME".to_owned(), Some("/x".to_owned())),
            ("SECRET".to_owned(), None),
            ("NOT_THERE".to_owned(), None),
        ];
        let env = environment(&host(), &root(), true, false, &asked);
        assert!(env.contains(&"HOME=/x".to_owned()));
        assert!(env.contains(&"SECRET=s".to_owned()));
        assert!(!env.iter().any(|e| e.starts_with("NOT_THERE")));
    }
}
