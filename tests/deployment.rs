//! What is in `deploy/` and `docker/` fits the program: every metric that an alert or a panel asks for exists, and every configuration can be used.
//! `deploy/check` has what takes other tools.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use pgsluice::{config::Config, metrics::Metrics};
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn named_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    words.filter(|word| word.starts_with("pgsluice_")).map(str::to_owned).collect()
}

#[test]
fn alerts_ask_for_metrics_that_there_are() {
    let rules = read("deploy/prometheus/alerts.yml");
    let named = named_in(&rules);
    assert!(named.len() > 8, "{named:?}");
    assert_eq!(named.difference(&Metrics::series()).collect::<Vec<_>>(), Vec::<&String>::new());
    // Each is played through.
    let played = read("deploy/prometheus/alerts.test.yml");
    let alerts = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let forgotten: Vec<&str> = alerts.filter(|alert| !played.contains(alert)).collect();
    assert!(forgotten.is_empty(), "{forgotten:?}");
}

#[test]
fn panels_ask_for_metrics_that_there_are() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/pgsluice.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut queries, mut ids) = (Vec::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "two panels have one id");
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(panel["type"] == "row" || !targets.is_empty(), "{}", panel["title"]);
        queries.extend(targets.iter().map(|target| target["expr"].as_str().expect("a query")));
    }
    assert!(queries.len() > 30);
    let named: BTreeSet<String> = queries.iter().flat_map(|query| named_in(query)).collect();
    let known = Metrics::series();
    assert_eq!(named.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    // What nobody looks at was perhaps forgotten.
    let unseen = [
        "pgsluice_build_info",
        "pgsluice_state",
        "pgsluice_copied_rows_superseded_total",
        "pgsluice_slot_wal_status",
        "pgsluice_last_transaction_xid",
    ];
    let base = |name: &String| {
        ["_bucket", "_sum", "_count"].iter().fold(name.clone(), |name, end| name.trim_end_matches(end).to_owned())
    };
    let named: BTreeSet<String> = named.iter().map(base).collect();
    let forgotten: BTreeSet<String> =
        known.iter().map(base).filter(|name| !named.contains(name) && !unseen.contains(&name.as_str())).collect();
    assert_eq!(forgotten, BTreeSet::new());
}

#[test]
fn one_of_a_pair_is_started_again_when_it_was_taken_over_from() {
    let prevented = |name: &str| -> Vec<i32> {
        let text = read(name);
        let last = text.lines().filter_map(|line| line.strip_prefix("RestartPreventExitStatus=")).next_back();
        last.expect("a list").split_whitespace().map(|code| code.parse().expect("a number")).collect()
    };
    assert_eq!(prevented("deploy/systemd/pgsluice@.service"), [2, 3, 4]);
    assert_eq!(prevented("deploy/systemd/standby.conf"), [2, 3]);
    let pair = read("deploy/systemd/standby.conf");
    assert!(
        pair.contains("\nExecStart=\n") && pair.contains("\nExecStart=pgsluice run --standby\n"),
        "it has one command"
    );
    // Lists go on behind those of the unit unless they are emptied.
    assert!(pair.contains("\nRestartPreventExitStatus=\nRestartPreventExitStatus="));
}

#[test]
fn configurations_can_be_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("password");
    fs::write(&secret, "secret").expect("written");
    let manifest = read("deploy/kubernetes/pgsluice.yaml");
    let (_, block) = manifest.split_once("pgsluice.toml: |\n").expect("a configuration");
    let (block, _) = block.split_once("\n---").expect("another document");
    let of_kubernetes = block.lines().map(str::trim_start).collect::<Vec<_>>().join("\n");
    for (name, text) in [("kubernetes", of_kubernetes), ("docker", read("docker/pgsluice.toml"))] {
        let file = folder.path().join(format!("{name}.toml"));
        let text = text.replace("/run/secrets/pgsluice/password", secret.to_str().expect("UTF-8"));
        fs::write(&file, text).expect("written");
        Config::load(Some(&file)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// The arguments of an instruction of a Dockerfile, one for each time that it is there.
fn instructions<'t>(dockerfile: &'t str, name: &str) -> Vec<&'t str> {
    dockerfile.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).collect()
}

