//! Every file of `transcripts/`, replayed in a cluster of its own. `UPDATE_EXPECT=1` writes what came out.

use std::{panic::AssertUnwindSafe, path::PathBuf};

use anyhow::{Context, Result, bail};
use libtest_mimic::{Failed, Trial};
use podium_e2e::{
    Cluster,
    cluster::{podium_binary, repository},
    kubectl::Kubectl,
    transcript,
};

pub(crate) fn trials() -> Vec<Trial> {
    let folder = repository().join("tests/e2e/transcripts");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    files.sort();
    let kubectl = Kubectl::find();
    if let Kubectl::NotUsable(why) = &kubectl {
        eprintln!("\n*** {why}: the transcripts of kubectl are NOT RUN ***\n");
    }
    files.into_iter().filter(|f| f.extension().is_some_and(|e| e == "txt")).map(|f| of_file(f, &kubectl)).collect()
}

fn of_file(file: PathBuf, kubectl: &Kubectl) -> Trial {
    let name = file.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let not_run = name.starts_with("kubectl") && *kubectl != Kubectl::Usable;
    Trial::test(format!("transcript_{name}"), move || replay(&file).map_err(|e| Failed::from(format!("{e:?}"))))
        .with_ignored_flag(not_run)
}

fn replay(file: &std::path::Path) -> Result<()> {
    let script = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let cluster = Cluster::start(&[])?;
    let out = transcript::replay(&script, &cluster, &podium_binary()?)?;
    let expected = expect_test::expect_file![file];
    let compared = std::panic::catch_unwind(AssertUnwindSafe(|| expected.assert_eq(&out)));
    if compared.is_err() {
        bail!("{} came out differently (see above)", file.display());
    }
    cluster.podium.stop()?;
    Ok(())
}
