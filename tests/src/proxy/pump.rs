//! One connection: two pumps and how it ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    time::sleep,
};

use super::{
    Counts,
    dice::Dice,
    fault::{Fault, Way, Weather},
};

/// Bytes taken at a time.
const CHUNK_BYTES: usize = 16 << 10;
/// A request is that much to the broker; what is less opens a connection or keeps it alive.
const REQUEST_BYTES_MIN: u64 = 200;
/// Times a second that a slow line hands something on.
const LIMIT_STEPS: u64 = 10;

/// What a connection knows of the world.
pub(super) struct Connection {
    pub(super) dice: Dice,
    pub(super) weather: watch::Receiver<Weather>,
    pub(super) counts: Arc<Counts>,
}

/// How a fault ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Both ends see it close.
    Cut,
    /// Both ends see a reset.
    Reset,
}

impl Connection {
    /// Hands bytes on until both ends closed or the fault ends it.
    pub(super) async fn run(self, mut client: TcpStream, mut broker: TcpStream) {
        client.set_nodelay(true).ok();
        broker.set_nodelay(true).ok();
        let before = self.weather.borrow().resets;
        let mut resets = self.weather.clone();
        let asked = AtomicU64::new(0);
        let (mut up, mut down) = (self.pump(Way::Up, &asked), self.pump(Way::Down, &asked));
        let end = {
            let (client_reads, client_writes) = client.split();
            let (broker_reads, broker_writes) = broker.split();
            let both = async {
                tokio::try_join!(
                    up.run(client_reads, broker_writes),
                    down.run(broker_reads, client_writes)
                )
                .err()
            };
            tokio::select! {
                end = both => end,
                reset = resets.wait_for(|weather| weather.resets > before) => {
                    reset.ok().map(|_| End::Reset)
                }
            }
        };
        if let Some(end) = end {
            Counts::add(&self.counts.cuts, 1);
            if end == End::Reset {
                client.set_zero_linger().ok();
                broker.set_zero_linger().ok();
            }
        }
    }

    fn pump<'a>(&'a self, way: Way, asked: &'a AtomicU64) -> Pump<'a> {
        let number = if way == Way::Up { 1 } else { 2 };
        let fresh = u64::MAX;
        Pump {
            way,
            connection: self.dice.clone(),
            dice: self.dice.throw(number),
            weather: self.weather.clone(),
            counts: &self.counts,
            asked,
            serial: fresh,
            fault: Fault::None,
            bytes_left: None,
            holed: false,
        }
    }
}

/// One direction of a connection.
struct Pump<'a> {
    way: Way,
    /// Decides with the serial of the weather whether this connection is hit; the same for both directions.
    connection: Dice,
    /// Decides everything else.
    dice: Dice,
    weather: watch::Receiver<Weather>,
    counts: &'a Counts,
    /// Bytes sent to the broker since the last reply that was thought about.
    asked: &'a AtomicU64,
    /// Of the weather that `fault` is of.
    serial: u64,
    /// The fault that befalls this connection now.
    fault: Fault,
    /// Bytes until it is cut or reset.
    bytes_left: Option<u64>,
    /// Something was swallowed, so what comes later makes no sense.
    holed: bool,
}

