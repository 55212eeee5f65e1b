//! What went through a socket, and what did not.

use std::ops::AddAssign;

macro_rules! counters {
    ($(#[$about:meta])* $counters:ident { $($(#[$doc:meta])* $name:ident),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct $counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl $counters {
            /// How many counters there are.
            pub const LEN: usize = [$(stringify!($name)),*].len();

            /// Name and value of each, in the order of declaration.
            pub fn entries(&self) -> [(&'static str, u64); Self::LEN] {
                [$((stringify!($name), self.$name)),*]
            }

            /// From the values of [`Self::entries`].
            pub fn from_values(values: [u64; Self::LEN]) -> Self {
                let [$($name),*] = values;
                Self { $($name),* }
            }
        }

        impl AddAssign for $counters {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Totals of a socket since it was bound. Each datagram that is lost on our side of the
    /// wire is in exactly one of the `receive_*` or `send_*` counters.
    NetCounters {
        /// Datagrams handed to the caller.
        received_datagrams,
        /// Their payload in bytes.
        received_bytes,
        /// System calls that returned datagrams.
        receive_calls,
        /// Dropped by the kernel because we did not read in time (`SO_RXQ_OVFL`).
        receive_overflow,
        /// Longer than a datagram can be.
        receive_truncated,
        /// Without an address that we understand.
        receive_unaddressed,
        /// Datagrams that the kernel took.
        sent_datagrams,
        /// Their payload in bytes.
        sent_bytes,
        /// Messages that they left in; less than `sent_datagrams` where segmentation works.
        sent_messages,
        /// System calls for that.
        send_calls,
        /// Times that a run had to be cut up by us because the kernel refused to.
        segmentation_refused,
        /// Dropped: the send buffer stayed full (`EAGAIN`).
        send_would_block,
        /// Dropped: the device queue or kernel memory is full (`ENOBUFS`, `ENOMEM`).
        send_no_buffers,
        /// Dropped: longer than the path carries (`EMSGSIZE`).
        send_too_big,
        /// Dropped: no route, no such source address, or forbidden by a filter.
        send_unreachable,
        /// Dropped for another reason.
        send_failed,
    }
}

counters! {
    /// What went through TCP connections, and what did not.
    TcpCounters {
        /// Datagrams handed to the caller.
        received_datagrams,
        /// All bytes, those of the lengths too.
        received_bytes,
        /// Datagrams taken, by the kernel or into the queue.
        sent_datagrams,
        /// All their bytes, those of the lengths too.
        sent_bytes,
        /// System calls for that.
        send_calls,
        /// Dropped: the reader is slow and as much as may wait is waiting.
        send_queue_full,
        /// Dropped: there is no such connection any more.
        send_unconnected,
    }
}
