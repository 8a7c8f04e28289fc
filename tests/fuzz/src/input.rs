//! Values from a fuzzer's bytes; when they are used up, zeros.

pub struct Input<'a>(pub &'a [u8]);

impl Input<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.u8()))
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.u8()))
    }

    /// Small, huge, or next to a power of two: where bounds are.
    pub fn odd_u64(&mut self) -> u64 {
        match self.u8() {
            n @ 0..64 => n.into(),
            n @ 64..128 => 1 << (n - 64),
            n @ 128..192 => (1_u64 << (n - 128)).wrapping_sub(1),
            192..208 => u64::MAX - u64::from(self.u8()),
            _ => self.u64(),
        }
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.u16()) % n
    }

    pub fn list<T>(&mut self, most: usize, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| item(self)).collect()
    }
}
