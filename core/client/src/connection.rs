//! One peer connection of a client: transport and media behind one socket address.

use crate::media::{Media, ReceivedRtp};
use parlor_model::{DataChannel, IceCredentials, Mid, Now, Path, TransportAddress};
use parlor_rtp::{PacketClass, classify};
use parlor_sdp::client::{ClientDescription, ClientReceive, LocalTrack};
use parlor_transport::{
    DtlsIdentity, Transmit, Transport, TransportConfig, TransportError, TransportEvent,
};
use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

/// In the order in which livekit-client opens them.
const CHANNELS: [DataChannel; 3] =
    [DataChannel::Lossy, DataChannel::Reliable, DataChannel::DataTrack];

pub(crate) struct Connection {
    pub transport: Transport,
    pub media: Media,
    pub ice: IceCredentials,
    /// The tracks that we receive.
    pub received: Vec<ClientReceive>,
    /// Sections of the tracks that we send, by our id of the track.
    pub sent: BTreeMap<String, Mid>,
    pub is_connected: bool,
}

impl Connection {
    pub fn new(now: Now, config: ConnectionConfig) -> Self {
        let ConnectionConfig { identity, ice, controlling, seed, opens_channels, local_address } =
            config;
        let media_seed = u64::from_le_bytes([
            seed[0], seed[1], seed[2], seed[3], seed[4], seed[5], seed[6], seed[7],
        ]);
        let transport = Transport::new(
            now.instant,
            TransportConfig {
                identity,
                ice: ice.clone(),
                ice_lite: false,
                ice_controlling: controlling,
                seed,
                open_channels: if opens_channels {
                    CHANNELS.map(Into::into).into()
                } else {
                    Vec::new()
                },
                local_addresses: vec![TransportAddress::udp(local_address)],
            },
        );
        Self {
            transport,
            media: Media::new(now.instant, media_seed),
            ice,
            received: Vec::new(),
            sent: BTreeMap::new(),
            is_connected: false,
        }
    }

    pub fn apply(
        &mut self,
        now: Now,
        description: &ClientDescription,
        tracks: &[LocalTrack],
    ) -> Result<(), TransportError> {
        self.transport.set_remote(now.instant, description.remote.clone())?;
        for candidate in &description.remote_candidates {
            self.transport.add_remote_candidate(now.instant, candidate);
        }
        self.media.set_description(description, tracks);
        self.received = description.receive.clone();
        self.sent = description.send.iter().map(|s| (s.cid.clone(), s.mid)).collect();
        Ok(())
    }

    /// Takes a datagram; returns the media packet in it.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Now,
        local: SocketAddr,
        remote: SocketAddr,
        datagram: &'a mut [u8],
    ) -> Option<ReceivedRtp<'a>> {
        match classify(datagram) {
            PacketClass::Rtp | PacketClass::Rtcp => self.media.handle_datagram(now, datagram),
            _ => {
                let path = Path::udp(local, remote);
                self.transport.handle_datagram(now.instant, path, datagram);
                None
            }
        }
    }

    pub fn handle_timeout(&mut self, now: Now) {
        if self.transport.poll_timeout().is_some_and(|due| due <= now.instant) {
            self.transport.handle_timeout(now.instant);
        }
        self.media.handle_timeout(now);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.transport.poll_timeout(), self.media.poll_timeout()].into_iter().flatten().min()
    }

    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<Transmit> {
        if let Some(transmit) = self.transport.poll_transmit(out) {
            return Some(transmit);
        }
        let path = self.transport.selected_path()?;
        let len = self.media.poll_transmit(out)?;
        Some(Transmit { path, len })
    }

    /// The next event of the transport; keys go to the media half on the way.
    pub fn poll_event(&mut self) -> Option<TransportEvent> {
        let event = self.transport.poll_event()?;
        if let TransportEvent::SrtpKeys(keys) = &event {
            // The keys come from our own transport, with the lengths of their profile.
            self.is_connected = self.media.set_keys(keys).is_ok();
        }
        Some(event)
    }
}

pub(crate) struct ConnectionConfig {
    pub identity: DtlsIdentity,
    pub ice: IceCredentials,
    pub controlling: bool,
    pub seed: [u8; 32],
    pub opens_channels: bool,
    pub local_address: SocketAddr,
}
