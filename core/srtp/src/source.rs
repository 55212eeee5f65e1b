//! State for each SSRC, bounded.

/// Most SSRCs that a sender or a receiver keeps state for.
///
/// A sender refuses one more: to forget a roll-over counter would be to use a nonce twice. A
/// receiver forgets the one that has been silent longest.
pub const MAX_SOURCES: usize = 256;

/// States by SSRC, sorted.
#[derive(Debug)]
pub(crate) struct SourceTable<T> {
    sources: Vec<Source<T>>,
    /// Counts uses; orders sources by their last one.
    uses: u64,
}

#[derive(Debug)]
struct Source<T> {
    ssrc: u32,
    last_use: u64,
    state: T,
}

impl<T> SourceTable<T> {
    pub fn new() -> Self {
        Self { sources: Vec::new(), uses: 0 }
    }

    pub fn is_full(&self) -> bool {
        self.sources.len() >= MAX_SOURCES
    }

    pub fn get(&self, ssrc: u32) -> Option<&T> {
        let position = self.position(ssrc).ok()?;
        self.sources.get(position).map(|source| &source.state)
    }

    /// The state of `ssrc`, which counts as used now.
    pub fn use_mut(&mut self, ssrc: u32) -> Option<&mut T> {
        let position = self.position(ssrc).ok()?;
        self.uses += 1;
        let source = self.sources.get_mut(position)?;
        source.last_use = self.uses;
        Some(&mut source.state)
    }

    /// Adds a source; a full table first forgets the one used longest ago.
    pub fn insert(&mut self, ssrc: u32, state: T) {
        if self.is_full() {
            let oldest = self.sources.iter().enumerate().min_by_key(|(_, source)| source.last_use);
            if let Some((position, _)) = oldest {
                self.sources.remove(position);
            }
        }
        self.uses += 1;
        let source = Source { ssrc, last_use: self.uses, state };
        match self.position(ssrc) {
            Ok(position) => self.sources[position] = source,
            Err(position) => self.sources.insert(position, source),
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    fn position(&self, ssrc: u32) -> Result<usize, usize> {
        self.sources.binary_search_by_key(&ssrc, |source| source.ssrc)
    }
}