fn is_pinned(image: &str) -> bool {
    image.rsplit_once(':').is_some_and(|(_, tag)| tag != "latest")
}

#[test]
fn images_are_pinned_and_run_as_nobody_in_particular() {
    let dockerfile = read("docker/Dockerfile");
    let bases = instructions(&dockerfile, "FROM");
    assert!(
        bases.len() == 2 && bases.iter().all(|base| is_pinned(base.split(' ').next().expect("an image"))),
        "{bases:?}"
    );
    // It is built by the compiler that everything else is.
    let toolchain = read("rust-toolchain.toml");
    let channel =
        toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).expect("a channel").trim_matches('"');
    assert!(bases[0].starts_with(&format!("rust:{channel}-")), "{} and {channel}", bases[0]);
    // What is last is what counts; a number, so that Kubernetes can see that it is not root.
    let user: u32 = instructions(&dockerfile, "USER").pop().expect("a user").parse().expect("a number");
    assert!(user > 0);
    assert_eq!(instructions(&dockerfile, "HEALTHCHECK").len(), 1);
    assert_eq!(instructions(&dockerfile, "ADD"), Vec::<&str>::new(), "COPY fetches and unpacks nothing");
    let compose = read("docker/compose.yaml");
    let images: Vec<&str> = compose.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
    assert!(images.len() > 3);
    let unpinned: Vec<_> = images.iter().filter(|image| **image != "pgsluice" && !is_pinned(image)).collect();
    assert!(unpinned.is_empty(), "{unpinned:?}");
}

/// Sources of the program, and files that the compiler puts into it.
#[test]
fn the_image_is_built_from_all_that_the_program_is_made_of() {
    let ignored = read("docker/Dockerfile.dockerignore");
    let let_in: Vec<PathBuf> = ignored.lines().filter_map(|line| line.strip_prefix('!')).map(path).collect();
    let (mut folders, mut included) = (vec![path("src"), path("crates")], vec![path("build.rs")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let found = entry.expect("an entry").path();
            if found.is_dir() {
                folders.push(found);
            } else if found.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(&found).expect("a source");
                for name in ["include_str!(\"", "include_bytes!(\""] {
                    let files = source.split(name).skip(1).map(|rest| rest.split_once('"').expect("an end").0);
                    included.extend(files.map(|file| folder.join(file).canonicalize().expect("it is there")));
                }
            }
        }
    }
    assert!(included.len() > 4, "{included:?}");
    let is_let_in = |file: &&PathBuf| let_in.iter().any(|folder| file.starts_with(folder));
    let left_out: Vec<&PathBuf> = included.iter().filter(|file| !is_let_in(file)).collect();
    assert!(left_out.is_empty(), "docker/Dockerfile.dockerignore leaves out {left_out:?}");
}

#[test]
fn the_package_is_made_of_what_there_is() {
    let manifest: toml::Table = read("Cargo.toml").parse().expect("TOML");
    let package = &manifest["package"]["metadata"]["deb"];
    let assets = package["assets"].as_array().expect("assets");
    let built = ["target/release/", "target/debian/"];
    for asset in assets {
        let source = asset[0].as_str().expect("a file");
        if built.iter().any(|folder| source.starts_with(folder)) {
            continue;
        }
        let found = path(source.trim_end_matches("*.md"));
        assert!(found.exists(), "{source} is not there");
    }
    let installed: Vec<&str> = assets.iter().filter_map(|asset| asset[1].as_str()).collect();
    for file in package["conf-files"].as_array().expect("a list") {
        let file = file.as_str().expect("a file").trim_start_matches('/');
        assert!(installed.contains(&file), "{file} is a conffile, and in no package");
    }
}
