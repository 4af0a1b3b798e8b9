//! What do the commands say to a script: exit statuses, JSON, and no panic where nobody reads? (contract, Commands)

use crate::harness::{Changes, Process, Surroundings, gatepost, until};

/// The status of a command whose reader has gone before it writes, as `head` goes.
fn status_unread(arguments: &[&str], input: &[u8]) -> Option<i32> {
    use std::io::Write as _;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(writer)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that reads nothing may have ended.
    drop(stdin.write_all(input));
    drop(stdin);
    child.wait().unwrap().code()
}

#[tokio::test]
async fn a_reader_that_has_gone_changes_no_status() {
    let around = Surroundings::new().await;
    let good = around.configuration([0; 3], &Changes::default());
    let good = good.to_str().unwrap();
    assert_eq!(status_unread(&["completions", "bash"], b""), Some(0));
    assert_eq!(status_unread(&["hash-password"], b"secret\n"), Some(0));
    assert_eq!(status_unread(&["check", "--config", good], b""), Some(0));
    let missing = ["check", "--json", "--config", "/nowhere.toml"];
    assert_eq!(status_unread(&missing, b""), Some(2));
}

/// Runs the program in a folder; status and standard output.
fn run_in(
    folder: &std::path::Path,
    arguments: &[&str],
    variable: Option<&str>,
) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gatepost"));
    command.args(arguments).current_dir(folder);
    command
        .env_remove("GATEPOST_CONFIG")
        .envs(variable.map(|value| ("GATEPOST_CONFIG", value)));
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

/// The contract's exit statuses: 0 done and well, 1 bad news, 2 wrong use or unreadable configuration.
#[tokio::test]
async fn every_command_ends_with_the_status_of_the_contract() {
    let around = Surroundings::new().await;
    let good = around.configuration([0; 3], &Changes::default());
    let folder = good.parent().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let text = std::fs::read_to_string(&good).unwrap();
    write("good.toml", &text);
    write(
        "fault.toml",
        &text.replace("smarthost.contoso.com", "no host"),
    );
    write("unknown.toml", &format!("nonsense = 1\n{text}"));
    write("mail.eml", "From: a@contoso.com\r\n\r\n");
    let trust = "explain trust --from 127.0.0.1 --mail-from a@contoso.com";
    let table = [
        ("", 2),
        ("nonsense", 2),
        ("check --config good.toml", 0),
        ("check --config fault.toml", 1),
        ("check --config unknown.toml", 2),
        ("check --config missing.toml", 2),
        ("check --nonsense", 2),
        ("serve --config missing.toml", 2),
        ("serve --config fault.toml", 2),
        ("lab --once --config missing.toml", 2),
        ("lab --once --fault nonsense", 2),
        ("certificate show --config good.toml", 0),
        ("certificate show --config missing.toml", 2),
        ("certificate rehearse nobody --config good.toml", 2),
        ("certificate request contoso", 2),
        ("certificate", 2),
        ("hash-password", 2),
        (&format!("{trust} --message mail.eml --config good.toml"), 1),
        (&format!("{trust} --message none.eml --config good.toml"), 2),
        (
            &format!("{trust} --message mail.eml --config fault.toml"),
            2,
        ),
        ("explain trust", 2),
        ("queue", 2),
        ("queue list --config good.toml", 1),
        ("queue list --config missing.toml", 2),
        ("queue hold --config good.toml", 2),
        ("queue hold X --tenant contoso --config good.toml", 2),
        ("queue delete --tenant contoso --config good.toml", 2),
        ("trace X --config good.toml", 1),
        ("trace --since nonsense --config good.toml", 2),
        ("trace X --config missing.toml", 2),
        ("completions bash", 0),
        ("completions nonsense", 2),
        ("--version", 0),
    ];
    for (line, status) in table {
        let arguments: Vec<_> = line.split_whitespace().collect();
        let (ended, out) = run_in(folder, &arguments, None);
        assert_eq!(ended, Some(status), "gatepost {line}: {out}");
    }
    // The variable stands for the option, and the option is stronger.
    assert_eq!(run_in(folder, &["check"], Some("good.toml")).0, Some(0));
    assert_eq!(run_in(folder, &["check"], Some("fault.toml")).0, Some(1));
    let both = ["check", "--config", "good.toml"];
    assert_eq!(run_in(folder, &both, Some("fault.toml")).0, Some(0));
    write(
        "gatepost.toml",
        &text.replace("smarthost.contoso.com", "no host"),
    );
    assert_eq!(run_in(folder, &["check"], None).0, Some(1), "the default");
}

#[tokio::test]
async fn facts_are_told_as_json_where_it_is_asked_for() {
    let around = Surroundings::new().await;
    let good = around.configuration([0; 3], &Changes::default());
    let folder = good.parent().unwrap();
    std::fs::write(folder.join("mail.eml"), "From: a@contoso.com\r\n\r\n").unwrap();
    let good = good.to_str().unwrap();
    let json = |line: &str| -> serde_json::Value {
        let mut arguments: Vec<_> = line.split_whitespace().collect();
        arguments.extend(["--json", "--config", good]);
        let (_, out) = run_in(folder, &arguments, None);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{line}: {error}: {out}"))
    };
    assert!(json("check").is_array());
    let trust = json("explain trust --message mail.eml --from 127.0.0.1 --mail-from a@contoso.com");
    assert!(trust.is_object(), "{trust}");
}

