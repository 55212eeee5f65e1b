//! The participants of a room whose sockets are here, and when the next of them needs something.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    time::Instant,
};

use parlor_model::{ParticipantSid, ShardId};

use crate::member::Member;

/// By sid. Whoever may have been changed is filed under its deadline anew before the next is asked
/// for: a message to one of a thousand does not walk all of them.
#[derive(Default)]
pub(crate) struct Members {
    /// Boxed: a node of the map has room for eleven.
    by_sid: BTreeMap<ParticipantSid, Box<Member>>,
    filed: BTreeMap<ParticipantSid, Instant>,
    deadlines: BTreeSet<(Instant, ParticipantSid)>,
    changed: BTreeSet<ParticipantSid>,
    pub(crate) load: Load,
}

/// How much media threads have to do, by what is counted.
#[derive(Default)]
pub(crate) struct Load(BTreeMap<ShardId, usize>);

impl Load {
    pub(crate) fn add(&mut self, shard: ShardId) {
        *self.0.entry(shard).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, shard: ShardId) {
        if let Some(load) = self.0.get_mut(&shard) {
            *load = load.saturating_sub(1);
        }
    }

    pub(crate) fn on(&self, shard: ShardId) -> usize {
        self.0.get(&shard).copied().unwrap_or(0)
    }
}

impl Members {
    pub(crate) fn len(&self) -> usize {
        self.by_sid.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_sid.is_empty()
    }

    pub(crate) fn contains_key(&self, sid: &ParticipantSid) -> bool {
        self.by_sid.contains_key(sid)
    }

    pub(crate) fn keys(&self) -> btree_map::Keys<'_, ParticipantSid, Box<Member>> {
        self.by_sid.keys()
    }

    pub(crate) fn values(&self) -> btree_map::Values<'_, ParticipantSid, Box<Member>> {
        self.by_sid.values()
    }

    pub(crate) fn get(&self, sid: &ParticipantSid) -> Option<&Member> {
        self.by_sid.get(sid).map(|member| &**member)
    }

    pub(crate) fn get_mut(&mut self, sid: &ParticipantSid) -> Option<&mut Member> {
        let member = self.by_sid.get_mut(sid)?;
        if !self.changed.contains(sid) {
            self.changed.insert(sid.clone());
        }
        Some(member)
    }

    pub(crate) fn insert(&mut self, sid: ParticipantSid, member: Box<Member>) {
        self.changed.insert(sid.clone());
        self.load.add(member.connection.shard());
        self.by_sid.insert(sid, member);
    }

    pub(crate) fn remove(&mut self, sid: &ParticipantSid) -> Option<Box<Member>> {
        self.changed.insert(sid.clone());
        let member = self.by_sid.remove(sid)?;
        self.load.remove(member.connection.shard());
        Some(member)
    }

    /// The next deadline of one of them.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        self.file_changed();
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// Whose deadlines have come.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<ParticipantSid> {
        self.file_changed();
        let due = self.deadlines.iter().take_while(|(due, _)| *due <= now);
        due.map(|(_, sid)| sid.clone()).collect()
    }

    fn file_changed(&mut self) {
        for sid in std::mem::take(&mut self.changed) {
            let due = self.by_sid.get(&sid).and_then(|member| member.deadline());
            if self.filed.get(&sid) == due.as_ref() {
                continue;
            }
            if let Some(before) = self.filed.remove(&sid) {
                self.deadlines.remove(&(before, sid.clone()));
            }
            if let Some(due) = due {
                self.deadlines.insert((due, sid.clone()));
                self.filed.insert(sid, due);
            }
        }
    }
}
