mod made;
mod open;

pub use made::MadeNamespace;
pub use open::{Namespace, NamespaceId};
