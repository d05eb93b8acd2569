//! A cluster from nothing, by the command line alone: a control, a profile, a configuration, a purge with receipts, tokens,
//! enrolment.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const SITES: &str = "\
[[site]]
name = \"shop\"
domains = [\"www.shop.example\"]
origin = \"http://127.0.0.1:8000\"
";

struct Cluster {
    control: Child,
    directory: PathBuf,
    /// The command that control has told its operator to give.
    login: Vec<String>,
}

impl Cluster {
    fn start(name: &str) -> Cluster {
        let directory = std::env::temp_dir().join(format!("perigee-cluster-{}-{name}", std::process::id()));
        let _absent = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let place = directory.display();
        let config = format!(
            "name = \"c1\"\nlisten = \"127.0.0.1:0\"\nstate = \"{place}/state\"\n[journal]\nsqlite = \"{place}/journal.sqlite\"\n"
        );
        fs::write(directory.join("control.toml"), config).unwrap();
        let mut control = Command::new(env!("CARGO_BIN_EXE_perigee"))
            .args(["control", "--config"])
            .arg(directory.join("control.toml"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(control.stderr.take().unwrap()).lines().map_while(Result::ok);
        let login = lines.find_map(|line| line.split_once("perigee login ").map(|(_, rest)| rest.to_owned()));
        // Control writes on; somebody has to read it.
        std::thread::spawn(move || lines.for_each(|line| eprintln!("{line}")));
        let login = login.unwrap().split(' ').map(str::to_owned).collect();
        Cluster { control, directory, login }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_perigee"))
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.directory.join("config"))
            .env_remove("PERIGEE_CONTROL")
            .env_remove("PERIGEE_TOKEN")
            .env_remove("PERIGEE_AUTHORITY")
            .output()
            .unwrap()
    }

    fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn bad(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.good(arguments)).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ended = self.control.kill();
        let _ended = self.control.wait();
        let _left = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn a_cluster_is_run_by_the_command_line_from_nothing() {
    let cluster = Cluster::start("all");
    let error = cluster.bad(&["nodes"]);
    assert!(
        error.contains("the cluster's authority is not known") && error.contains("perigee login URL"),
        "{error}"
    );

    let login: Vec<&str> = ["login"].into_iter().chain(cluster.login.iter().map(String::as_str)).collect();
    assert!(cluster.good(&login).starts_with("Control c1 answers, with 0 nodes"));
    assert_eq!(cluster.good(&["nodes"]), "There is none yet; have one join with: perigee enroll\n");

    let file = cluster.directory.join("sites.toml");
    let file = file.to_str().unwrap();
    fs::write(file, SITES.replace("origin", "orgin")).unwrap();
    let error = cluster.bad(&["apply", file, "--reason", "begin"]);
    assert!(error.contains("did you mean \"origin\"?") && error.contains("^^^^^"), "{error}");
    fs::write(file, SITES).unwrap();
    assert_eq!(cluster.good(&["apply", file, "--dry-run"]), format!("{file} is good\n"));
    let begun = cluster.good(&["apply", file, "--stage", "all", "--reason", "begin"]);
    assert!(begun.starts_with("Configuration 1 is being rolled out, everywhere"), "{begun}");
    assert!(cluster.good(&["versions"]).contains("admin  begin"));
    assert_eq!(cluster.good(&["versions", "1"]), SITES);
    assert!(cluster.good(&["rollout"]).contains("Configuration 1 is being rolled out"));

    let purged = cluster.json(&[
        "purge",
        "--cluster",
        "--url",
        "https://www.shop.example/",
        "--reason",
        "why",
        "--json",
    ]);
    assert_eq!((&purged["state"], &purged["purges"]), (&"waiting".into(), &1.into()));
    let error = cluster.bad(&["purge", "--cluster", "--site", "shop", "--wait", "--timeout", "0"]);
    assert!(error.contains("not every node has signed within 0 s"), "{error}");
    let error = cluster.bad(&["purge", "--cluster", "--url", "https://ww.shop.example/"]);
    assert!(error.contains("did you mean \"www.shop.example\"?"), "{error}");

    let secret = cluster.good(&["token", "add", "ci", "--role", "purger", "--site", "shop"]);
    assert!(secret.starts_with("pgt_"), "{secret}");
    let token = cluster.directory.join("ci-token");
    fs::write(&token, &secret).unwrap();
    let error = cluster.bad(&["purge", "--cluster", "--everything", "--token-file", token.to_str().unwrap()]);
    assert!(error.contains("the token may not purge this"), "{error}");
    let listed = cluster.good(&["token", "list", "--control", &cluster.login[0]]);
    assert!(listed.contains("ci     purger  shop"), "{listed}");
    fs::write(&token, "two words").unwrap();
    let error = cluster.bad(&["nodes", "--token-file", token.to_str().unwrap()]);
    assert!(error.contains("the token is not one word"), "{error}");
    assert_eq!(cluster.good(&["token", "revoke", "ci"]), "ci is revoked\n");

    assert!(cluster.bad(&["enroll", "--role", "edge"]).contains("name it: --pop NAME"));
    let token = cluster.good(&["enroll", "--role", "edge", "--pop", "fra"]);
    assert!(token.starts_with("perigee-join."), "{token}");
    let listed = cluster.json(&["enroll", "list", "--json"]);
    let id = listed["enrolments"][0]["id"].as_str().unwrap();
    assert_eq!(cluster.good(&["enroll", "revoke", id]), format!("{id} is revoked\n"));

    assert!(cluster.good(&["rollback"]).contains("taken back by hand"));
    let audit = cluster.good(&["audit"]);
    for what in [
        "cluster.begin",
        "configuration.add",
        "rollout.start",
        "rollout.undo",
        "token.revoke",
        "purge",
        "why",
    ] {
        assert!(audit.contains(what), "{what}: {audit}");
    }
}

#[test]
fn a_control_of_another_cluster_is_never_believed() {
    let (cluster, other) = (Cluster::start("one"), Cluster::start("two"));
    let mut login: Vec<&str> =
        ["login"].into_iter().chain(cluster.login.iter().map(String::as_str)).collect();
    login[1] = &other.login[0];
    let error = cluster.bad(&login);
    assert!(error.contains("invalid peer certificate") && error.contains("fingerprint"), "{error}");
}
