//! Places that endpoints share, one for each request under way.
//!
//! A place that becomes free goes to the endpoint that holds the fewest of those that wait, and among equals to the one that waits
//! longest. So an endpoint that takes long has all places only while nobody else waits, gives the first that becomes free to whoever
//! comes, and in the end endpoints that wait hold equally many, however long their requests take.
//!
//! Invariants: nobody waits while a place is free; of an endpoint that neither holds nor waits nothing is kept; nothing is kept of a
//! wait that was given up.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The places of all.
#[derive(Debug)]
pub(super) struct Common(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Given to endpoints and to waits, so that each is another.
    next: u64,
    lines: HashMap<u64, Line>,
    /// Endpoints that wait: how many they hold, since when they wait, and which they are.
    order: BTreeSet<(usize, u64, u64)>,
}

/// What one endpoint holds, and its waits in their order.
#[derive(Debug, Default)]
struct Line {
    held: usize,
    waits: BTreeMap<u64, oneshot::Sender<CommonPlace>>,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct CommonPlace {
    common: Arc<Common>,
    endpoint: u64,
}

/// A wait for a place; given up when it is dropped.
struct Wait {
    common: Arc<Common>,
    endpoint: u64,
    ticket: u64,
    given: oneshot::Receiver<CommonPlace>,
}

impl Common {
    /// So many places.
    pub(super) fn new(places: usize) -> Arc<Common> {
        let (lines, order) = (HashMap::new(), BTreeSet::new());
        Arc::new(Common(Mutex::new(State { free: places, next: 0, lines, order })))
    }

    /// A number for a new endpoint.
    pub(super) fn endpoint(&self) -> u64 {
        self.0.lock().number()
    }

    /// Places that nobody holds.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.0.lock().free
    }

    /// A place, as soon as it is this endpoint's turn.
    pub(super) async fn take(self: &Arc<Common>, endpoint: u64) -> CommonPlace {
        let mut wait = match self.enter(endpoint) {
            Ok(place) => return place,
            Err(wait) => wait,
        };
        (&mut wait.given).await.expect("kept until it is given or given up")
    }

    /// A place that is free, or else a wait.
    fn enter(self: &Arc<Common>, endpoint: u64) -> Result<CommonPlace, Wait> {
        let mut state = self.0.lock();
        let common = self.clone();
        if state.free > 0 {
            state.free -= 1;
            state.change(endpoint, |line| line.held += 1);
            return Ok(CommonPlace { common, endpoint });
        }
        let (sender, given) = oneshot::channel();
        let ticket = state.number();
        state.change(endpoint, |line| drop(line.waits.insert(ticket, sender)));
        Err(Wait { common, endpoint, ticket, given })
    }

    /// Takes a place back and gives it to whose turn it is.
    fn give_back(self: &Arc<Common>, endpoint: u64) {
        let mut state = self.0.lock();
        state.change(endpoint, |line| line.held -= 1);
        let Some((_, _, next)) = state.order.first().copied() else {
            state.free += 1;
            return;
        };
        let first = state.change(next, |line| {
            line.held += 1;
            line.waits.pop_first()
        });
        drop(state);
        let place = CommonPlace { common: self.clone(), endpoint: next };
        // Whoever gave up at this moment drops it, and it comes back here.
        if let Some((_, waits)) = first {
            drop(waits.send(place));
        }
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Changes the line of an endpoint, and its place in the order.
    fn change<T>(&mut self, endpoint: u64, change: impl FnOnce(&mut Line) -> T) -> T {
        let line = self.lines.entry(endpoint).or_default();
        if let Some(since) = line.since() {
            self.order.remove(&(line.held, since, endpoint));
        }
        let changed = change(line);
        match line.since() {
            Some(since) => drop(self.order.insert((line.held, since, endpoint))),
            None if line.held == 0 => drop(self.lines.remove(&endpoint)),
            None => {}
        }
        changed
    }
}

impl Line {
    /// Since when it waits.
    fn since(&self) -> Option<u64> {
        self.waits.keys().next().copied()
    }
}

impl Drop for CommonPlace {
    fn drop(&mut self) {
        self.common.give_back(self.endpoint);
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let (endpoint, ticket) = (self.endpoint, self.ticket);
        // A place that was given and not taken is dropped with the receiver, after this.
        self.common.0.lock().change(endpoint, |line| drop(line.waits.remove(&ticket)));
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::Pin};