/// A secret that stands in the configuration file itself is told where everybody may read that.
#[tokio::test]
async fn a_secret_in_a_configuration_that_everybody_may_read_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let around = Surroundings::new().await;
    let folder = around.folder.path();
    std::fs::write(folder.join("gate.secret"), "contoso-secret\n").unwrap();
    let changes = Changes {
        replace: vec![
            (
                "value = \"contoso-secret\"",
                "value = \"${file:gate.secret}\", previous = [\"a-gate-of-before\"]".to_owned(),
            ),
            (
                "[admin]\naddress = \"127.0.0.1:0\"",
                "[admin]\naddress = \"127.0.0.1:0\"\ntoken = \"token-of-the-api\"".to_owned(),
            ),
        ],
        append: "\n[[relay]]\nname = \"out\"\nhost = \"relay.example\"\nusername = \"u\"\npassword = \"relay-word\"\n".to_owned(),
    };
    let config = around.configuration([0; 3], &changes);
    let files = std::fs::read_dir(folder).unwrap();
    for file in files.map(|entry| entry.unwrap().path()) {
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o640)).unwrap();
    }
    let set = |path: &std::path::Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(folder, 0o755);
    assert!(
        !gatepost(&config, &["check"])
            .await
            .out
            .contains("everybody")
    );
    set(&config, 0o644);
    let said = gatepost(&config, &["check"]).await;
    assert_eq!(said.status, 0, "a warning: {said:?}");
    let real = config.canonicalize().unwrap();
    let told = format!(
        ": warning: a secret that stands in the file itself, and everybody on this machine may read {0} (mode 0644): chmod o-rwx {0}\n",
        real.display()
    );
    let keys: Vec<&str> = said
        .out
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix(&told)?.rsplit(": ").next())
        .collect();
    // Not the hash of a password, and not what is read from a file.
    assert_eq!(
        keys,
        [
            "tenant.contoso.secret_header.previous[0]",
            "tenant.contoso.loop_header.value",
            "tenant.fabrikam.secret_header.value",
            "tenant.fabrikam.loop_header.value",
            "admin.token",
            "relay.out.password",
        ],
        "{said:?}"
    );
    for secret in [
        "a-gate-of-before",
        "token-of-the-api",
        "relay-word",
        "contoso-loop",
    ] {
        assert!(!said.out.contains(secret) && !said.err.contains(secret));
    }
    set(folder, 0o700);
    assert!(
        !gatepost(&config, &["check"])
            .await
            .out
            .contains("everybody")
    );
}

/// A key or a secret that everybody on the machine may read is told by the check, and by the log of a server that starts.
#[tokio::test]
async fn a_key_or_secret_that_everybody_may_read_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let set = |path: &std::path::Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let around = Surroundings::new().await;
    let folder = around.folder.path();
    std::fs::write(folder.join("gate.secret"), "contoso-secret\n").unwrap();
    let secret = "value = \"contoso-secret\"";
    let changes = Changes::replace(secret, "value = \"${file:gate.secret}\"");
    let config = around.configuration([0; 3], &changes);
    let (key, secret) = (folder.join("contoso.key"), folder.join("gate.secret"));
    for name in ["host", "contoso", "fabrikam"] {
        set(&folder.join(format!("{name}.key")), 0o640);
    }
    set(&secret, 0o640);
    set(&config, 0o640);
    // Nobody else may enter the folder: what its files say does not matter.
    set(folder, 0o700);
    set(&key, 0o644);
    let said = gatepost(&config, &["check"]).await;
    assert!(!said.out.contains("everybody"), "{said:?}");
    set(folder, 0o755);
    set(&secret, 0o604);
    let said = gatepost(&config, &["check"]).await;
    assert_eq!(said.status, 0, "a warning: {said:?}");
    let real = |path: &std::path::Path| path.canonicalize().unwrap().display().to_string();
    let told = [
        format!(
            ": certificate.contoso.key: warning: everybody on this machine may read {0} (mode 0644): chmod o-rwx {0}\n",
            real(&key)
        ),
        format!(
            ": tenant.contoso.secret_header.value: warning: everybody on this machine may read {0} (mode 0604): chmod o-rwx {0}\n",
            real(&secret)
        ),
    ];
    for line in &told {
        assert!(said.out.contains(line), "{line}: {said:?}");
    }
    assert_eq!(said.out.matches("everybody").count(), 2, "{said:?}");
    let log = folder.join("log");
    let process = Process::logging(&config, &log);
    until("the ready server", async || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.contains("ready").then_some(())
    })
    .await;
    let text = std::fs::read_to_string(&log).unwrap();
    assert_eq!(
        text.matches("everybody on this machine").count(),
        2,
        "{text}"
    );
    assert!(process.terminate().success());
    // Mended as it says.
    for line in said.out.lines().filter(|line| line.contains("chmod")) {
        let (_, command) = line.split_once("chmod ").unwrap();
        let mended = std::process::Command::new("chmod")
            .args(command.split(' '))
            .status();
        assert!(mended.unwrap().success());
    }
    let said = gatepost(&config, &["check"]).await;
    assert!(!said.out.contains("everybody"), "{said:?}");
}
