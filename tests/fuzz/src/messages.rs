//! Request messages of the gRPC door. The first byte says which message, the rest is the message.

use bytes::Bytes;
use riverrun_broker::gateway::grpc::fuzz;

use crate::Taken;

pub(crate) fn run(input: &[u8]) -> Taken {
    let Some((kind, message)) = input.split_first() else { return Taken::Refused };
    if fuzz::take(*kind, Bytes::copy_from_slice(message)) {
        Taken::Accepted
    } else {
        Taken::Refused
    }
}
