use std::fmt;

use oci_spec::runtime::{Hook, Hooks};

/// When a hook is run, in the order of a container's life.
///
/// ```
/// use virtcontainers::HookKind;
///
/// let fatal = HookKind::ALL.into_iter().filter(|kind| kind.is_fatal());
/// assert_eq!(fatal.count(), 4);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookKind {
    /// While the container is made, before [`Self::CreateRuntime`]. Deprecated, and still what
    /// docker gives.
    Prestart,
    /// While the container is made, in the namespaces of the runtime.
    CreateRuntime,
    /// While the container is made, in its namespaces, by a path of the host.
    CreateContainer,
    /// Before the container's process begins, in its namespaces and by a path in them.
    StartContainer,
    /// After the container's process began.
    Poststart,
    /// After the container was deleted.
    Poststop,
}

impl HookKind {
    /// All kinds, in the order in which they are run.
    pub const ALL: [Self; 6] = [
        Self::Prestart,
        Self::CreateRuntime,
        Self::CreateContainer,
        Self::StartContainer,
        Self::Poststart,
        Self::Poststop,
    ];

    /// Its key in `config.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    /// Whether a failure is one of what is done with the container. The others are only warned
    /// about, as versions 1.0 to 1.2 of the specification have it.
    pub const fn is_fatal(self) -> bool {
        match self {
            Self::Prestart | Self::CreateRuntime | Self::CreateContainer | Self::StartContainer => {
                true
            }
            Self::Poststart | Self::Poststop => false,
        }
    }

    /// Those of `hooks` that are of this kind.
    pub fn select(self, hooks: &Hooks) -> &[Hook] {
        #[allow(deprecated, reason = "docker still gives prestart hooks")]
        let list = match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_finds_its_own() {
        let hook = |name| serde_json::json!([{"path": format!("/{name}")}]);
        let all = HookKind::ALL.map(|kind| (kind.name().to_owned(), hook(kind.name())));
        let all = serde_json::Value::Object(all.into_iter().collect());
        let hooks: Hooks = serde_json::from_value(all).unwrap();
        for kind in HookKind::ALL {
            let [hook] = kind.select(&hooks) else {
                panic!("{kind}");
            };
            assert_eq!(hook.path(), &std::path::Path::new("/").join(kind.name()));
        }
        assert!(HookKind::Poststop.select(&Hooks::default()).is_empty());
    }
}
