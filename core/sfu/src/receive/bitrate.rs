//! How much each layer of a received stream takes.

use std::time::{Duration, Instant};

use parlor_congestion::allocate::{LayerBitrates, SPATIAL_MAX, TEMPORAL_MAX};

/// How long bytes are counted.
const WINDOW: Duration = Duration::from_secs(1);
/// The least time that tells something.
const LEAST: Duration = Duration::from_millis(300);
/// What a packet takes beside its payload: RTP header and extensions, SRTP tag.
pub const OVERHEAD_BYTES: usize = 50;

type Bytes = [[u32; TEMPORAL_MAX]; SPATIAL_MAX];

/// See the module.
#[derive(Default)]
pub struct LayerRates {
    window: Option<Instant>,
    bytes: Bytes,
    /// Bits a second of each layer alone, smoothed.
    bps: Option<Bytes>,
}

impl LayerRates {
    /// A packet has come.
    #[inline]
    pub fn count(&mut self, now: Instant, spatial: u8, temporal: u8, payload_bytes: usize) {
        let window = *self.window.get_or_insert(now);
        if now >= window + WINDOW {
            self.turn(now, window);
        }
        let (spatial, temporal) = (usize::from(spatial), usize::from(temporal));
        let place = self
            .bytes
            .get_mut(spatial.min(SPATIAL_MAX - 1))
            .and_then(|layer| layer.get_mut(temporal.min(TEMPORAL_MAX - 1)));
        if let Some(place) = place {
            *place = place.saturating_add((payload_bytes + OVERHEAD_BYTES) as u32);
        }
    }

    fn turn(&mut self, now: Instant, window: Instant) {
        let elapsed = now.saturating_duration_since(window);
        let new = rates(&self.bytes, elapsed);
        // After a pause the past tells nothing.
        let old = self.bps.filter(|_| elapsed < 2 * WINDOW).unwrap_or(new);
        let mut smoothed = new;
        for (smoothed, old) in smoothed.iter_mut().flatten().zip(old.iter().flatten()) {
            *smoothed = smoothed.midpoint(*old);
        }
        self.bps = Some(smoothed);
        (self.bytes, self.window) = ([[0; TEMPORAL_MAX]; SPATIAL_MAX], Some(now));
    }

    /// What each layer takes with all below it; `None` as long as that is not known.
    pub fn cumulative(&self, now: Instant) -> Option<LayerBitrates> {
        let alone = match (self.bps, self.window) {
            (Some(bps), _) => bps,
            (None, Some(window)) if now >= window + LEAST => {
                rates(&self.bytes, now.saturating_duration_since(window))
            }
            _ => return None,
        };
        let mut out = LayerBitrates::default();
        let mut below = [0_u32; TEMPORAL_MAX];
        for (out, alone) in out.iter_mut().zip(&alone) {
            let mut sum = 0_u32;
            for ((out, alone), below) in out.iter_mut().zip(alone).zip(&mut below) {
                *below = below.saturating_add(*alone);
                sum = sum.saturating_add(*below);
                *out = (*alone > 0).then_some(sum);
            }
        }
        Some(out)
    }
}

fn rates(bytes: &Bytes, elapsed: Duration) -> Bytes {
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.map(|layer| {
        layer.map(|bytes| u32::try_from(u64::from(bytes) * 8000 / ms).unwrap_or(u32::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_with_those_below_them() {
        let start = Instant::now();
        let mut rates = LayerRates::default();
        assert!(rates.cumulative(start).is_none());
        for n in 0..200u32 {
            let now = start + Duration::from_millis(10) * n;
            for (spatial, bytes) in [(0, 75), (1, 200)] {
                rates.count(now, spatial, (n % 2) as u8, bytes);
            }
        }
        let found = rates.cumulative(start + Duration::from_secs(2)).unwrap();
        // 100 packets a second, half of them of each temporal layer.
        let kbps = found.map(|layer| layer.map(|bps| bps.map(|bps| (bps + 500) / 1000)));
        assert_eq!(kbps[0], [Some(50), Some(100), None, None]);
        assert_eq!(kbps[1], [Some(150), Some(300), None, None]);
        assert_eq!(kbps[2], [None; 4]);
    }
}
