use crate::setting::{choice, section};

choice! {
    /// How long the guest may keep what it read from a share.
    pub enum ShareCache {
        /// Content as long as the file's size and time of change stay, the rest for a second.
        Auto = "auto",
        /// For ever: right where the host does not change what is shared.
        Always = "always",
    }
}

section! {
    /// The file systems that are shared with the guest.
    pub struct Share at "share" {
        /// How long the guest may keep what it read from a share of the user's files.
        pub cache: ShareCache = ShareCache::Auto;
    }
}
