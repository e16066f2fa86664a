use std::time::Duration;

use super::{parent::Parent, *};

const PARENT: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

#[test]
fn a_parent_is_read_as_the_standard_has_it_and_anything_else_is_none() {
    let parent = Parent::parse(PARENT).unwrap();
    assert_eq!(parent.trace[..3], [0x0a, 0xf7, 0x65]);
    assert_eq!(parent.span[..3], [0xb7, 0xad, 0x6b]);
    assert!(parent.is_sampled);
    assert!(!Parent::parse(UNSAMPLED).unwrap().is_sampled);
    let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-will-be";
    assert!(Parent::parse(later.as_bytes()).is_some());
    for broken in [
        "",
        "00",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b716920333g-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ] {
        assert_eq!(Parent::parse(broken.as_bytes()), None, "{broken}");
    }
}

#[tokio::test]
async fn a_span_tells_what_was_noted_how_long_it_took_and_how_it_ended() {
    let (clock, hand) = Clock::manual(5_000);
    let (traces, mut spans) = Traces::exported(0, clock);
    let open = traces.origin(Door::Grpc, || Some(PARENT)).unwrap().begin("Produce/Append").unwrap();
    open.notes().topic("orders");
    open.notes().partitions(3);
    open.notes().add_bytes(70);
    open.notes().add_bytes(7);
    hand.advance(Duration::from_millis(20));
    open.end(Ended::Grpc(0));
    let parent = Parent::parse(PARENT).unwrap();
    let [span] = spans.next(10).await.unwrap().try_into().unwrap();
    let expected = Span {
        door: Door::Grpc,
        name: "Produce/Append".into(),
        trace: parent.trace,
        id: span.id,
        parent: Some(parent.span),
        began: Duration::from_secs(5),
        took: Duration::from_millis(20),
        topic: Some("orders".into()),
        partitions: 3,
        bytes: 77,
        ended: Ended::Grpc(0),
    };
    assert_eq!(span, expected);
    assert_ne!(span.id, [0; 8]);
}

#[tokio::test]
async fn a_call_of_several_topics_names_none_and_one_that_is_cut_says_so() {
    let (traces, mut spans) = Traces::exported(WHOLE, Clock::real());
    let open = traces.origin(Door::Web, || None).unwrap().begin("Fetch/Fetch").unwrap();
    open.notes().topic("orders");
    open.notes().topic("bills");
    drop(open);
    let [span] = spans.next(10).await.unwrap().try_into().unwrap();
    assert_eq!((span.topic, span.ended, span.parent), (None, Ended::Cut, None));
}

#[test]
fn the_caller_decides_and_where_there_is_none_a_share_of_all_is_told() {
    let is_told = |sampled, parent| {
        let (traces, _spans) = Traces::exported(sampled, Clock::real());
        let origin = traces.origin(Door::Grpc, || parent);
        origin.and_then(|origin| origin.begin("x")).is_some()
    };
    assert!(is_told(0, Some(PARENT)));
    assert!(!is_told(WHOLE, Some(UNSAMPLED)));
    assert!(!is_told(0, None) && is_told(WHOLE, None));
    assert!(Traces::default().origin(Door::Grpc, || Some(PARENT)).is_none());
    let (traces, _spans) = Traces::exported(WHOLE / 4, Clock::real());
    let origin = traces.origin(Door::Grpc, || None).unwrap();
    let told = (0..4_000).filter(|_| origin.begin("x").is_some()).count();
    // Nine standard deviations around a quarter.
    assert!((750..=1_250).contains(&told), "{told}");
}

#[tokio::test]
async fn spans_without_room_are_lost_and_counted_and_nobody_waits() {
    let (traces, mut spans) = Traces::with_room(2, (WHOLE, Clock::real()));
    let origin = traces.origin(Door::Grpc, || None).unwrap();
    for _ in 0..5 {
        origin.begin("x").unwrap().end(Ended::Grpc(0));
    }
    assert_eq!(spans.meter.lost.get(), 3);
    assert_eq!(spans.next(10).await.unwrap().len(), 2);
    drop((origin, traces));
    assert!(spans.next(10).await.is_none());
}
