//! Steps that readers of one topic take together.
//!
//! A thousand pages that show one topic stand at the same cursor nearly all the time. The first of them that wants to go on from there
//! takes the step: it waits, reads and writes. The others wait for it and have the same text. Whoever comes to that cursor a moment later,
//! because his connection is slower, finds the text here still, and so comes the way that the others went.
//!
//! ```text
//! place (cursor, filter) -> nobody was here:  the reader leads, if it is near the end; else it reads by itself
//!                        -> one is under way: wait for it; look again when it is given up
//!                        -> it is over:       its text, and the cursor after it
//! ```
//!
//! Invariants:
//! - What a step writes depends on its place alone, up to where a read ends; so a step of another reader may stand for one's own.
//! - Only a whole step is shared: no error, nothing left over, text of at most [`STEP_BYTES_MAX`]. Else those who wait read by themselves.
//! - What is kept is a copy and may be forgotten at any time. What is older than [`KEPT_FOR`] is not given out; more than [`KEPT_BYTES`] is never kept.
//! - A step under way belongs to its reader, on whose connection it is counted. With the reader it is given up.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use super::{Cursor, Filter, Form};

/// Most bytes that are kept of one form, with the places.
const KEPT_BYTES: usize = 2 << 20;
/// What is older is never given out, and is forgotten when the next reader comes.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// A step with more text is not shared.
const STEP_BYTES_MAX: usize = 512 << 10;
/// What a step and its place take at most, without text, filter and positions.
const ENTRY_BYTES: usize = 512;
/// The same for one position in both cursors, as a map keeps them.
const POSITION_BYTES: usize = 96;

/// Steps of all readers that write in one form.
pub(in super::super) struct Shared<F> {
    /// Makes a form with nothing in it.
    empty: fn() -> F,
    steps: Arc<Mutex<Steps<F>>>,
}

/// Where a step begins, and what it passes over.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) cursor: Cursor,
    pub(super) filter: Filter,
}

/// What a step wrote, and the cursor after it.
#[derive(Debug)]
pub(super) struct Stepped<F> {
    pub(super) form: Arc<F>,
    pub(super) cursor: Cursor,
}

#[derive(Debug)]
struct Steps<F> {
    by_place: HashMap<Arc<Place>, Step<F>>,
    /// Those that are over, the oldest first, with the bytes they take.
    order: VecDeque<(Arc<Place>, Instant, usize)>,
    /// Bytes of those that are over.
    bytes: usize,
}

#[derive(Debug)]
enum Step<F> {
    UnderWay(Ahead<F>),
    Over(Arc<Stepped<F>>),
}

/// Hears what a step wrote, or that it was given up.
type Ahead<F> = watch::Receiver<Option<Arc<Stepped<F>>>>;

/// What a reader finds at its place.
#[derive(Debug)]
pub(super) enum Entered<F> {
    /// Nobody was here, and the reader may not lead.
    Alone,
    /// Nobody was here: the reader takes the step for all.
    Leads(Lead<F>),
    UnderWay(Ahead<F>),
    Over(Arc<Stepped<F>>),
}

/// A step under way, held by its reader. Given up when dropped.
#[derive(Debug)]
pub(super) struct Lead<F> {
    steps: Arc<Mutex<Steps<F>>>,
    place: Arc<Place>,
    /// Taken by what is told.
    tells: Option<watch::Sender<Option<Arc<Stepped<F>>>>>,
}

impl<F: Form> Shared<F> {
    /// Nothing yet, for the form of which `empty` makes one with nothing in it.
    pub(in super::super) fn new(empty: fn() -> F) -> Shared<F> {
        let steps = Steps { by_place: HashMap::new(), order: VecDeque::new(), bytes: 0 };
        Shared { empty, steps: Arc::new(Mutex::new(steps)) }
    }

    /// A form with nothing in it.
    pub(super) fn empty(&self) -> F {
        (self.empty)()
    }

    /// What there is at `place`. Where there is nothing, one who `may_lead` takes the step.
    pub(super) fn enter(&self, place: &Arc<Place>, may_lead: bool) -> Entered<F> {
        let mut steps = self.steps.lock();
        steps.forget(KEPT_BYTES);
        match steps.by_place.get(place) {
            Some(Step::UnderWay(ahead)) => return Entered::UnderWay(ahead.clone()),
            Some(Step::Over(stepped)) => return Entered::Over(stepped.clone()),
            None if !may_lead => return Entered::Alone,
            None => {}
        }
        let (tells, ahead) = watch::channel(None);
        steps.by_place.insert(place.clone(), Step::UnderWay(ahead));
        let (steps, place) = (self.steps.clone(), place.clone());
        Entered::Leads(Lead { steps, place, tells: Some(tells) })
    }
}

impl<F: Form> Lead<F> {
    /// Gives what the step wrote to those who wait, and to those who come. More than may be shared is given up.
    pub(super) fn tell(mut self, form: &Arc<F>, cursor: &Cursor) {
        if form.bytes() > STEP_BYTES_MAX {
            return;
        }
        let Some(tells) = self.tells.take() else { return };
        let stepped = Arc::new(Stepped { form: form.clone(), cursor: cursor.clone() });
        let mut steps = self.steps.lock();
        // A step that went nowhere says that there was nothing for a while, to those who wait only.
        match *cursor == self.place.cursor {
            true => drop(steps.by_place.remove(&self.place)),
            false => steps.keep(&self.place, stepped.clone()),
        }
        drop(steps);
        tells.send_replace(Some(stepped));
    }
}

impl<F> Drop for Lead<F> {
    fn drop(&mut self) {
        if self.tells.is_some() {
            // Before those who wait hear of it, so that they do not find it again.
            self.steps.lock().by_place.remove(&self.place);
        }
    }
}

