//! Writes the seeds of every target into its folder of `corpus/`. Inputs that once broke something stay as they are.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a tool for builders: it writes files of the source and says so"
)]

use std::{fs, io, path::Path};

use riverrun_fuzz::{TARGETS, seeds};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in &TARGETS {
        let folder = corpus.join(target.name);
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let is_seed = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("seed-");
            if path.file_name().is_some_and(is_seed) {
                fs::remove_file(path)?;
            }
        }
        let seeds = seeds::of(target.name);
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:02}")), seed)?;
        }
        println!("{}: {} seeds", target.name, seeds.len());
    }
    Ok(())
}
