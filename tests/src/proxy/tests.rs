use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Duration,
};

use super::*;

/// Longest time anything may take.
const DEADLINE: Duration = Duration::from_secs(20);
/// Shown not to come within.
const SOON: Duration = Duration::from_millis(200);

/// A client and the broker's end of its connection through a proxy.
struct Line {
    proxy: Proxy,
    client: TcpStream,
    broker: TcpStream,
    listener: TcpListener,
}

fn line(fault: Fault) -> Line {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), 7).unwrap();
    proxy.set(fault, 100);
    let (client, broker) = dial(&proxy, &listener);
    Line { proxy, client, broker, listener }
}

fn dial(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.address()).unwrap();
    let (broker, _) = listener.accept().unwrap();
    for end in [&client, &broker] {
        end.set_read_timeout(Some(DEADLINE)).unwrap();
        end.set_write_timeout(Some(DEADLINE)).unwrap();
    }
    (client, broker)
}

/// Takes exactly what was sent.
#[track_caller]
fn pass(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) {
    from.write_all(bytes).unwrap();
    let mut taken = vec![0; bytes.len()];
    to.read_exact(&mut taken).unwrap();
    assert_eq!(taken, bytes);
}

/// Checks that nothing comes for a while.
#[track_caller]
fn silent(mut end: &TcpStream) {
    end.set_read_timeout(Some(SOON)).unwrap();
    let kind = end.read(&mut [0; 1]).unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{kind}");
    end.set_read_timeout(Some(DEADLINE)).unwrap();
}

/// What an end sees last: what it still read, and whether it was a reset.
fn last_words(mut end: &TcpStream) -> (usize, bool) {
    let mut taken = Vec::new();
    let is_reset = match end.read_to_end(&mut taken) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            true
        }
    };
    (taken.len(), is_reset)
}

#[test]
fn without_a_fault_bytes_go_both_ways_and_a_close_is_handed_on() {
    let line = line(Fault::None);
    pass(&line.client, &line.broker, &[1; 100_000]);
    pass(&line.broker, &line.client, b"reply");
    line.client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(last_words(&line.broker), (0, false));
    pass(&line.broker, &line.client, b"after the half close");
}

#[test]
fn what_is_swallowed_one_way_never_arrives_and_the_other_way_is_well() {
    let line = line(Fault::Swallow(Way::Up));
    (&line.client).write_all(b"lost").unwrap();
    silent(&line.broker);
    pass(&line.broker, &line.client, b"well");
    line.proxy.heal();
    assert_eq!(last_words(&line.client).0, 0, "a connection with a hole does not go on");
    let (client, broker) = dial(&line.proxy, &line.listener);
    pass(&client, &broker, b"well");
}

#[test]
fn a_reset_is_one_at_both_ends_after_a_part_of_the_bytes() {
    let line = line(Fault::Reset(1000));
    (&line.client).write_all(&[7; 5000]).unwrap();
    let (_, is_reset) = last_words(&line.client);
    assert!(is_reset);
    let mut taken = Vec::new();
    (&line.broker).read_to_end(&mut taken).unwrap_err();
    assert!(taken.len() < 1000, "{}", taken.len());
}

#[test]
fn a_cut_ends_politely_in_the_middle() {
    let line = line(Fault::Cut(1000));
    (&line.broker).write_all(&[7; 500]).unwrap();
    (&line.broker).write_all(&[7; 500]).unwrap();
    let (count, is_reset) = last_words(&line.client);
    assert!(count < 1000 && !is_reset, "{count} {is_reset}");
}

#[test]
fn crumbs_and_slow_lines_keep_every_byte() {
    for fault in [
        Fault::Trickle(1, Duration::from_micros(10)),
        Fault::Limit(20_000),
        Fault::Delay(Duration::from_millis(5)),
    ] {
        let line = line(fault);
        pass(&line.client, &line.broker, &[3; 2000]);
        pass(&line.broker, &line.client, &[4; 2000]);
        (&line.client).write_all(&[5; 100_000]).unwrap();
        line.proxy.heal();
        (&line.broker).read_exact(&mut vec![0; 100_000]).unwrap();
    }
}

#[test]
fn a_reply_that_is_dropped_had_its_request_delivered() {
    let line = line(Fault::DropReplies(100));
    pass(&line.client, &line.broker, b"hello");
    pass(&line.broker, &line.client, b"a greeting is no reply");
    pass(&line.client, &line.broker, &[1; 300]);
    (&line.broker).write_all(b"reply").unwrap();
    assert_eq!(last_words(&line.client), (0, true));
    assert_eq!(line.proxy.counts().replies_dropped.load(Ordering::Relaxed), 1);
}

#[test]
fn a_stalled_way_is_not_read_until_it_is_healed() {
    let line = line(Fault::Stall(Way::Down));
    let (sent, all_sent) = mpsc::channel();
    let mut broker = line.broker.try_clone().unwrap();
    std::thread::spawn(move || {
        // More than the buffers of four sockets take.
        broker.write_all(&vec![9; 64 << 20]).unwrap();
        sent.send(()).unwrap();
    });
    silent(&line.client);
    pass(&line.client, &line.broker, b"the other way is well");
    assert_eq!(all_sent.recv_timeout(SOON), Err(mpsc::RecvTimeoutError::Timeout));
    line.proxy.heal();
    (&line.client).read_exact(&mut vec![0; 64 << 20]).unwrap();
    all_sent.recv_timeout(DEADLINE).unwrap();
}

#[test]
fn a_seed_picks_the_same_connections_again() {
    let hit = |seed| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap(), seed).unwrap();
        proxy.set(Fault::Swallow(Way::Up), 50);
        (0..12)
            .map(|_| {
                let (client, broker) = dial(&proxy, &listener);
                broker.set_read_timeout(Some(SOON)).unwrap();
                (&client).write_all(b"x").unwrap();
                (&broker).read(&mut [0; 1]).is_err()
            })
            .collect::<Vec<_>>()
    };
    let first = hit(3);
    assert_eq!(first, hit(3));
    assert!(first.contains(&true) && first.contains(&false), "{first:?}");
}
