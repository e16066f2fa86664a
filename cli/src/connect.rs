//! The connection to the broker, and the client's errors in the words of the command line.

use std::{collections::BTreeSet, time::Duration};

use riverrun_client::{Client, ConnectionState, Consumer, Error, ErrorCode, Producer, Rebalance};

use crate::{
    args::Server,
    failure::{Class, Failure},
    units,
};

/// Longest time for one try to open a connection.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to `server` and hears one answer of it. A broker that does not answer the first try is
/// reported at once: somebody sits in front of this.
pub(crate) async fn connect(server: &Server) -> Result<Client, Failure> {
    let Server { address, timeout } = server;
    let client = Client::builder()
        .client_id(format!("riverrun-cli/{}", env!("CARGO_PKG_VERSION")))
        .call_timeout(*timeout)
        .dial_timeout(DIAL_TIMEOUT.min(*timeout))
        .connect_lazy(address)
        .map_err(|error| Failure::usage(format!("`--server {address}`: {error}")))?;
    let mut state = client.state();
    loop {
        match &*state.borrow_and_update() {
            ConnectionState::Connected => break,
            ConnectionState::Reconnecting { reason, .. } => {
                return Err(unreachable(address, reason));
            }
            ConnectionState::Connecting | ConnectionState::Closed | _ => {}
        }
        if state.changed().await.is_err() {
            return Err(unreachable(address, "the connection was closed"));
        }
    }
    match client.probe().await {
        Ok(()) => Ok(client),
        Err(error) if error.code() == ErrorCode::DeadlineExceeded => {
            let message = format!(
                "{address} took the connection and did not answer within {}; it hangs, or is no \
                 Riverrun broker; --timeout waits longer",
                units::millis(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
            );
            Err(Failure::new(Class::Unreachable, message))
        }
        Err(error) if error.code() == ErrorCode::Protocol => {
            Err(stranger(address, error.message()))
        }
        Err(_) => Err(stranger(address, "it does not answer as one does")),
    }
}

/// Somebody else is there.
fn stranger(server: &str, why: &str) -> Failure {
    let advice = "name the broker's gRPC address with --server or RIVERRUN_SERVER";
    let message = format!("what listens at {server} is no Riverrun broker: {why}; {advice}");
    Failure::new(Class::Unreachable, message)
}

fn unreachable(server: &str, reason: &str) -> Failure {
    let reason = reason.split(" (os error").next().unwrap_or(reason);
    let mut letters = reason.chars();
    let first = letters.next().map(|letter| letter.to_lowercase().to_string()).unwrap_or_default();
    let reason = first + letters.as_str();
    let advice = "start it with `riverrun serve`, or name another with --server or RIVERRUN_SERVER";
    Failure::new(Class::Unreachable, format!("no broker answers at {server} ({reason}); {advice}"))
}

/// Runs `work` on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(work);
    // A read from a terminal may still block; it does not hold up the end.
    runtime.shutdown_background();
    Ok(result)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let advice = if error.code() == ErrorCode::UnknownTopicOrPartition {
            "; `riverrun topic list` shows what there is"
        } else if error.code() == ErrorCode::UnknownGroup {
            "; `riverrun group list` shows what there is"
        } else if error.code() == ErrorCode::UnknownSubscription {
            "; `riverrun subscription list` shows what there is"
        } else {
            ""
        };
        Failure::new(class(error.code()), format!("{error}{advice}"))
    }
}

impl From<Error> for crate::failure::Stop {
    fn from(error: Error) -> Self {
        Failure::from(error).into()
    }
}

fn class(code: ErrorCode) -> Class {
    use ErrorCode::{
        BufferFull, Closed, DataCorrupt, DeadlineExceeded, Protocol, Unavailable, Unreachable,
    };
    if matches!(code, Unreachable | DeadlineExceeded | Unavailable) {
        Class::Unreachable
    } else if code == DataCorrupt {
        Class::Corrupt
    } else if matches!(code, Closed | BufferFull | Protocol) {
        Class::Other
    } else {
        Class::Refused
    }
}

/// Ends the task when dropped.
#[derive(Debug)]
pub(crate) struct Reporter(tokio::task::JoinHandle<()>);

impl Drop for Reporter {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How often it is looked whether the broker refuses records for now.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(1);

/// Says on standard error when the broker refuses records for now, and when it takes them again, until
/// the result is dropped.
pub(crate) fn report_refusal(producer: &Producer) -> Reporter {
    let producer = producer.clone();
    Reporter(tokio::spawn(async move {
        let mut told: Option<ErrorCode> = None;
        loop {
            tokio::time::sleep(REFUSAL_INTERVAL).await;
            let refusal = producer.refusal();
            let code = refusal.as_ref().map(Error::code);
            if code == told {
                continue;
            }
            match refusal {
                Some(error) => {
                    eprintln!(
                        "riverrun: refused for now ({error}); trying again until it is taken"
                    );
                }
                None => eprintln!("riverrun: taken again"),
            }
            told = code;
        }
    }))
}

/// Says on standard error when a topic that a member reads was deleted and created again, until the result
/// is dropped.
pub(crate) fn report_replaced(consumer: &Consumer) -> Reporter {
    let mut rebalances = consumer.rebalances();
    Reporter(tokio::spawn(async move {
        while let Some(change) = rebalances.next().await {
            let Rebalance::Replaced(partitions) = change else { continue };
            let topics: BTreeSet<&str> = partitions.iter().map(|one| &*one.topic).collect();
            for topic in topics {
                eprintln!(
                    "riverrun: topic `{topic}` was deleted and created again; reading the new one"
                );
            }
        }
    }))
}

/// Says on standard error when the connection is lost and when it is back, until the result is dropped.
pub(crate) fn report_state(client: &Client) -> Reporter {
    let mut state = client.state();
    Reporter(tokio::spawn(async move {
        let mut lost = false;
        while state.changed().await.is_ok() {
            match &*state.borrow_and_update() {
                ConnectionState::Reconnecting { reason, .. } if !lost => {
                    lost = true;
                    eprintln!(
                        "riverrun: connection lost ({reason}); trying again until it is back"
                    );
                }
                ConnectionState::Connected if lost => {
                    lost = false;
                    eprintln!("riverrun: connected again");
                }
                ConnectionState::Closed => break,
                ConnectionState::Connecting
                | ConnectionState::Connected
                | ConnectionState::Reconnecting { .. }
                | _ => {}
            }
        }
    }))
}
