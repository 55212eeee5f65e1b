//! The packet path does not allocate: 2000 runs out, 10 000 datagrams in.
#![allow(clippy::unwrap_used)]

use parlor_net::{Poll, RecvBatch, Run, UdpSocket};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    os::fd::AsFd,
    time::Duration,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: hands everything to the system's allocator as it came; counting touches a thread-local
// integer without destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from `alloc`, thus from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn sending_waiting_and_receiving_allocate_nothing() {
    let mut from = UdpSocket::bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let mut to = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (mut batch, mut poll) = (RecvBatch::new(), Poll::new());
    let bytes = [7; 5 * 1200];
    let run = Run {
        local: Some("127.0.0.1".parse().unwrap()),
        remote: to.local_address(),
        bytes: &bytes,
        segment_bytes: 1200,
    };
    let mut received = 0;
    for round in 0..201 {
        if round == 1 {
            ALLOCATIONS.set(0); // the first round was to warm up
        }
        from.send([run; 10], Duration::ZERO);
        poll.wait([to.as_fd()], Some(Duration::from_secs(1))).unwrap();
        while to.recv(&mut batch, |_, _, _| received += 1).unwrap() > 0 {}
    }
    assert_eq!(ALLOCATIONS.get(), 0);
    assert_eq!(received, 201 * 50);
}
