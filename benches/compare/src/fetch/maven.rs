//! Artifacts of Maven with everything they need, fetched by `mvn` as the machine is set up.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Error, Result},
    files,
    process::output,
    say,
};

/// An artifact: group, name, version.
pub(crate) type Artifact<'a> = (&'a str, &'a str, &'a str);

/// Fetches the artifacts to a folder named `name`, unless the cache has them. Gives the folder of jars.
///
/// # Errors
/// `Skipped` when they cannot be had.
pub(crate) fn jars(name: &str, artifacts: &[Artifact<'_>], cache: &Path) -> Result<PathBuf> {
    fetch(name, artifacts, cache)
        .map_err(|error| Error::Skipped(format!("no artifacts to be had: {error}")))
}

fn fetch(name: &str, artifacts: &[Artifact<'_>], cache: &Path) -> Result<PathBuf> {
    let folder = cache.join("maven").join(name);
    let (lib, pom) = (folder.join("lib"), folder.join("pom.xml"));
    let text = project(artifacts);
    let done = folder.join("done");
    if files::read_text(&done).is_ok_and(|known| known == text) {
        return Ok(lib);
    }
    say::fetching(&format!("{name} from Maven artifacts"));
    files::remove_folder(&folder)?;
    files::write_text(&pom, &text)?;
    let mut maven = Command::new("mvn");
    maven.args(["--quiet", "--batch-mode", "-Dstyle.color=never", "-DincludeScope=runtime"]);
    maven.args(["dependency:copy-dependencies", "-DoutputDirectory=lib"]).current_dir(&folder);
    output(&mut maven).map_err(shortened)?;
    // Written last, so that half of them are never taken for all.
    files::write_text(&done, &text)?;
    Ok(lib)
}

/// Only what Maven says is missing; the rest is advice, and where it looked depends on the machine.
fn shortened(error: Error) -> Error {
    let text = error.to_string();
    let Some((_, first)) = text.split_once("[ERROR] ") else { return error };
    let first = first.lines().next().unwrap_or_default();
    // Several are named in a list, one by itself.
    let named = match first.split_once("could not be resolved: ") {
        Some((_, names)) => names.split(": ").next(),
        None => first.split("Could not find artifact ").nth(1),
    };
    // What follows is where it was looked for, and it differs from one version of Maven to the next.
    let named = named.and_then(|names| names.split(" in ").next()).unwrap_or(first);
    Error::Skipped(format!("the registry does not have {named}"))
}

fn project(artifacts: &[Artifact<'_>]) -> String {
    let dependency = |(group, name, version): &Artifact<'_>| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId><version>{version}</version></dependency>\n"
        )
    };
    let dependencies: String = artifacts.iter().map(dependency).collect();
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\n\
         <groupId>compare</groupId><artifactId>compare</artifactId><version>1</version>\n\
         <dependencies>\n{dependencies}</dependencies></project>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::shortened;
    use crate::error::Error;

    #[test]
    fn what_is_missing_is_told_without_where_it_was_looked_for() {
        for (said, told) in [
            (
                "[ERROR] Failed: Could not resolve dependencies: Could not find artifact g:a:jar:1 in central (host) -> x\n[ERROR] more",
                "the registry does not have g:a:jar:1",
            ),
            (
                "[ERROR] Failed: The following artifacts could not be resolved: g:a:1, g:b:1: Could not find artifact g:a:1 in central (host)",
                "the registry does not have g:a:1, g:b:1",
            ),
        ] {
            assert_eq!(shortened(Error::Peer(said.into())).to_string(), told);
        }
    }
}
