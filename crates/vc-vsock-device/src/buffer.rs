//! Bytes from the guest that wait for the host program.

use std::collections::VecDeque;

/// A first-in first-out buffer of bytes. Its bound is the connection's window: nothing is put in
/// that the window did not admit. Empty, it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct ByteQueue {
    bytes: VecDeque<u8>,
}

impl ByteQueue {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds bytes at the end.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// The first bytes that lie together in memory; empty only when nothing waits.
    pub(crate) fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// Removes `count` bytes, or all if there are fewer, from the front.
    pub(crate) fn drop_front(&mut self, count: usize) {
        if count >= self.bytes.len() {
            self.bytes = VecDeque::new();
        } else {
            self.bytes.drain(..count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_and_the_memory_is_given_back() {
        let mut queue = ByteQueue::default();
        let mut out = Vec::new();
        for round in 0..100u8 {
            queue.push(&[round; 37]);
            let taken = queue.front().len().min(23);
            out.extend_from_slice(&queue.front()[..taken]);
            queue.drop_front(taken);
        }
        while !queue.is_empty() {
            let taken = queue.front().len();
            out.extend_from_slice(queue.front());
            queue.drop_front(taken);
        }
        let expected: Vec<u8> = (0..100u8).flat_map(|round| [round; 37]).collect();
        assert_eq!(out, expected);
        assert_eq!(queue.bytes.capacity(), 0);
    }
}