impl Pump<'_> {
    /// Until the sender closes.
    async fn run(&mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> Result<(), End> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut changes = self.weather.clone();
        loop {
            changes.mark_unchanged();
            self.look()?;
            if self.fault == Fault::Stall(self.way) {
                changes.changed().await.map_err(|_| End::Cut)?;
                continue;
            }
            let count = tokio::select! {
                changed = changes.changed() => {
                    changed.map_err(|_| End::Cut)?;
                    continue;
                }
                count = from.read(&mut chunk) => count.map_err(|_| End::Reset)?,
            };
            if count == 0 {
                to.shutdown().await.map_err(|_| End::Reset)?;
                return Ok(());
            }
            self.hand_on(&chunk[..count], &mut to).await?;
        }
    }

    /// Takes up the weather as it is now.
    fn look(&mut self) -> Result<(), End> {
        let weather = *self.weather.borrow();
        if weather.serial == self.serial {
            return Ok(());
        }
        self.serial = weather.serial;
        let is_hit = self.connection.throw(weather.serial).hits(weather.percent);
        self.fault = if is_hit { weather.fault } else { Fault::None };
        if self.holed && self.fault != Fault::Swallow(self.way) {
            return Err(End::Cut);
        }
        self.bytes_left = match self.fault {
            Fault::Reset(bytes) | Fault::Cut(bytes) => Some(self.dice.below(bytes)),
            Fault::None
            | Fault::Delay(_)
            | Fault::Swallow(_)
            | Fault::Trickle(..)
            | Fault::Limit(_)
            | Fault::DropReplies(_)
            | Fault::Stall(_) => None,
        };
        Ok(())
    }

    async fn hand_on(&mut self, chunk: &[u8], to: &mut WriteHalf<'_>) -> Result<(), End> {
        let count = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        if self.way == Way::Up {
            self.asked.fetch_add(count, Ordering::Relaxed);
        }
        match self.fault {
            Fault::None | Fault::Stall(_) => write(to, chunk).await,
            Fault::Delay(most) => {
                let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
                sleep(Duration::from_nanos(self.dice.below(nanos))).await;
                write(to, chunk).await
            }
            Fault::Swallow(way) if way == self.way => {
                self.holed = true;
                Counts::add(&self.counts.bytes_swallowed, count);
                Ok(())
            }
            Fault::Swallow(_) => write(to, chunk).await,
            Fault::Reset(_) => self.count_down(chunk, to, End::Reset).await,
            Fault::Cut(_) => self.count_down(chunk, to, End::Cut).await,
            Fault::Trickle(bytes, pause) => self.crumbs(chunk, to, (bytes, pause)).await,
            Fault::Limit(bytes) => {
                let step = usize::try_from(bytes / LIMIT_STEPS).unwrap_or(usize::MAX);
                let pause = Duration::from_secs(1) / u32::try_from(LIMIT_STEPS).unwrap_or(1);
                self.crumbs(chunk, to, (step, pause)).await
            }
            Fault::DropReplies(percent) => {
                let is_reply =
                    self.way == Way::Down && self.asked.load(Ordering::Relaxed) > REQUEST_BYTES_MIN;
                if is_reply {
                    self.asked.store(0, Ordering::Relaxed);
                    if self.dice.hits(percent) {
                        Counts::add(&self.counts.replies_dropped, 1);
                        return Err(End::Reset);
                    }
                }
                write(to, chunk).await
            }
        }
    }

    /// Hands on what is left until the end.
    async fn count_down(
        &mut self,
        chunk: &[u8],
        to: &mut WriteHalf<'_>,
        end: End,
    ) -> Result<(), End> {
        let count = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let left = self.bytes_left.unwrap_or(u64::MAX);
        let part = usize::try_from(left.min(count)).unwrap_or(chunk.len());
        write(to, &chunk[..part]).await?;
        self.bytes_left = Some(left.saturating_sub(count));
        if left <= count { Err(end) } else { Ok(()) }
    }

    /// A few bytes at a time, as long as the weather stays.
    async fn crumbs(
        &mut self,
        chunk: &[u8],
        to: &mut WriteHalf<'_>,
        (bytes, pause): (usize, Duration),
    ) -> Result<(), End> {
        let mut rest = chunk;
        let mut changes = self.weather.clone();
        while changes.borrow().serial == self.serial && !rest.is_empty() {
            changes.mark_unchanged();
            let (crumb, later) = rest.split_at(bytes.clamp(1, rest.len()));
            write(to, crumb).await?;
            rest = later;
            tokio::select! {
                () = sleep(pause) => {}
                _ = changes.changed() => {}
            }
        }
        write(to, rest).await
    }
}

/// An end that does not take it any more is gone.
async fn write(to: &mut WriteHalf<'_>, bytes: &[u8]) -> Result<(), End> {
    to.write_all(bytes).await.map_err(|_| End::Reset)
}
