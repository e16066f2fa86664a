//! `riverrun schedule`: records that wait for their time of delivery.

use clap::Subcommand;
use riverrun_client::{Offset, TopicPartition};

use crate::{
    args::Server,
    connect::connect,
    failure::{Class, Failure, Stop},
    output,
};

/// What to do with scheduled records.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Cancel a record that was produced with --deliver-at or --deliver-after, so that no push
    /// subscription delivers it; readers that pull still see it
    Cancel {
        /// Its topic
        topic: String,
        /// Its partition
        partition: u32,
        /// Its offset
        offset: u64,
    },
}

/// Runs the command against `server`.
pub(crate) async fn run(server: &Server, command: ScheduleCommand) -> Result<(), Stop> {
    let ScheduleCommand::Cancel { topic, partition, offset } = command;
    let admin = connect(server).await?.admin();
    let partition = TopicPartition::new(topic, partition);
    if admin.cancel_scheduled(&partition, Offset(offset)).await? {
        return output::print(&format!("cancelled the record at {offset} of `{partition}`\n"));
    }
    let message = format!(
        "too late: a subscription has delivered the record at {offset} of `{partition}`; the others, and who seeks back, leave it out"
    );
    Err(Failure::new(Class::Refused, message).into())
}