impl<F: Form> Steps<F> {
    fn keep(&mut self, place: &Arc<Place>, stepped: Arc<Stepped<F>>) {
        // Text that grew may hold twice its length.
        let bytes = place.bytes() + 2 * stepped.form.bytes();
        self.by_place.insert(place.clone(), Step::Over(stepped));
        self.order.push_back((place.clone(), Instant::now(), bytes));
        self.bytes += bytes;
        self.forget(KEPT_BYTES);
    }

    /// Forgets what is too old, and the oldest while there are more than `most` bytes.
    fn forget(&mut self, most: usize) {
        while let Some((_, since, _)) = self.order.front() {
            if self.bytes <= most && since.elapsed() <= KEPT_FOR {
                return;
            }
            if let Some((place, _, bytes)) = self.order.pop_front() {
                self.by_place.remove(&place);
                self.bytes -= bytes;
            }
        }
    }
}

impl Place {
    /// What an entry takes beside what is written: no fewer.
    fn bytes(&self) -> usize {
        let Filter { key, key_prefix, header } = &self.filter;
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let header = header.as_ref().map_or(0, |(name, value)| name.len() + text(value));
        let filter = text(key) + text(key_prefix) + header;
        ENTRY_BYTES + filter + self.cursor.positions.len() * POSITION_BYTES
    }
}

impl<F> Clone for Shared<F> {
    fn clone(&self) -> Shared<F> {
        Shared { empty: self.empty, steps: self.steps.clone() }
    }
}

impl<F> fmt::Debug for Shared<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("bytes", &self.steps.lock().bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use riverrun_proto::{TopicId, batch::OffsetRecord};
    use serde_json::Value;
    use uuid::Uuid;

    use super::{super::Position, *};

    /// Writes nothing by itself.
    #[derive(Debug)]
    struct Text(usize);

    impl Form for Text {
        fn bytes(&self) -> usize {
            self.0
        }

        fn record(&mut self, _: &Cursor, _: u32, _: &OffsetRecord) {}

        fn gap(&mut self, _: &Cursor, _: &Value) {}
    }

    fn cursor(offset: u64) -> Cursor {
        let positions = [(0, Position { offset, epoch: 1 })].into();
        Cursor { topic_id: TopicId(Uuid::from_u128(9)), positions }
    }

    fn place(offset: u64) -> Arc<Place> {
        Arc::new(Place { cursor: cursor(offset), filter: Filter::default() })
    }

    fn leads(shared: &Shared<Text>, offset: u64) -> Lead<Text> {
        match shared.enter(&place(offset), true) {
            Entered::Leads(lead) => lead,
            Entered::Alone | Entered::UnderWay(_) | Entered::Over(_) => panic!("{offset}"),
        }
    }

    /// Where a step from here leads that is over.
    fn over(shared: &Shared<Text>, offset: u64) -> Option<u64> {
        match shared.enter(&place(offset), false) {
            Entered::Over(stepped) => Some(stepped.cursor.positions[&0].offset),
            Entered::Alone => None,
            Entered::Leads(_) | Entered::UnderWay(_) => panic!("{offset}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_is_told_to_those_who_wait_and_to_those_who_come_for_a_while() {
        let shared = Shared::new(|| Text(0));
        assert!(matches!(shared.enter(&place(1), false), Entered::Alone));
        let lead = leads(&shared, 1);
        let Entered::UnderWay(mut ahead) = shared.enter(&place(1), true) else { panic!() };
        let other = Filter { key: Some("k".into()), ..Filter::default() };
        let other = Arc::new(Place { cursor: cursor(1), filter: other });
        assert!(matches!(shared.enter(&other, false), Entered::Alone), "another filter");
        lead.tell(&Arc::new(Text(10)), &cursor(5));
        let told = ahead.wait_for(Option::is_some).await.unwrap().clone().unwrap();
        assert_eq!(told.cursor, cursor(5));
        assert_eq!(over(&shared, 1), Some(5));
        tokio::time::advance(KEPT_FOR + Duration::from_millis(1)).await;
        assert_eq!(over(&shared, 1), None);
        assert_eq!(shared.steps.lock().bytes, 0);
    }

    #[tokio::test]
    async fn a_step_that_is_given_up_too_long_or_went_nowhere_is_not_kept() {
        let shared = Shared::new(|| Text(0));
        for told in [None, Some((STEP_BYTES_MAX + 1, 5)), Some((0, 1))] {
            let lead = leads(&shared, 1);
            let Entered::UnderWay(mut ahead) = shared.enter(&place(1), true) else { panic!() };
            if let Some((bytes, to)) = told {
                lead.tell(&Arc::new(Text(bytes)), &cursor(to));
            } else {
                drop(lead);
            }
            let heard = ahead.wait_for(Option::is_some).await;
            assert_eq!(heard.is_ok(), told == Some((0, 1)), "only that it went nowhere is heard");
            assert_eq!(over(&shared, 1), None);
        }
    }

    #[tokio::test]
    async fn no_more_is_kept_than_the_bound_and_the_oldest_goes_first() {
        let shared = Shared::new(|| Text(0));
        for offset in 0..10_000 {
            let bytes = if offset % 2 == 0 { 0 } else { 100 << 10 };
            leads(&shared, offset).tell(&Arc::new(Text(bytes)), &cursor(offset + 1));
            let steps = shared.steps.lock();
            assert!(steps.bytes <= KEPT_BYTES && steps.by_place.len() == steps.order.len());
        }
        assert_eq!((over(&shared, 9_999), over(&shared, 0)), (Some(10_000), None));
    }
}
