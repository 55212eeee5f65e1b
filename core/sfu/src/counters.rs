//! What a shard has done and has not done, by cause.

/// Counts since the shard began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Counters {
    /// Datagrams that came, of any kind.
    pub datagrams_received: u64,
    /// Media packets that came from publishers, authenticated.
    pub rtp_received: u64,
    pub rtcp_received: u64,
    /// Media packets that left, retransmissions included.
    pub rtp_sent: u64,
    pub rtcp_sent: u64,
    /// ICE and DTLS datagrams that left.
    pub transport_sent: u64,
    /// Retransmissions that left.
    pub retransmissions_sent: u64,
    /// Packets that left for a probe of the link only.
    pub probes_sent: u64,
    /// Retransmissions that came from publishers and filled a gap.
    pub repaired: u64,
    /// Lost packets whose frame came along with a later one.
    pub recovered: u64,

    /// Neither STUN, DTLS, RTP nor RTCP.
    pub dropped_unclassified: u64,
    /// STUN that names no peer.
    pub dropped_unknown_stun: u64,
    /// DTLS, RTP or RTCP from an address that no peer has proven.
    pub dropped_unknown_address: u64,
    /// RTP or RTCP before the peer's keys.
    pub dropped_before_keys: u64,
    /// RTP of an SSRC that belongs to no section.
    pub dropped_unknown_ssrc: u64,
    /// RTP or RTCP that was replayed, forged or cut off.
    pub dropped_unauthentic: u64,
    /// RTP of a payload type that the section has not.
    pub dropped_unknown_payload_type: u64,
    /// RTP whose payload can not be read, or which is too long.
    pub dropped_malformed: u64,
    /// RTP that had come before.
    pub dropped_duplicate: u64,
    /// RTP older than the history.
    pub dropped_too_old: u64,
    /// RTP without payload, for probing.
    pub dropped_padding: u64,
    /// Retransmissions that can not be unpacked.
    pub dropped_bad_rtx: u64,
    /// RTP of a muted track.
    pub dropped_muted: u64,
    /// A compound RTCP packet that could not be read to its end.
    pub malformed_rtcp: u64,

    /// Not forwarded: belongs to a source that is no longer forwarded, or precedes its keyframe.
    pub unforwarded_late: u64,
    /// Not forwarded: the subscriber has no payload type for the codec.
    pub unforwarded_codec: u64,
    /// Not sent: the subscriber's queue was full.
    pub unsent_queue_full: u64,
    /// Not sent: it waited too long for its turn, or its layer was given up.
    pub unsent_late: u64,
    /// Not sent: the packet had left the history.
    pub unsent_history: u64,
    /// Not sent: could not be written or sealed.
    pub unsent_unsealed: u64,
    /// Not sent: the peer had no path any more, or the subscription had ended.
    pub unsent_revoked: u64,

    pub nacks_received: u64,
    /// Packets asked for again that were not sent again: unknown, too early or too often.
    pub nacks_unanswered: u64,
    pub nacks_sent: u64,
    pub plis_received: u64,
    pub plis_sent: u64,
    pub transport_feedback_received: u64,
    pub transport_feedback_sent: u64,
    pub remb_received: u64,

    /// Lossy messages that a peer's channel had no room for.
    pub data_dropped_lossy: u64,
    /// Messages for a peer that is gone or has no such channel.
    pub data_dropped_unreachable: u64,
    /// Commands that named a peer, track or subscription that is gone.
    pub commands_stale: u64,
    /// Events lost because the caller did not take them in time.
    pub events_dropped: u64,
}
