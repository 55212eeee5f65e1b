//! Which layers of a track somebody wants, so that its publisher need not send the others.

use crate::{Quality, Track};
use std::time::{Duration, Instant};

/// How long less is wanted of a track before its publisher is told.
pub const DEMAND_LOWER_DELAY: Duration = Duration::from_secs(5);

/// What the publisher of a track was told that its subscribers want.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Demand {
    /// `None` before the first subscriber.
    told: Option<Option<Quality>>,
    /// Since when less is wanted.
    less_since: Option<Instant>,
}

impl Demand {
    /// Takes the highest quality that any subscriber wants, `None` if nobody wants any. Returns
    /// what the publisher has to be told now: more at once, less after [`DEMAND_LOWER_DELAY`].
    pub fn update(&mut self, now: Instant, wanted: Option<Quality>) -> Option<Option<Quality>> {
        let is_more = match self.told {
            None if wanted.is_none() => return None,
            None => true,
            Some(told) if told == wanted => {
                self.less_since = None;
                return None;
            }
            Some(told) => wanted > told,
        };
        let since = *self.less_since.get_or_insert(now);
        if !is_more && now < since + DEMAND_LOWER_DELAY {
            return None;
        }
        self.less_since = None;
        self.told = Some(wanted);
        self.told
    }

    /// When [`Demand::update`] has something to say if nothing changes.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.less_since.map(|since| since + DEMAND_LOWER_DELAY)
    }
}

impl Track {
    /// Whether each quality, lowest first, is wanted if `wanted` is the highest: those beyond the
    /// published layers are not, where layers are streams of their own.
    pub fn wanted_qualities(&self, wanted: Option<Quality>) -> [(Quality, bool); 3] {
        let layers = self.codecs.first().map_or(0, |codec| codec.layers.len());
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
        assert_eq!(demand.update(now, None), None, "nobody has subscribed");
        assert_eq!(demand.update(now, Some(Quality::Low)), Some(Some(Quality::Low)));
        assert_eq!(demand.update(now, Some(Quality::High)), Some(Some(Quality::High)));
        assert_eq!(demand.update(now, Some(Quality::Medium)), None);
        let due = demand.poll_timeout().unwrap();
        assert_eq!(due, now + DEMAND_LOWER_DELAY);
        assert_eq!(demand.update(due, None), Some(None));
        assert_eq!(demand.poll_timeout(), None);
        demand.update(now, Some(Quality::High));
        demand.update(now, None);
        assert_eq!(demand.update(now, Some(Quality::High)), None, "wanted again in time");
        assert_eq!(demand.poll_timeout(), None);
    }
}
