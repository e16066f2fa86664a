//! How many connections a door may have, in all and from one address.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::metrics::DoorMeter;

/// Counts connections against the caps.
#[derive(Debug)]
pub(crate) struct Caps {
    total_max: u32,
    /// Loopback addresses are free of it.
    per_ip_max: u32,
    counts: Mutex<Counts>,
    meter: Arc<DoorMeter>,
}

#[derive(Debug, Default)]
struct Counts {
    total: u32,
    /// Addresses with at least one connection.
    by_ip: HashMap<IpAddr, u32>,
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    caps: Arc<Caps>,
    ip: IpAddr,
}

impl Caps {
    /// At most `total_max` in all and `per_ip_max` from one address.
    pub(crate) fn new(total_max: u32, per_ip_max: u32, meter: Arc<DoorMeter>) -> Arc<Caps> {
        Arc::new(Caps { total_max, per_ip_max, counts: Mutex::default(), meter })
    }

    /// A place for a connection from `ip`, if there is one.
    pub(crate) fn take(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let mut counts = self.counts.lock();
        let from_ip = counts.by_ip.get(&ip).copied().unwrap_or(0);
        let full = counts.total >= self.total_max;
        if full || (from_ip >= self.per_ip_max && !ip.is_loopback()) {
            self.meter.connection_refused();
            return None;
        }
        self.meter.connection_opened();
        counts.total += 1;
        counts.by_ip.insert(ip, from_ip + 1);
        Some(Place { caps: self.clone(), ip })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.caps.meter.connection_closed();
        let mut counts = self.caps.counts.lock();
        counts.total -= 1;
        let left = counts.by_ip.get(&self.ip).map_or(0, |count| count - 1);
        if left == 0 {
            counts.by_ip.remove(&self.ip);
        } else {
            counts.by_ip.insert(self.ip, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_all_and_by_address() {
        let meter = Arc::new(DoorMeter::new("test", &[]));
        let caps = Caps::new(4, 2, meter.clone());
        let (one, two): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let first = caps.take(one).unwrap();
        let _second = caps.take(one).unwrap();
        assert!(caps.take(one).is_none(), "two from one address");
        drop(first);
        let _third = caps.take(one).unwrap();
        let _fourth = caps.take(two).unwrap();
        let local: IpAddr = [127, 0, 0, 1].into();
        let _fifth = caps.take(local).unwrap();
        assert!(caps.take(two).is_none(), "four in all");
        let seen = (meter.connections(), meter.connections_opened(), meter.connections_refused());
        assert_eq!(seen, (4, 5, 2));
    }
}
