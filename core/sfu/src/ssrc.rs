//! Values by SSRC, few enough for one sorted vector.

use parlor_model::Ssrc;

/// See the module.
pub struct SsrcTable<T> {
    entries: Vec<(Ssrc, T)>,
}

impl<T> Default for SsrcTable<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> SsrcTable<T> {
    #[inline]
    pub fn get(&self, ssrc: Ssrc) -> Option<&T> {
        let at = self.entries.binary_search_by_key(&ssrc, |entry| entry.0).ok()?;
        self.entries.get(at).map(|entry| &entry.1)
    }

    /// Sets the value of an SSRC and returns the one before.
    pub fn insert(&mut self, ssrc: Ssrc, value: T) -> Option<T> {
        match self.entries.binary_search_by_key(&ssrc, |entry| entry.0) {
            Ok(at) => self.entries.get_mut(at).map(|entry| std::mem::replace(&mut entry.1, value)),
            Err(at) => {
                self.entries.insert(at, (ssrc, value));
                None
            }
        }
    }

    pub fn retain(&mut self, mut keep: impl FnMut(Ssrc, &T) -> bool) {
        self.entries.retain(|(ssrc, value)| keep(*ssrc, value));
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
