//! What a broken client makes of its messages.

/// A small generator (Knuth's MMIX), so that each run of the test damages differently but again.
pub struct Damage(pub u64);

impl Damage {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }

    /// Takes lines out of a description, doubles them, or cuts them.
    pub fn text(&mut self, text: &str) -> String {
        let mut out = String::new();
        for line in text.split_inclusive('\n') {
            match self.below(60) {
                0 => {}
                1 => out.push_str(&line.repeat(2)),
                2 => out.extend(line.chars().take(self.below(line.len()))),
                _ => out.push_str(line),
            }
        }
        out
    }

    pub fn bytes(&mut self, bytes: &mut Vec<u8>) {
        match self.below(4) {
            0 => bytes.truncate(self.below(bytes.len())),
            1 => {
                let index = self.below(bytes.len());
                if let Some(byte) = bytes.get_mut(index) {
                    *byte ^= 1 << self.below(8);
                }
            }
            _ => {}
        }
    }
}
