//! `riverrun subscription`: operates push subscriptions. [`settings`], [`webhook`]: what is given for them. [`describe`],
//! [`look`]: what is known of them. [`seek`], [`redrive`]: what moves in them.

mod describe;
mod look;
mod redrive;
mod seek;
mod settings;
mod webhook;

use clap::{Args, Subcommand};
use riverrun_client::{Admin, Mode, SubscriptionSpec, SubscriptionSummary};
use serde_json::{Value, json};

pub(crate) use self::settings::{FromArgs, ModeArg};
use self::{redrive::RedriveArgs, seek::SeekArgs, settings::SettingsArgs};
use crate::{
    args::Server,
    confirm,
    connect::connect,
    failure::{Failure, Stop},
    output::{self, Output, OutputArgs, Table},
    units,
};

/// What to do with subscriptions.
#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionCommand {
    /// Create a subscription of one topic or several
    Create(CreateArgs),
    /// List subscriptions with their order, sessions and lag
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show positions, counts, settings and sessions of a subscription, and why nothing is delivered
    Describe {
        /// Name of the subscription
        subscription: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Change settings of a subscription while it runs
    Alter(AlterArgs),
    /// Delete a subscription and what it remembers; its dead letters stay
    Delete(DeleteArgs),
    /// Move a subscription back or forth; what is in consumers' hands is revoked
    Seek(SeekArgs),
    /// Stop delivery to all consumers until it is resumed
    Pause {
        /// Name of the subscription
        subscription: String,
    },
    /// Continue delivery
    Resume {
        /// Name of the subscription
        subscription: String,
    },
    /// Tell for each partition exactly why nothing is delivered now
    Explain {
        /// Name of the subscription
        subscription: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show records that are not settled, without taking them
    Peek {
        /// Name of the subscription
        subscription: String,
        /// Most records, up to 1,000
        #[arg(long, value_name = "N", default_value_t = 10)]
        max: u32,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Bring dead letters back to the topic they came from, or to another one; each once
    Redrive(RedriveArgs),
}

/// What `subscription create` takes.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name of the subscription
    subscription: String,
    /// Topics to deliver from
    #[arg(required = true)]
    topic: Vec<String>,
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// What `subscription alter` takes.
#[derive(Debug, Args)]
pub(crate) struct AlterArgs {
    /// Name of the subscription
    subscription: String,
    /// Topic to deliver from as well, from its first record on; may be repeated
    #[arg(long, value_name = "TOPIC")]
    add_topic: Vec<String>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// What `subscription delete` takes.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Name of the subscription
    subscription: String,
    /// Delete even while consumers are connected
    #[arg(long)]
    force: bool,
    /// Show what would be deleted and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Runs the command against `server`.
pub(crate) async fn run(server: &Server, command: SubscriptionCommand) -> Result<(), Stop> {
    match command {
        SubscriptionCommand::Create(args) => create(server, args).await,
        SubscriptionCommand::List { output } => {
            list(&connect(server).await?.admin(), output.output).await
        }
        SubscriptionCommand::Describe { subscription, output } => {
            describe::run(&connect(server).await?.admin(), &subscription, output.output).await
        }
        SubscriptionCommand::Alter(args) => alter(server, args).await,
        SubscriptionCommand::Delete(args) => delete(server, args).await,
        SubscriptionCommand::Seek(args) => seek::run(server, args).await,
        SubscriptionCommand::Pause { subscription } => {
            connect(server).await?.admin().pause_subscription(&subscription).await?;
            output::print(&format!("paused subscription `{subscription}`\n"))
        }
        SubscriptionCommand::Resume { subscription } => {
            connect(server).await?.admin().resume_subscription(&subscription).await?;
            output::print(&format!("resumed subscription `{subscription}`\n"))
        }
        SubscriptionCommand::Explain { subscription, output } => {
            look::explain(&connect(server).await?.admin(), &subscription, output.output).await
        }
        SubscriptionCommand::Peek { subscription, max, output } => {
            look::peek(&connect(server).await?.admin(), (&subscription, max), output.output).await
        }
        SubscriptionCommand::Redrive(args) => redrive::run(server, args).await,
    }
}

async fn create(server: &Server, args: CreateArgs) -> Result<(), Stop> {
    let CreateArgs { subscription, topic, from, settings } = args;
    let settings = settings.parse().map_err(Failure::usage)?;
    let mode = settings.mode.unwrap_or_default();
    let spec = SubscriptionSpec { topics: topic, start: from.start()?, settings };
    let admin = connect(server).await?.admin();
    let created = admin.create_subscription(&subscription, &spec).await?;
    let verb = if created { "created" } else { "there was already just this" };
    let topics = in_words(&spec.topics);
    output::print(&format!("{verb} subscription `{subscription}` of {topics}, {}\n", mode.name()))
}

async fn alter(server: &Server, args: AlterArgs) -> Result<(), Stop> {
    let AlterArgs { subscription, add_topic, settings } = args;
    let settings = settings.parse().map_err(Failure::usage)?;
    if settings == Default::default() && add_topic.is_empty() {
        let message = "nothing to change; give --mode, --set, --add-topic, a filter or a webhook";
        return Err(Failure::usage(message).into());
    }
    let admin = connect(server).await?.admin();
    admin.alter_subscription(&subscription, &settings, &add_topic).await?;
    output::print(&format!("changed subscription `{subscription}`\n"))
}

async fn delete(server: &Server, args: DeleteArgs) -> Result<(), Stop> {
    let DeleteArgs { subscription, force, dry_run, yes } = args;
    let admin = connect(server).await?.admin();
    let described = admin.describe_subscription(&subscription).await?;
    let lag = described.partitions.iter().map(|partition| partition.lag).sum();
    let (sessions, topics) = (described.sessions.len(), in_words(&described.topics));
    let what = format!(
        "subscription `{subscription}` of {topics} with {} not settled and {sessions} session{}",
        units::records(lag),
        if sessions == 1 { "" } else { "s" },
    );
    if dry_run {
        return output::print(&format!("would delete {what}\n"));
    }
    confirm::ask(yes, &format!("delete {what}?"))?;
    admin.delete_subscription(&subscription, force).await?;
    output::print(&format!("deleted subscription `{subscription}`\n"))
}

async fn list(admin: &Admin, form: Output) -> Result<(), Stop> {
    let subscriptions = admin.list_subscriptions().await?;
    if form == Output::Json {
        let subscriptions: Vec<Value> = subscriptions.iter().map(summary_json).collect();
        return output::print_json(&json!({ "subscriptions": subscriptions }));
    }
    if subscriptions.is_empty() {
        return output::print(
            "no subscriptions yet; `riverrun subscribe TOPIC --subscription NAME` makes one\n",
        );
    }
    let mut table = Table::new(&["SUBSCRIPTION", "TOPICS", "MODE", "STATE", "SESSIONS", "LAG"]);
    for one in &subscriptions {
        table.row(vec![
            one.subscription.clone(),
            one.topics.join(","),
            one.mode.name().to_owned(),
            state(one.is_paused).to_owned(),
            one.session_count.to_string(),
            units::count(one.lag),
        ]);
    }
    output::print(&table.render())
}

fn summary_json(one: &SubscriptionSummary) -> Value {
    json!({
        "subscription": one.subscription,
        "topics": one.topics,
        "mode": one.mode.name(),
        "paused": one.is_paused,
        "session_count": one.session_count,
        "lag": one.lag,
    })
}

fn state(is_paused: bool) -> &'static str {
    if is_paused { "paused" } else { "active" }
}

/// `topic `a``, `topics `a`, `b``.
fn in_words(topics: &[String]) -> String {
    let names: Vec<String> = topics.iter().map(|topic| format!("`{topic}`")).collect();
    format!("topic{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

/// The mode a name stands for.
fn mode(name: ModeArg) -> Mode {
    match name {
        ModeArg::Unordered => Mode::Unordered,
        ModeArg::KeyFifo => Mode::KeyFifo,
        ModeArg::PartitionFifo => Mode::PartitionFifo,
        ModeArg::Exclusive => Mode::Exclusive,
    }
}