    use futures_util::FutureExt;

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = CommonPlace>>>;

    /// Begins to wait.
    fn waiting(common: &Arc<Common>, endpoint: u64) -> Waiting {
        let common = common.clone();
        let mut waiting: Waiting = Box::pin(async move { common.take(endpoint).await });
        assert!((&mut waiting).now_or_never().is_none(), "nothing is free");
        waiting
    }

    fn taken(common: &Arc<Common>, endpoint: u64) -> CommonPlace {
        common.take(endpoint).now_or_never().expect("one is free")
    }

    #[test]
    fn who_holds_none_gets_the_first_that_becomes_free_however_long_others_wait() {
        let common = Common::new(3);
        let (greedy, modest) = (common.endpoint(), common.endpoint());
        let mut held: Vec<CommonPlace> = (0..3).map(|_| taken(&common, greedy)).collect();
        let mut more: Vec<Waiting> = (0..5).map(|_| waiting(&common, greedy)).collect();
        let late = waiting(&common, modest);
        // One request of the greedy ends.
        held.pop();
        let place = late.now_or_never().expect("its turn");
        assert!(more.iter_mut().all(|wait| wait.as_mut().now_or_never().is_none()));
        drop(place);
        assert!((&mut more[0]).now_or_never().is_some(), "nobody else waits");
    }

    #[test]
    fn endpoints_that_wait_come_to_hold_equally_many_and_equals_are_served_in_turn() {
        let common = Common::new(6);
        let endpoints = [common.endpoint(), common.endpoint(), common.endpoint()];
        let mut held: Vec<(usize, CommonPlace)> =
            (0..6).map(|_| (0, taken(&common, endpoints[0]))).collect();
        let mut waits: Vec<(usize, Waiting)> = Vec::new();
        for _ in 0..6 {
            for (index, endpoint) in endpoints.iter().enumerate() {
                waits.push((index, waiting(&common, *endpoint)));
            }
        }
        let mut order = Vec::new();
        for _ in 0..4 {
            // The oldest request ends.
            drop(held.remove(0));
            let mut polled = waits.iter_mut().enumerate();
            let given = polled
                .find_map(|(at, (index, wait))| Some((at, *index, wait.as_mut().now_or_never()?)));
            let (at, index, place) = given.expect("somebody waits");
            drop(waits.remove(at));
            order.push(index);
            held.push((index, place));
        }
        assert_eq!(order, [1, 2, 1, 2]);
        let count = |index| held.iter().filter(|(of, _)| *of == index).count();
        assert_eq!([count(0), count(1), count(2)], [2, 2, 2]);
    }

    #[test]
    fn a_wait_that_is_given_up_leaves_nothing_and_its_place_goes_on() {
        let common = Common::new(1);
        let (first, second, third) = (common.endpoint(), common.endpoint(), common.endpoint());
        let place = taken(&common, first);
        let (given_up, given, next) =
            (waiting(&common, second), waiting(&common, second), waiting(&common, third));
        drop(given_up);
        assert_eq!(common.0.lock().lines[&second].waits.len(), 1);
        drop(place);
        // Given to the second, who goes before it takes it.
        drop(given);
        let place = next.now_or_never().expect("its turn");
        drop(place);
        let state = common.0.lock();
        assert_eq!((state.free, state.lines.len(), state.order.len()), (1, 0, 0));
    }
}
