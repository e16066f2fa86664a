//! `riverrun group`: list and delete consumer groups; [`describe`] and [`reset`] stand beside.

mod describe;
mod reset;

use clap::Subcommand;
use riverrun_client::{Admin, GroupState, GroupSummary};
use serde_json::{Value, json};

use self::reset::ResetArgs;
use crate::{
    args::Server,
    confirm,
    connect::connect,
    failure::Stop,
    output::{self, Output, OutputArgs, Table},
    units,
};

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// List groups with their state and lag
    List {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show members, stored offsets and lag of a group
    Describe {
        /// Name of the group
        group: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Move the stored offsets of a group, also while it has members; makes a group that does not exist
    Reset(ResetArgs),
    /// Delete a group without members, and its stored offsets
    Delete {
        /// Name of the group
        group: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Runs the command against `server`.
pub(crate) async fn run(server: &Server, command: GroupCommand) -> Result<(), Stop> {
    match command {
        GroupCommand::List { output } => list(&connect(server).await?.admin(), output.output).await,
        GroupCommand::Describe { group, output } => {
            let described = connect(server).await?.admin().describe_group(&group).await?;
            describe::show(&described, output.output)
        }
        GroupCommand::Reset(args) => reset::run(server, args).await,
        GroupCommand::Delete { group, yes } => {
            let admin = connect(server).await?.admin();
            admin.describe_group(&group).await?;
            confirm::ask(yes, &format!("delete group `{group}` and its stored offsets?"))?;
            admin.delete_group(&group).await?;
            output::print(&format!("deleted group `{group}`\n"))
        }
    }
}

async fn list(admin: &Admin, form: Output) -> Result<(), Stop> {
    let groups = admin.list_groups().await?;
    if form == Output::Json {
        let groups: Vec<Value> = groups.iter().map(summary_json).collect();
        return output::print_json(&json!({ "groups": groups }));
    }
    if groups.is_empty() {
        return output::print("no groups yet; `riverrun consume TOPIC --group NAME` makes one\n");
    }
    let mut table = Table::new(&["GROUP", "STATE", "MEMBERS", "LAG"]);
    for group in &groups {
        let state = state(group.state).to_owned();
        table.row(vec![
            group.group.clone(),
            state,
            group.member_count.to_string(),
            units::count(group.lag),
        ]);
    }
    output::print(&table.render())
}

fn summary_json(group: &GroupSummary) -> Value {
    json!({ "group": group.group, "state": state(group.state), "member_count": group.member_count, "lag": group.lag })
}

fn state(state: GroupState) -> &'static str {
    match state {
        GroupState::Empty => "Empty",
        GroupState::Reconciling => "Reconciling",
        GroupState::Stable => "Stable",
        GroupState::Unknown | _ => "Unknown",
    }
}
