//! Bits, most significant first, and the `ns(n)` coding (AV1 section 4.10.7).

pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bits that have not been read.
    pub(super) fn left(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.at)
    }

    /// The next `count` bits, at most 32.
    pub(super) fn bits(&mut self, count: usize) -> Option<u32> {
        let mut value = 0u64;
        let end = self.at + count;
        while self.at < end {
            let &byte = self.bytes.get(self.at / 8)?;
            let left_in_byte = 8 - self.at % 8;
            let taken = left_in_byte.min(end - self.at);
            let part = byte >> (left_in_byte - taken) & 0xFFu8 >> (8 - taken);
            value = value << taken | u64::from(part);
            self.at += taken;
        }
        Some(value as u32)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        Some(self.bits(1)? != 0)
    }

    /// A value below `bound`.
    pub(super) fn below(&mut self, bound: u32) -> Option<u32> {
        let (width, short) = below_coding(bound);
        let value = self.bits(width - 1)?;
        if value < short { Some(value) } else { Some((value << 1) - short + self.bits(1)?) }
    }
}

pub(super) struct BitWriter<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    /// The low `count` bits of `value`; `None` when they do not fit into `out`.
    pub(super) fn bits(&mut self, value: u32, count: usize) -> Option<()> {
        for index in (0..count).rev() {
            let byte = self.out.get_mut(self.at / 8)?;
            if self.at.is_multiple_of(8) {
                *byte = 0;
            }
            *byte |= ((value >> index & 1) as u8) << (7 - self.at % 8);
            self.at += 1;
        }
        Some(())
    }

    pub(super) fn flag(&mut self, value: bool) -> Option<()> {
        self.bits(u32::from(value), 1)
    }

    /// A value below `bound`.
    pub(super) fn below(&mut self, value: u32, bound: u32) -> Option<()> {
        if value >= bound {
            return None;
        }
        let (width, short) = below_coding(bound);
        if value < short { self.bits(value, width - 1) } else { self.bits(value + short, width) }
    }

    /// Whole bytes written.
    pub(super) fn len(&self) -> usize {
        self.at.div_ceil(8)
    }
}

/// The width in bits of the values below `bound`, and how many of them are one bit shorter.
/// Bounds here are 1 to 33.
fn below_coding(bound: u32) -> (usize, u32) {
    let width = u32::BITS - bound.leading_zeros();
    (width as usize, (1 << width) - bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_below_a_bound_take_as_few_bits_as_the_specification_says() {
        // AV1 section 4.10.7: ns(5) codes 0 1 2 in two bits, 3 and 4 in three.
        for (value, bits, len) in
            [(0, 0b00, 2), (1, 0b01, 2), (2, 0b10, 2), (3, 0b110, 3), (4, 0b111, 3)]
        {
            let mut out = [0; 1];
            let mut writer = BitWriter::new(&mut out);
            writer.below(value, 5).unwrap();
            assert_eq!(writer.at, len);
            assert_eq!(out[0] >> (8 - len), bits);
        }
        for bound in 1..=33 {
            for value in 0..bound {
                let mut out = [0xFF; 2];
                BitWriter::new(&mut out).below(value, bound).unwrap();
                assert_eq!(BitReader::new(&out).below(bound), Some(value), "{value} of {bound}");
            }
        }
        assert_eq!(BitWriter::new(&mut [0; 2]).below(5, 5), None);
    }

    #[test]
    fn bits_cross_bytes() {
        let bytes = [0b1010_0101, 0b1100_0011, 0xFF, 0xFF, 0xFF, 0xFF];
        let mut reader = BitReader::new(&bytes);
        assert_eq!(reader.bits(3), Some(0b101));
        assert_eq!(reader.bits(7), Some(0b001_0111));
        assert_eq!(reader.bits(0), Some(0));
        assert_eq!(reader.bits(32), Some(0x0FFF_FFFF));
        assert_eq!(reader.bits(7), None);
    }
}
