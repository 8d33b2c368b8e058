//! A history, to be looked at, kept in a file, and replayed against changed code.

use std::fmt;
use std::path::Path;

use mainspring_proto::{HistoryChunk, HistoryEvent};
use prost::Message as _;

/// The history of one generation of an orchestration.
///
/// ```no_run
/// # use mainspring_sdk::Client;
/// use mainspring_sdk::History;
///
/// # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let history = client.instance::<String>("order-17").history().await?;
/// println!("{} events", history.len());
/// history.save("tests/order.history")?;
/// assert_eq!(History::load("tests/order.history")?, history);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq)]
pub struct History {
    events: Vec<HistoryEvent>,
}

impl fmt::Debug for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "History({} events)", self.events.len())
    }
}

impl History {
    pub(crate) fn new(events: Vec<HistoryEvent>) -> Self {
        Self { events }
    }

    /// How many events it has.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    #[cfg(feature = "testing")]
    pub(crate) fn events(&self) -> &[HistoryEvent] {
        &self.events
    }

    /// Writes it to a file: a `HistoryChunk` of the protocol, in protobuf.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> std::io::Result<()> {
        std::fs::write(path, self.to_bytes())
    }

    /// Reads what [`History::save`] wrote.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or holds no history.
    pub fn load(path: impl AsRef<Path>) -> std::io::Result<Self> {
        Self::from_bytes(&std::fs::read(path)?)
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))
    }

    /// The bytes of a `HistoryChunk`.
    pub fn to_bytes(&self) -> Vec<u8> {
        let events = self.events.clone();
        HistoryChunk { events }.encode_to_vec()
    }

    /// Reads what [`History::to_bytes`] gave.
    ///
    /// # Errors
    ///
    /// When the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, prost::DecodeError> {
        HistoryChunk::decode(bytes).map(|chunk| Self::new(chunk.events))
    }
}
