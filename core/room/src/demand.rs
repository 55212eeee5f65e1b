//! Which layers of a track somebody wants, so that its publisher need not send the others.

use crate::{Quality, TrackCodec};
use std::time::{Duration, Instant};

/// How long less is wanted of a track before its publisher is told.
pub const DEMAND_LOWER_DELAY: Duration = Duration::from_secs(5);

/// What the publisher was told that subscribers want of one codec of a track.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Demand {
    /// `None` before the first subscriber of the track.
    told: Option<Option<Quality>>,
    /// Since when less is wanted.
    less_since: Option<Instant>,
}

impl Demand {
    /// Takes the highest quality that any subscriber wants, `None` if nobody wants any. Returns
    /// whether the publisher has to be told now: of more at once, of less after
    /// [`DEMAND_LOWER_DELAY`].
    pub fn update(&mut self, now: Instant, wanted: Option<Quality>) -> bool {
        let is_more = match self.told {
            None if wanted.is_none() => return false,
            None => true,
            Some(told) if told == wanted => {
                self.less_since = None;
                return false;
            }
            Some(told) => wanted > told,
        };
        let since = *self.less_since.get_or_insert(now);
        if !is_more && now < since + DEMAND_LOWER_DELAY {
            return false;
        }
        self.tell(wanted)
    }

    /// As [`Demand::update`], without delay: another codec has taken the place of this one.
    pub fn update_at_once(&mut self, wanted: Option<Quality>) -> bool {
        self.told != Some(wanted) && self.tell(wanted)
    }

    /// Another codec of the track has subscribers: whoever sends this one may be sending all of it.
    pub fn begin(&mut self) {
        self.told.get_or_insert(Some(Quality::High));
    }

    fn tell(&mut self, wanted: Option<Quality>) -> bool {
        self.less_since = None;
        self.told = Some(wanted);
        true
    }

    /// What the publisher was told last.
    pub fn told(&self) -> Option<Option<Quality>> {
        self.told
    }

    /// When [`Demand::update`] has something to say if nothing changes.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.less_since.map(|since| since + DEMAND_LOWER_DELAY)
    }
}

impl TrackCodec {
    /// Whether each quality, lowest first, is wanted if `wanted` is the highest: those beyond the
    /// published layers are not, where layers are streams of their own.
    pub fn wanted_qualities(&self, wanted: Option<Quality>) -> [(Quality, bool); 3] {
        let layers = self.layers.len();
        let best = match layers {
            2 if self.is_simulcast() => Quality::Medium,
            _ => Quality::High,
        };
        // A single layer is of any quality.
        let wanted = wanted.map(|wanted| if layers > 1 { wanted } else { Quality::High });
        [Quality::Low, Quality::Medium, Quality::High]
            .map(|quality| (quality, quality <= best && wanted.is_some_and(|w| quality <= w)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_told_at_once_and_less_after_a_while() {
        let now = Instant::now();
        let mut demand = Demand::default();
        assert!(!demand.update(now, None), "nobody has subscribed");
        assert!(demand.update(now, Some(Quality::Low)));
        assert!(demand.update(now, Some(Quality::High)));
        assert!(!demand.update(now, Some(Quality::Medium)));
        let due = demand.poll_timeout().unwrap();
        assert_eq!(due, now + DEMAND_LOWER_DELAY);
        assert!(demand.update(due, None));
        assert_eq!((demand.told(), demand.poll_timeout()), (Some(None), None));
        demand.update(now, Some(Quality::High));
        demand.update(now, None);
        assert!(!demand.update(now, Some(Quality::High)), "wanted again in time");
        assert_eq!(demand.poll_timeout(), None);
        assert!(demand.update_at_once(None) && !demand.update_at_once(None));
    }
}
