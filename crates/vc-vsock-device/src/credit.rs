//! Who may send how much: the counters of virtio-vsock's flow control, in both directions.
//!
//! All counters are free-running and wrap; only differences mean anything. The guest's numbers
//! are believed as far as they can only slow down the guest itself.

/// The guest sent more than it was allowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overrun;

/// What the guest lets the host send.
#[derive(Debug, Clone, Default)]
pub(crate) struct GuestCredit {
    buf_alloc: u32,
    fwd_cnt: u32,
    sent: u32,
}

impl GuestCredit {
    /// Takes the counters of a packet of the guest.
    ///
    /// Two threads of a guest may queue packets in another order than they filled in the
    /// counters: a count that goes back, or that is ahead of what was sent, changes nothing.
    pub(crate) fn update(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.buf_alloc = buf_alloc;
        let advance = fwd_cnt.wrapping_sub(self.fwd_cnt);
        if advance <= self.in_flight() {
            self.fwd_cnt = fwd_cnt;
        }
    }

    /// Bytes that may be sent now.
    pub(crate) fn available(&self) -> u32 {
        self.buf_alloc.saturating_sub(self.in_flight())
    }

    /// Counts bytes that were sent; never more than are available.
    pub(crate) fn spend(&mut self, bytes: u32) {
        debug_assert!(
            bytes <= self.available(),
            "more was sent than the guest allowed"
        );
        self.sent = self.sent.wrapping_add(bytes);
    }

    fn in_flight(&self) -> u32 {
        self.sent.wrapping_sub(self.fwd_cnt)
    }
}

/// What the host lets the guest send: a window that bounds the bytes held for the host program.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    size: u32,
    held: u32,
    forwarded: u32,
    told: u32,
}

impl Window {
    /// An empty window of `size` bytes.
    pub(crate) fn new(size: u32) -> Self {
        Self {
            size,
            held: 0,
            forwarded: 0,
            told: 0,
        }
    }

    /// Counts bytes that came from the guest.
    ///
    /// # Errors
    ///
    /// [`Overrun`] when the guest had no right to send them; nothing is counted then.
    pub(crate) fn receive(&mut self, bytes: u32) -> Result<(), Overrun> {
        if bytes > self.size - self.held {
            return Err(Overrun);
        }
        self.held += bytes;
        Ok(())
    }

    /// Counts bytes that the host program took, or that nobody will ever take.
    pub(crate) fn forward(&mut self, bytes: u32) {
        let bytes = bytes.min(self.held);
        self.held -= bytes;
        self.forwarded = self.forwarded.wrapping_add(bytes);
    }

    /// Bytes that came and were not forwarded yet.
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// Whether the guest should be told that it may send more. A quarter of the window is enough
    /// to be worth a packet, and leaves a guest that waits never without one: what it does not
    /// know of is less than a quarter whenever everything was forwarded.
    pub(crate) fn update_due(&self) -> bool {
        self.forwarded.wrapping_sub(self.told) >= self.size / 4
    }

    /// The counters `(buf_alloc, fwd_cnt)` for a packet that is being sent.
    pub(crate) fn tell(&mut self) -> (u32, u32) {
        self.told = self.forwarded;
        (self.size, self.forwarded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credit_is_spent_and_given_back() {
        let mut credit = GuestCredit::default();
        assert_eq!(credit.available(), 0);
        credit.update(100, 0);
        credit.spend(60);
        assert_eq!(credit.available(), 40);
        credit.update(100, 50);
        assert_eq!(credit.available(), 90);
    }

    #[test]
    fn a_count_that_goes_back_or_ahead_changes_nothing() {
        let mut credit = GuestCredit::default();
        credit.update(100, 0);
        credit.spend(60);
        credit.update(100, 50);
        credit.update(100, 40);
        assert_eq!(credit.available(), 90);
        credit.update(100, 61);
        assert_eq!(credit.available(), 90);
    }

    #[test]
    fn a_window_that_shrinks_below_what_is_in_flight_gives_nothing() {
        let mut credit = GuestCredit::default();
        credit.update(100, 0);
        credit.spend(60);
        credit.update(10, 0);
        assert_eq!(credit.available(), 0);
    }

    #[test]
    fn counters_wrap() {
        let mut credit = GuestCredit::default();
        let mut window = Window::new(u32::MAX);
        for _ in 0..4 {
            credit.update(u32::MAX, credit.sent);
            credit.spend(credit.available());
            window.receive(u32::MAX).unwrap();
            window.forward(u32::MAX);
        }
        assert_eq!(credit.available(), 0);
        assert_eq!(window.tell(), (u32::MAX, u32::MAX.wrapping_mul(4)));
    }

    #[test]
    fn the_window_refuses_what_does_not_fit() {
        let mut window = Window::new(100);
        window.receive(100).unwrap();
        assert_eq!(window.receive(1), Err(Overrun));
        window.forward(30);
        assert!(window.update_due());
        assert_eq!(window.tell(), (100, 30));
        assert!(!window.update_due());
        window.receive(30).unwrap();
        assert_eq!(window.receive(1), Err(Overrun));
    }
}
