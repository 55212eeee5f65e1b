//! What a shard has done and has not done, by cause.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the shard began.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[allow(missing_docs)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// How many counts there are.
            pub const LEN: usize = [$(stringify!($name)),*].len();

            /// Name and value of each, in the order of declaration.
            pub fn entries(&self) -> [(&'static str, u64); Self::LEN] {
                [$((stringify!($name), self.$name)),*]
            }
        }
    };
}

counters! {
    /// Datagrams that came, of any kind.
    datagrams_received,
    /// Media packets that came from publishers, authenticated.
    rtp_received,
    rtcp_received,
    /// Media packets that left, retransmissions included.
    rtp_sent,
    rtcp_sent,
    /// ICE and DTLS datagrams that left.
    transport_sent,
    /// Retransmissions that left.
    retransmissions_sent,
    /// Of these, before anybody asked.
    sent_ahead,
    /// Packets that left for a probe of the link only.
    probes_sent,
    /// Retransmissions that came from publishers and filled a gap.
    repaired,
    /// Lost packets whose frame came along with a later one.
    recovered,

    /// Neither STUN, DTLS, RTP nor RTCP.
    dropped_unclassified,
    /// STUN that names no peer.
    dropped_unknown_stun,
    /// DTLS, RTP or RTCP from an address that no peer has proven.
    dropped_unknown_address,
    /// RTP or RTCP before the peer's keys.
    dropped_before_keys,
    /// RTP of an SSRC that belongs to no section.
    dropped_unknown_ssrc,
    /// RTP or RTCP that was replayed, forged or cut off.
    dropped_unauthentic,
    /// RTP of a payload type that the section has not.
    dropped_unknown_payload_type,
    /// RTP whose payload can not be read, or which is too long.
    dropped_malformed,
    /// RTP that had come before.
    dropped_duplicate,
    /// RTP older than the history.
    dropped_too_old,
    /// RTP without payload, for probing.
    dropped_padding,
    /// Retransmissions that can not be unpacked.
    dropped_bad_rtx,
    /// RTP of a muted track.
    dropped_muted,
    /// A compound RTCP packet that could not be read to its end.
    malformed_rtcp,

    /// Not forwarded: belongs to a source that is no longer forwarded, or precedes its keyframe.
    unforwarded_late,
    /// Not forwarded: the subscriber has no payload type for the codec.
    unforwarded_codec,
    /// Not sent: the subscriber's queue was full.
    unsent_queue_full,
    /// Not sent: it waited too long for its turn, or its layer was given up.
    unsent_late,
    /// Not sent: the packet had left the history.
    unsent_history,
    /// Not sent: could not be written or sealed.
    unsent_unsealed,
    /// Not sent: the peer had no path any more, or the subscription had ended.
    unsent_revoked,

    nacks_received,
    /// Packets asked for again that were not sent again: unknown, too early or too often.
    nacks_unanswered,
    nacks_sent,
    /// Packets that subscribers asked for again.
    packets_nacked_by_peers,
    /// Packets that publishers were asked for again.
    packets_nacked_by_us,
    /// Requests for keyframes, of either kind.
    plis_received,
    /// Of these, FIR.
    firs_received,
    plis_sent,
    transport_feedback_received,
    transport_feedback_sent,
    remb_received,

    /// Lossy messages that a peer's channel had no room for.
    data_dropped_lossy,
    /// Reliable messages that a reader below the threshold had no room for.
    data_dropped_slow_reader,
    /// Times that a sender of reliable messages was held back by a reader.
    senders_held_back,
    /// Messages for a peer that is gone or has no such channel.
    data_dropped_unreachable,
    /// Commands that named a peer, track or subscription that is gone.
    commands_stale,
    /// Events lost because the caller did not take them in time.
    events_dropped,
}
