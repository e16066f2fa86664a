//! `riverrun subscription redrive`: brings dead letters back.

use std::time::SystemTime;

use clap::Args;
use riverrun_client::{Admin, Error, Redrive, Redriven};
use serde_json::json;

use super::settings::{Escaped, parse_bytes};
use crate::{
    args::Server,
    confirm,
    connect::connect,
    failure::{Class, Failure, Stop},
    output::{self, Output, OutputArgs},
    time, units,
};

/// What `subscription redrive` takes.
#[derive(Debug, Args)]
pub(crate) struct RedriveArgs {
    /// Name of the subscription
    subscription: String,
    /// Only dead letters with this key; escapes as in a format
    #[arg(long, value_name = "KEY", value_parser = parse_bytes)]
    key: Option<Escaped>,
    /// Only those that died at or after this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time::parse_moment)]
    from: Option<SystemTime>,
    /// Only those that died before this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = time::parse_moment)]
    until: Option<SystemTime>,
    /// Bring them to this topic instead of the one each came from
    #[arg(long, value_name = "TOPIC")]
    to: Option<String>,
    /// At most this many
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs the command against `server`.
pub(super) async fn run(server: &Server, args: RedriveArgs) -> Result<(), Stop> {
    let admin = connect(server).await?.admin();
    let planned = args.request(&admin).dry_run().await?;
    if args.dry_run || planned.matched == 0 {
        return show(&planned, &args, args.dry_run);
    }
    let to = args
        .to
        .as_ref()
        .map_or_else(|| "the topics they came from".to_owned(), |topic| format!("topic `{topic}`"));
    let letters = letters(planned.matched);
    confirm::ask(args.yes, &format!("bring {letters} back to {to}?"))?;
    let done = args.request(&admin).await?;
    show(&done, &args, false)?;
    match done.failed {
        0 => Ok(()),
        failed => {
            let why = done.error.map(Failure::from);
            let class = why.as_ref().map_or(Class::Refused, |why| why.class);
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            let message = format!("{} could not be brought back{why}", self::letters(failed));
            Err(Failure::new(class, message).into())
        }
    }
}

impl RedriveArgs {
    fn request(&self, admin: &Admin) -> Redrive {
        let mut request = admin.redrive(&self.subscription);
        if let Some(Escaped(key)) = &self.key {
            request = request.key(key.clone());
        }
        if let Some(time) = self.from {
            request = request.from(time);
        }
        if let Some(time) = self.until {
            request = request.until(time);
        }
        if let Some(topic) = &self.to {
            request = request.to_topic(topic);
        }
        match self.max {
            Some(count) => request.max(count),
            None => request,
        }
    }
}

fn show(done: &Redriven, args: &RedriveArgs, planned: bool) -> Result<(), Stop> {
    if args.output.output == Output::Json {
        return output::print_json(&json!({
            "subscription": args.subscription,
            "matched": done.matched,
            "redriven": done.redriven,
            "failed": done.failed,
            "error": done.error.as_ref().map(Error::to_string),
        }));
    }
    if planned {
        return output::print(&format!("{} would be brought back\n", letters(done.matched)));
    }
    output::print(&format!("brought {} back\n", letters(done.redriven)))
}

fn letters(count: u64) -> String {
    format!("{} dead letter{}", units::count(count), if count == 1 { "" } else { "s" })
}
