use super::TemplateId;

/// What factories return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a factory gave no VM.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The driver could not launch it.
    #[error(transparent)]
    Driver(#[from] vc_hypervisor::Error),
    /// Its scratch disk could not be formatted.
    #[error(transparent)]
    Scratch(#[from] vc_storage::Error),
    /// It did not go on from its template, and what was to serve it is gone with it. One that boots
    /// can be asked for.
    #[error("the VM did not go on from template {template}")]
    NotCloned {
        /// The template.
        template: TemplateId,
        /// Why.
        #[source]
        source: vc_hypervisor::Error,
    },
}

impl From<Error> for crate::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Driver(error) => Self::Hypervisor(error),
            Error::Scratch(error) => Self::Storage(error),
            Error::NotCloned { template, source } => Self::NotCloned {
                template,
                source: Box::new(Self::Hypervisor(source)),
            },
        }
    }
}
