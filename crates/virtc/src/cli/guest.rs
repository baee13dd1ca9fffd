use clap::{Args, Subcommand};

/// What belongs to the guest itself
#[derive(Debug, Args)]
pub(crate) struct GuestArgs {
    #[command(subcommand)]
    pub(crate) command: GuestCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GuestCommand {
    /// Build the guest's own kernel into the cache, where that of this version is not there. It takes
    /// some minutes; `make guest` takes it from then on
    ///
    /// The cache is /var/cache/virtcontainers, or what VIRTCONTAINERS_CACHE names. Packages that a build
    /// needs are installed where the user is root. KERNEL_SOURCE_PACKAGE=FILE names the package of the
    /// kernel's source where the distribution's archive cannot be reached.
    BuildKernel,
}
