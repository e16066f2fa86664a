//! The addresses of an endpoint's name, as the system tells them.
//!
//! A look-up blocks a thread for as long as the system likes, also when nobody waits for it any more. So its permit goes with it
//! to its end, and of one endpoint there is one at a time: whoever asks meanwhile, or a moment later, gets what it found.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, Semaphore},
    time::Instant,
};

use crate::blocking;

/// Time for which what was found is good enough.
const FRESH: Duration = Duration::from_secs(1);

/// Looks up the name of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Look-ups at once, over all endpoints.
    lookups: Arc<Semaphore>,
    /// What was found last, and when; held over a look-up.
    latest: Arc<Mutex<Option<Found>>>,
}

/// When something was found, and what.
type Found = (Instant, Vec<SocketAddr>);

impl Names {
    pub(super) fn new(lookups: Arc<Semaphore>) -> Names {
        Names { lookups, latest: Arc::default() }
    }

    /// What `lookup` finds, on a thread that may block, or found a moment ago. Cancelled, it is not begun, or goes on alone.
    ///
    /// # Errors
    /// What `lookup` says; that is not kept.
    pub(super) async fn addresses(
        &self,
        lookup: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
    ) -> io::Result<Vec<SocketAddr>> {
        let mut latest = self.latest.clone().lock_owned().await;
        if let Some((_, found)) = latest.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(found.clone());
        }
        let permit = self.lookups.clone().acquire_owned().await.map_err(io::Error::other)?;
        let looked = blocking::run(move || {
            let _permit = permit;
            let found = lookup()?;
            *latest = Some((Instant::now(), found.clone()));
            Ok(found)
        });
        looked.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    fn one() -> Vec<SocketAddr> {
        vec!["192.0.2.1:80".parse().unwrap()]
    }

    #[tokio::test]
    async fn a_look_up_that_hangs_keeps_its_permit_and_is_the_only_one_of_its_endpoint() {
        let lookups = Arc::new(Semaphore::new(2));
        let names = Names::new(lookups.clone());
        let (answer, answered) = mpsc::channel();
        let hangs = move || Ok(answered.recv().unwrap());
        let mut asked = Box::pin(names.addresses(hangs));
        assert!(asked.as_mut().now_or_never().is_none());
        // Nobody waits for it any more, and it goes on.
        drop(asked);
        assert_eq!(lookups.available_permits(), 1);
        let never = || panic!("the one that hangs is asked");
        let mut second = Box::pin(names.addresses(never));
        assert!(second.as_mut().now_or_never().is_none());
        let other = Names::new(lookups.clone());
        assert_eq!(other.addresses(|| Ok(one())).await.unwrap(), one(), "others go on");
        assert_eq!(lookups.available_permits(), 1);
        answer.send(one()).unwrap();
        assert_eq!(second.await.unwrap(), one(), "what it found is had by those who asked");
        assert_eq!(lookups.available_permits(), 2);
    }
}
