//! Data channels as the owner of a transport sees them.

use std::fmt;

use parlor_model::DataChannel;

/// Most data channels of one transport. One more is closed at once.
pub const MAX_CHANNELS: usize = 16;

/// Most bytes that may wait on a reliable channel; a message beyond is refused.
pub const MAX_RELIABLE_BUFFERED_BYTES: usize = 1024 * 1024;

/// Most bytes that may wait on a channel that may lose messages; a message beyond is refused.
pub const MAX_LOSSY_BUFFERED_BYTES: usize = 64 * 1024;

/// When so many bytes are left waiting on a channel, its owner hears of it.
pub const BUFFERED_AMOUNT_LOW_BYTES: usize = 16 * 1024;

/// A data channel by its label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Channel {
    /// One of LiveKit's.
    Known(DataChannel),
    /// Any other label.
    Other(String),
}

impl Channel {
    /// The channel of a label.
    pub fn from_label(label: &str) -> Channel {
        DataChannel::from_label(label)
            .map_or_else(|| Channel::Other(label.to_owned()), Channel::Known)
    }

    /// The label on the wire.
    pub fn label(&self) -> &str {
        match self {
            Channel::Known(channel) => channel.label(),
            Channel::Other(label) => label,
        }
    }
}

impl From<DataChannel> for Channel {
    fn from(channel: DataChannel) -> Self {
        Channel::Known(channel)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A channel that we open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelConfig {
    /// Its name.
    pub channel: Channel,
    /// Whether messages keep their order.
    pub ordered: bool,
    /// How often a lost message is sent again; `None` for as often as it takes.
    pub max_retransmits: Option<u16>,
}

impl From<DataChannel> for ChannelConfig {
    /// What the channel promises in LiveKit's protocol.
    fn from(channel: DataChannel) -> Self {
        let reliable = channel == DataChannel::Reliable;
        Self {
            channel: channel.into(),
            ordered: reliable,
            max_retransmits: if reliable { None } else { Some(0) },
        }
    }
}
