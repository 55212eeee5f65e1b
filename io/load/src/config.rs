//! What load to make.

use parlor_client::Model;
use parlor_model::Codec;
use std::time::Duration;

/// A load on a server: the flags of `lk load-test`, and more.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// The server: `ws://host:port`.
    pub url: String,
    /// API key that signs the tokens.
    pub api_key: String,
    /// Its secret.
    pub api_secret: String,
    /// The room; with several rooms their names have a number behind it.
    pub room: String,
    /// Number of rooms, each with the participants below.
    pub rooms: usize,
    /// From the last media connection to the beginning of the measurement.
    pub warm_up: Duration,
    /// How long to measure after that; `None` until stopped.
    pub duration: Option<Duration>,
    /// Participants with a camera in each room.
    pub video_publishers: usize,
    /// Participants with a microphone in each room; the first of those with a camera have one too.
    pub audio_publishers: usize,
    /// Participants who only receive in each room.
    pub subscribers: usize,
    /// Beginning of every identity.
    pub identity_prefix: String,
    /// Size of the picture.
    pub resolution: Resolution,
    /// Codec of video.
    pub codec: Codec,
    /// Participants who begin to join in a second, in all rooms together.
    pub joins_per_second: f64,
    /// What subscribers show.
    pub layout: Layout,
    /// Whether VP8 and H264 come in several sizes, VP9 and AV1 in spatial layers.
    pub simulcast: bool,
    /// Whether one speaks at a time, in turn; else all do.
    pub simulate_speakers: bool,
    /// Whether those who do not speak send as good as nothing (Opus DTX).
    pub dtx: bool,
    /// Whether publishers receive what the others publish.
    pub publishers_receive: bool,
    /// Subscribers who leave and are replaced in a second.
    pub churn_per_second: f64,
    /// Share of datagrams that is thrown away in each direction, 0 to 1.
    pub loss: f64,
    /// Connection model.
    pub model: Model,
    /// Whether participants give transport-wide feedback, by which a server estimates their links.
    pub transport_feedback: bool,
    /// Threads that drive the participants.
    pub threads: usize,
    /// A server on this machine whose CPU time and memory to read.
    pub server_pid: Option<u32>,
}

/// How large the largest picture is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolution {
    /// 1280 x 720.
    High,
    /// 640 x 360.
    Medium,
    /// 320 x 180.
    Low,
}

impl Resolution {
    /// How many of the three usual sizes fit.
    pub fn layers(self) -> usize {
        match self {
            Resolution::High => 3,
            Resolution::Medium => 2,
            Resolution::Low => 1,
        }
    }
}

/// Which participants a subscriber shows, and how large.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// Everyone, in full; what the server does by itself.
    All,
    /// One large and five small.
    Speaker,
    /// Nine.
    Grid3x3,
    /// Sixteen.
    Grid4x4,
    /// Twenty-five.
    Grid5x5,
}

impl Layout {
    /// Width and height in pixels of each place; `None` for no end of places.
    pub fn places(self) -> Option<Vec<(u32, u32)>> {
        const SMALL: (u32, u32) = (320, 180);
        match self {
            Layout::All => None,
            Layout::Speaker => Some([vec![(1280, 720)], vec![SMALL; 5]].concat()),
            Layout::Grid3x3 => Some(vec![(640, 360); 9]),
            Layout::Grid4x4 => Some(vec![SMALL; 16]),
            Layout::Grid5x5 => Some(vec![SMALL; 25]),
        }
    }
}

impl LoadConfig {
    /// Participants in each room who publish.
    pub fn publishers(&self) -> usize {
        self.video_publishers.max(self.audio_publishers)
    }

    /// Tracks that one subscriber receives.
    pub fn tracks_per_subscriber(&self) -> usize {
        let places = self.layout.places().map_or(usize::MAX, |places| places.len());
        self.video_publishers.min(places) + self.audio_publishers.min(places)
    }

    /// Tracks that all participants of a room receive together.
    pub fn tracks_per_room(&self) -> usize {
        let all = self.tracks_per_subscriber();
        let publishers = if self.publishers_receive { self.publishers() } else { 0 };
        let own = if publishers > 0 { self.video_publishers + self.audio_publishers } else { 0 };
        (self.subscribers + publishers) * all - own.min(publishers * all)
    }

    /// The name of a room by its number.
    pub fn room_name(&self, room: usize) -> String {
        if self.rooms == 1 { self.room.clone() } else { format!("{}-{room}", self.room) }
    }
}
