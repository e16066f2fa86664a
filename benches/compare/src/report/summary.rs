//! `summary.md`: tables for people, medians over the rounds with the least and the most beside them.

use std::fmt::{self, Write};

use serde_json::Value;

use super::{
    Setup,
    column::{self, number},
    spread::Spread,
};
use crate::{
    case::Case,
    run::{Entrant, Plan, Results, Sample},
};

/// The whole page.
pub(super) fn write(setup: &Setup, plan: &Plan, machine: &Value, results: &Results) -> String {
    let mut page = String::new();
    // Writing to a text cannot fail.
    fill(&mut page, (setup, plan), machine, results).ok();
    page
}

fn fill(
    page: &mut String,
    (setup, plan): (&Setup, &Plan),
    machine: &Value,
    results: &Results,
) -> fmt::Result {
    writeln!(page, "# Comparison of {} {} UTC\n", setup.date, setup.time)?;
    if setup.quick {
        writeln!(
            page,
            "**A trial of the harness with tiny sizes: these figures mean nothing.**\n"
        )?;
    }
    writeln!(
        page,
        "Medians of {} rounds, the least and the most in brackets. Client and server share the machine. MB and GB are decimal. \
         CPU seconds are user and system time of each side; they are steadier than the wall.\n",
        results.rounds
    )?;
    writeln!(page, "| | |\n| --- | --- |\n| command | `{}` |", setup.command)?;
    for (name, value) in machine.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        writeln!(page, "| {} | {text} |", name.replace('_', " "))?;
    }
    ceilings(page, results)?;
    for case in &plan.cases {
        table(page, *case, results)?;
    }
    entrants(page, results)?;
    left_out(page, results)
}

fn ceilings(page: &mut String, results: &Results) -> fmt::Result {
    writeln!(page, "\n## What the machine can do\n\n| | | median |\n| --- | --- | --- |")?;
    let mut seen: Vec<(&str, &String)> = Vec::new();
    for limit in &results.ceilings {
        for name in limit.figures.keys() {
            if !seen.contains(&(limit.ceiling, name)) {
                seen.push((limit.ceiling, name));
            }
        }
    }
    for (ceiling, name) in seen {
        let of = results.ceilings.iter().filter(|limit| limit.ceiling == ceiling);
        let values = of.filter_map(|limit| limit.figures.get(name).copied());
        if let Some(spread) = Spread::of(values) {
            writeln!(page, "| {ceiling} | {} | {} |", name.replace('_', " "), cell(spread))?;
        }
    }
    Ok(())
}

fn table(page: &mut String, case: Case, results: &Results) -> fmt::Result {
    let columns = column::of(case.workload);
    writeln!(page, "\n## {}\n", case.title())?;
    write!(page, "| | acknowledged |")?;
    for column in columns {
        write!(page, " {} |", column.heading)?;
    }
    writeln!(page, "\n| --- | --- |{}", " --- |".repeat(columns.len()))?;
    for entrant in &results.entrants {
        let samples: Vec<&Sample> = samples(results, entrant, case).collect();
        let lacks = entrant.peer.lacks(case.workload).is_some();
        let missing = if lacks { "skipped" } else { "failed" };
        write!(page, "| {} | {} |", entrant.peer.name(), entrant.acknowledged)?;
        for column in columns {
            let values = samples.iter().filter_map(|sample| sample.figures.get(column.key));
            let spread = Spread::of(values.copied());
            write!(page, " {} |", spread.map_or_else(|| missing.to_owned(), cell))?;
        }
        writeln!(page)?;
    }
    Ok(())
}

/// The measurements of one peer at one level in one case.
pub(super) fn samples<'a>(
    results: &'a Results,
    entrant: &'a Entrant,
    case: Case,
) -> impl Iterator<Item = &'a Sample> {
    results.samples.iter().filter(move |sample| {
        (sample.peer, sample.level) == (entrant.peer, entrant.level) && sample.case == case.key()
    })
}

fn cell(spread: Spread) -> String {
    if spread.min == spread.max {
        return number(spread.median);
    }
    format!("{} [{}–{}]", number(spread.median), number(spread.min), number(spread.max))
}

fn entrants(page: &mut String, results: &Results) -> fmt::Result {
    writeln!(page, "\n## Who took part\n\n| | level | version | client | started as |")?;
    writeln!(page, "| --- | --- | --- | --- | --- |")?;
    for entrant in &results.entrants {
        let Entrant { peer, level, version, client, command, .. } = entrant;
        let (peer, level) = (peer.name(), level.name());
        writeln!(page, "| {peer} | {level} | {version} | {client} | `{command}` |")?;
    }
    for entrant in results.entrants.iter().filter(|entrant| !entrant.settings.is_empty()) {
        let Entrant { peer, level, settings, .. } = entrant;
        writeln!(page, "\nSettings of {}, {}:\n", peer.name(), level.name())?;
        writeln!(page, "```\n{}\n```", settings.trim())?;
    }
    Ok(())
}

fn left_out(page: &mut String, results: &Results) -> fmt::Result {
    let failed: Vec<&Sample> =
        results.samples.iter().filter(|sample| sample.failure.is_some()).collect();
    if !results.skipped.is_empty() {
        writeln!(page, "\n## SKIPPED\n\n| | part | why |\n| --- | --- | --- |")?;
    }
    for skip in &results.skipped {
        let reason = skip.reason.replace('\n', " ");
        writeln!(page, "| {} | {} | {reason} |", skip.peer, skip.part.as_deref().unwrap_or("all"))?;
    }
    if !failed.is_empty() {
        writeln!(page, "\n## FAILED\n\n| | level | round | case | why |")?;
        writeln!(page, "| --- | --- | --- | --- | --- |")?;
    }
    for sample in failed {
        let Sample { round, peer, level, case, failure, .. } = sample;
        let why = failure.as_deref().unwrap_or_default().replace('\n', " ");
        writeln!(page, "| {} | {} | {round} | {case} | {why} |", peer.name(), level.name())?;
    }
    Ok(())
}
