use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A part of a state that only its writer understands. It is kept as the text that it is written
/// as: whoever reads the state for something else does not take it apart.
///
/// ```
/// use vc_store::Document;
///
/// let numbers = Document::of(&[1, 2])?;
/// assert_eq!(numbers.read::<Vec<u8>>()?, [1, 2]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Document(Box<RawValue>);

impl Document {
    /// What its writer gave.
    ///
    /// # Errors
    ///
    /// The error of serde when it cannot be written as JSON.
    pub fn of(value: &impl Serialize) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    /// The same, as the type that it is.
    ///
    /// # Errors
    ///
    /// The error of serde when it is of another type.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }
}

/// As the text is.
impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for Document {}
