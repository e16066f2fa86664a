//! Every call to the broker, with its deadline and its rule for trying again.
//!
//! A call waits for a link, sends, and when the connection breaks or the broker asks to come back
//! later, tries again until its deadline. Calls that are not safe to repeat are sent once per link and
//! fail with [`ErrorCode::Indeterminate`] when the connection breaks under them.

use std::{future::Future, time::Duration};

use futures_core::Stream;
use riverrun_proto::grpc::v1::{
    self, admin_client::AdminClient, fetch_client::FetchClient, group_client::GroupClient,
    produce_client::ProduceClient, push_client::PushClient,
    subscriptions_client::SubscriptionsClient,
};
use tokio::time::timeout_at;
use tonic::{Status, Streaming, transport::Channel};

use super::{Connection, Link, status};
use crate::{
    clock::{self, Instant},
    error::{Error, ErrorCode, Result},
};

/// What the wire is told beyond the deadline, so that the deadline is noticed here first.
const WIRE_GRACE: Duration = Duration::from_secs(1);

/// One call: its name for error messages, whether it may be repeated, and when it gives up.
#[derive(Clone, Copy)]
struct Call {
    name: &'static str,
    repeatable: bool,
    deadline: Instant,
}

/// Repeatable unary calls: sent again whenever the answer did not come.
macro_rules! unary_calls {
    ($($(#[$doc:meta])* $name:ident: $client:ident, $request:ident => $response:ident, $repeatable:expr;)*) => {
        impl Connection {
            $(
                $(#[$doc])*
                pub(crate) async fn $name(
                    &self,
                    request: v1::$request,
                    deadline: Instant,
                ) -> Result<v1::$response> {
                    let call = Call { name: stringify!($name), repeatable: $repeatable, deadline };
                    let bytes_max = self.0.options.message_bytes_max;
                    self.unary(call, request, |channel, request| async move {
                        $client::new(channel)
                            .max_decoding_message_size(bytes_max)
                            .max_encoding_message_size(bytes_max)
                            .$name(request)
                            .await
                    })
                    .await
                }
            )*
        }
    };
}

unary_calls! {
    /// Gives a producer its identity. A repeated call wastes an id at worst.
    init_producer: ProduceClient, InitProducerRequest => InitProducerResponse, true;
    /// Finds offsets by position or time.
    lookup_offsets: FetchClient, LookupOffsetsRequest => LookupOffsetsResponse, true;
    /// One sign of life. Sent once: the membership decides what to say next.
    heartbeat: GroupClient, HeartbeatRequest => HeartbeatResponse, false;
    /// Stores offsets.
    commit_offsets: GroupClient, CommitOffsetsRequest => CommitOffsetsResponse, true;
    /// Reads stored offsets.
    get_offsets: GroupClient, GetOffsetsRequest => GetOffsetsResponse, true;
    /// Describes cluster and topics.
    get_metadata: AdminClient, GetMetadataRequest => GetMetadataResponse, true;
    /// Creates a topic.
    create_topic: AdminClient, CreateTopicRequest => CreateTopicResponse, false;
    /// Changes a topic.
    alter_topic: AdminClient, AlterTopicRequest => AlterTopicResponse, true;
    /// Deletes a topic.
    delete_topic: AdminClient, DeleteTopicRequest => DeleteTopicResponse, false;
    /// Describes a topic.
    describe_topic: AdminClient, DescribeTopicRequest => DescribeTopicResponse, true;
    /// Moves a log start forward.
    delete_records: AdminClient, DeleteRecordsRequest => DeleteRecordsResponse, true;
    /// Lists groups.
    list_groups: AdminClient, ListGroupsRequest => ListGroupsResponse, true;
    /// Describes a group.
    describe_group: AdminClient, DescribeGroupRequest => DescribeGroupResponse, true;
    /// Moves stored offsets. A shift is relative, so it is sent once.
    reset_offsets: AdminClient, ResetOffsetsRequest => ResetOffsetsResponse, false;
    /// Deletes a group.
    delete_group: AdminClient, DeleteGroupRequest => DeleteGroupResponse, false;
    /// Asks for records under a lease. A repeated call names the same attempt and gets the same records.
    receive: PushClient, ReceiveRequest => ReceiveResponse, true;
    /// Settles records. What is settled twice is settled once.
    settle: PushClient, SettleRequest => SettleResponse, true;
    /// Creates a subscription; one that is just so counts as created.
    create_subscription: SubscriptionsClient,
        CreateSubscriptionRequest => CreateSubscriptionResponse, true;
    /// Changes a subscription.
    alter_subscription: SubscriptionsClient,
        AlterSubscriptionRequest => AlterSubscriptionResponse, true;
    /// Deletes a subscription.
    delete_subscription: SubscriptionsClient,
        DeleteSubscriptionRequest => DeleteSubscriptionResponse, false;
    /// Lists subscriptions.
    list_subscriptions: SubscriptionsClient,
        ListSubscriptionsRequest => ListSubscriptionsResponse, true;
    /// Describes a subscription.
    describe_subscription: SubscriptionsClient,
        DescribeSubscriptionRequest => DescribeSubscriptionResponse, true;
    /// Moves a subscription.
    seek_subscription: SubscriptionsClient,
        SeekSubscriptionRequest => SeekSubscriptionResponse, true;
    /// Stops delivery.
    pause_subscription: SubscriptionsClient,
        PauseSubscriptionRequest => PauseSubscriptionResponse, true;
    /// Continues delivery.
    resume_subscription: SubscriptionsClient,
        ResumeSubscriptionRequest => ResumeSubscriptionResponse, true;
    /// Tells why nothing is delivered.
    explain_subscription: SubscriptionsClient,
        ExplainSubscriptionRequest => ExplainSubscriptionResponse, true;
    /// Shows records that are not settled.
    peek_subscription: SubscriptionsClient,
        PeekSubscriptionRequest => PeekSubscriptionResponse, true;
    /// Brings dead letters back. The broker remembers which, so a repeated call repeats none.
    redrive: SubscriptionsClient, RedriveRequest => RedriveResponse, false;
    /// Cancels a scheduled record.
    cancel_scheduled: SubscriptionsClient,
        CancelScheduledRequest => CancelScheduledResponse, true;
}

impl Connection {
    /// Opens a produce pipeline on `link`: `requests` are pulled as the connection takes them.
    pub(crate) async fn append_pipeline(
        &self,
        link: &Link,
        requests: impl Stream<Item = v1::AppendRequest> + Send + 'static,
    ) -> Result<Replies<v1::AppendPipelineResponse>> {
        let bytes_max = self.0.options.message_bytes_max;
        let opened = ProduceClient::new(link.channel.clone())
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(bytes_max)
            .append_pipeline(requests)
            .await;
        self.opened("append_pipeline", link, opened)
    }

    /// Asks for something that no broker has: any answer in the broker's own words will do.
    pub(crate) async fn probe(&self, deadline: Instant) -> Result<()> {
        let link = self.link(deadline).await?;
        let request = v1::GetMetadataRequest { topics: vec![".".to_owned()] };
        let mut client = AdminClient::new(link.channel.clone());
        match timeout_at(deadline, client.get_metadata(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) if status::is_the_brokers(&status) => Ok(()),
            Ok(Err(status)) => {
                self.suspect(link.generation);
                Err(match link.first.stranger() {
                    Some(who) => Error::new(ErrorCode::Protocol, who),
                    None => Error::new(ErrorCode::Unreachable, status.message()),
                })
            }
            Err(_) => Err(late("probe")),
        }
    }

    /// Opens a fetch pipeline on `link`: `asks` are pulled as the connection takes them.
    pub(crate) async fn fetch_pipeline(
        &self,
        link: &Link,
        asks: impl Stream<Item = v1::FetchPipelineRequest> + Send + 'static,
    ) -> Result<Replies<v1::FetchResponse>> {
        let bytes_max = self.0.options.message_bytes_max;
        let opened = FetchClient::new(link.channel.clone())
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(bytes_max)
            .fetch_pipeline(asks)
            .await;
        self.opened("fetch_pipeline", link, opened)
    }

    /// Opens a push session on `link`: `frames` are pulled as the connection takes them.
    pub(crate) async fn session(
        &self,
        link: &Link,
        frames: impl Stream<Item = v1::SessionRequest> + Send + 'static,
    ) -> Result<Replies<v1::SessionResponse>> {
        let bytes_max = self.0.options.message_bytes_max;
        let opened = PushClient::new(link.channel.clone())
            .max_decoding_message_size(bytes_max)
            .max_encoding_message_size(bytes_max)
            .session(frames)
            .await;
        self.opened("session", link, opened)
    }

    /// Opens a watch: what moved, without the records.
    pub(crate) async fn watch(
        &self,
        request: v1::WatchRequest,
        deadline: Instant,
    ) -> Result<Replies<v1::WatchResponse>> {
        let mut backoff = self.backoff();
        loop {
            let link = self.link(deadline).await?;
            let mut client = FetchClient::new(link.channel.clone());
            let opened = timeout_at(deadline, client.watch(request.clone())).await;
            let call = Call { name: "watch", repeatable: true, deadline };
            let error = match opened.map(|opened| self.opened(call.name, &link, opened)) {
                Ok(Ok(replies)) => return Ok(replies),
                Ok(Err(error)) => error,
                Err(_) => return Err(late(call.name)),
            };
            wait_to_repeat(call, error, backoff.next_wait()).await?;
        }
    }

    fn opened<T>(
        &self,
        name: &'static str,
        link: &Link,
        opened: Result<tonic::Response<Streaming<T>>, Status>,
    ) -> Result<Replies<T>> {
        match opened {
            Ok(response) => Ok(Replies {
                name,
                inner: response.into_inner(),
                generation: link.generation,
                connection: self.clone(),
            }),
            Err(status) => Err(self.failed(name, link.generation, &status)),
        }
    }

    /// Turns a status into an error and has a broken link replaced.
    fn failed(&self, name: &'static str, generation: u64, status: &Status) -> Error {
        if status::breaks_link(status) {
            self.suspect(generation);
        }
        status::to_error(name, status)
    }

    async fn unary<Q, R, F, Sent>(&self, call: Call, request: Q, send: F) -> Result<R>
    where
        Q: Clone,
        F: Fn(Channel, tonic::Request<Q>) -> Sent,
        Sent: Future<Output = Result<tonic::Response<R>, Status>>,
    {
        let mut backoff = self.backoff();
        loop {
            let link = self.link(call.deadline).await?;
            let mut wire = tonic::Request::new(request.clone());
            wire.set_timeout(call.deadline.saturating_duration_since(clock::now()) + WIRE_GRACE);
            let sent = timeout_at(call.deadline, send(link.channel, wire)).await;
            let error = match sent {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => self.failed(call.name, link.generation, &status),
                Err(_) => return Err(late(call.name)),
            };
            wait_to_repeat(call, error, backoff.next_wait()).await?;
        }
    }
}

/// Waits before the next try, or returns `error` when there is none.
async fn wait_to_repeat(call: Call, error: Error, wait: Duration) -> Result<()> {
    let unreachable = error.code() == ErrorCode::Unreachable;
    if unreachable && !call.repeatable {
        return Err(Error::new(
            ErrorCode::Indeterminate,
            format!("{}; the call may or may not have happened", error.message()),
        ));
    }
    let may_repeat = unreachable || is_refused_for_now(error.code());
    let wait = wait.max(error.retry_after());
    if !may_repeat || clock::now() + wait >= call.deadline {
        return Err(error);
    }
    tokio::time::sleep(wait).await;
    Ok(())
}

/// Whether the broker did nothing and asks to be called again.
fn is_refused_for_now(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::Unavailable | ErrorCode::QuotaExceeded | ErrorCode::NotLeader)
}

fn late(name: &'static str) -> Error {
    Error::new(ErrorCode::DeadlineExceeded, format!("{name}: no answer before the deadline"))
}

/// What comes back on an open stream.
pub(crate) struct Replies<T> {
    name: &'static str,
    inner: Streaming<T>,
    generation: u64,
    connection: Connection,
}

impl<T> Replies<T> {
    /// The next message; `None` when the broker ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<T>> {
        match self.inner.message().await {
            Ok(message) => Ok(message),
            Err(status) => Err(self.connection.failed(self.name, self.generation, &status)),
        }
    }
}
