//! How the server API has answered, for metrics.

use parlor_model::Histogram;
use std::{collections::BTreeMap, time::Duration};

/// Upper bounds of the buckets of [`Answered::latency`], in microseconds.
pub const LATENCY_BOUNDS_US: [u64; 9] =
    [1000, 2500, 5000, 10_000, 25_000, 100_000, 500_000, 2_000_000, 10_000_000];

/// The answers of one method.
#[derive(Clone, Default, Debug)]
pub struct Answered {
    /// How many there were, by HTTP status.
    pub by_status: BTreeMap<u16, u64>,
    /// From the head of the request to that of the answer.
    pub latency: Histogram<{ LATENCY_BOUNDS_US.len() + 1 }>,
}

impl Answered {
    pub(crate) fn note(&mut self, status: u16, took: Duration) {
        *self.by_status.entry(status).or_default() += 1;
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latency.record(&LATENCY_BOUNDS_US, us);
    }
}
