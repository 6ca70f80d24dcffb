//! Secrets from files: what is wrong with a file, which one is sent, and that none is ever shown.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use relight_config::{Registry, parse};
use relight_core::responder::{Attempt, Plan};

use super::rig::read;

const CANARY: &str = "hunter2-canary";

fn keep(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("a folder of our own");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a file of our own");
}

/// The problems of a config with these responders, without the number of problems.
fn problems(responders: &str) -> Vec<String> {
    let registry = Registry { detectors: relight_detectors::ALL, responders: relight_responders::ALL };
    let text = format!("responders:\n  hook: {responders}\n");
    match parse("c.yaml", &text, &registry, &|_| None) {
        Ok(_) => Vec::new(),
        Err(errors) => {
            let text = errors.to_string();
            assert!(!text.contains(CANARY), "{text}");
            text.lines().filter(|line| line.starts_with("c.yaml")).map(str::to_owned).collect()
        }
    }
}

/// Guarantee: each way in which a file is not a secret is said in words of its own, at its key, without what it holds.
#[test]
fn g09_a_file_that_is_no_secret_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    let url = format!("https://example.com/{CANARY}\n");
    let long = CANARY.repeat(10_000);
    let nonsense = format!("no url {CANARY}");
    for (name, text, mode) in [
        ("good", url.as_str(), 0o600),
        ("group", url.as_str(), 0o640),
        ("world", url.as_str(), 0o644),
        ("empty", "\n", 0o600),
        ("long", long.as_str(), 0o600),
        ("nonsense", nonsense.as_str(), 0o600),
    ] {
        keep(&path(name), text, mode);
    }
    let in_file = |name: &str| format!("{{type: webhook, url_file: \"{}\"}}", path(name).display());
    let cases = [
        (in_file("good"), None),
        (in_file("group"), None),
        (
            in_file("world"),
            Some("responders.hook.url_file: FILE is open to everybody (mode 0644): `chmod 600` it"),
        ),
        (in_file("empty"), Some("responders.hook.url_file: FILE is empty")),
        (in_file("long"), Some("responders.hook.url_file: FILE is longer than 65536 bytes")),
        (in_file("gone"), Some("responders.hook.url_file: FILE cannot be read: No such file")),
        (in_file(""), Some("responders.hook.url_file: FILE is not a file")),
        (in_file("nonsense"), Some("responders.hook.url: is not a URL")),
        ("{type: webhook}".to_owned(), Some("responders.hook: `url` is missing, or `url_file`")),
        (
            in_file("good").replace('}', ", url: https://example.com}"),
            Some("responders.hook.url_file: `url` is there too: one of them is enough"),
        ),
        (
            in_file("good").replace('}', ", headers_file: {authorization: /no/such/file}}"),
            Some("responders.hook.headers_file.authorization: /no/such/file cannot be read: No such file"),
        ),
        (
            in_file("good").replace("url_file", "url_fil"),
            Some("responders.hook.url_fil: unknown key; did you mean `url_file`?"),
        ),
    ];
    for (written, expected) in cases {
        let found = problems(&written);
        let Some(expected) = expected else {
            assert_eq!(found, Vec::<String>::new(), "{written}");
            continue;
        };
        let (at, rest) = expected.split_once("FILE").map_or((expected, ""), |(at, rest)| (at, rest));
        assert!(found.iter().any(|line| line.contains(at) && line.contains(rest)), "{written}: {found:#?}");
    }
}

/// Answers 200 and hands out the head of each request.
fn receiver() -> (u16, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
            let mut head = String::new();
            while reader.read_line(&mut head).unwrap_or(0) > 2 {}
            // Said back, as a careless target does.
            let _ = write!(stream, "HTTP/1.1 401 x\r\nContent-Length: {}\r\n\r\n{head}", head.len());
            if tell.send(head).is_err() {
                return;
            }
        }
    });
    (port, told)
}

/// Scenario: a token is replaced in its file while relight runs; then the file is gone.
/// Guarantee: the next attempt has the new one; without a file the last good one is sent, and the failure says why it may
/// be old. No message holds a secret, not even where the target says it back.
#[test]
fn g08_secret_file_rotate() {
    let dir = tempfile::tempdir().expect("a folder");
    let (url, token, shared) = (dir.path().join("url"), dir.path().join("token"), dir.path().join("shared"));
    let (port, told) = receiver();
    keep(&url, &format!("http://127.0.0.1:{port}/{CANARY}-url\n"), 0o600);
    keep(&token, &format!("Bearer {CANARY}-1\n"), 0o400);
    keep(&shared, &format!("{CANARY}-a\r\n"), 0o600);
    let config = read(&format!(
        "secrets: {{key_file: \"{}\"}}\nresponders:\n  hook: {{type: webhook, url_file: \"{}\", reach: notify, header_secrets: \
         {{x-key: key}}, headers_file: {{authorization: \"{}\"}}}}\n",
        shared.display(),
        url.display(),
        token.display()
    ));
    assert!(!format!("{config:?}").contains(CANARY));
    let hook = &config.responders["hook"];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let plan = Plan { summary: "a page".to_owned(), body: serde_json::json!({}) };
    let send = || {
        let attempt =
            Attempt { number: 1, idempotency_key: "k".to_owned(), at: relight_core::Timestamp::from_secs(1) };
        let error = runtime.block_on(hook.apply(attempt, &plan)).expect_err("it says 401");
        assert!(!error.message.contains(CANARY), "{}", error.message);
        (told.recv_timeout(Duration::from_mins(1)).expect("a request"), error.message)
    };
    let (head, _) = send();
    for part in [
        format!("POST /{CANARY}-url HTTP"),
        format!("authorization: Bearer {CANARY}-1\r\n"),
        format!("x-key: {CANARY}-a\r\n"),
    ] {
        assert!(head.contains(&part), "{part} is not in {head}");
    }
    fs::remove_file(&token).expect("it is ours");
    keep(&token, &format!("Bearer {CANARY}-2"), 0o400);
    keep(&shared, &format!("{CANARY}-b\n"), 0o600);
    let (head, _) = send();
    assert!(
        head.contains(&format!("Bearer {CANARY}-2\r\n")) && head.contains(&format!("x-key: {CANARY}-b\r\n")),
        "{head}"
    );
    fs::remove_file(&token).expect("it is ours");
    let (head, said) = send();
    assert!(head.contains(&format!("Bearer {CANARY}-2\r\n")), "{head}");
    assert!(said.contains("with the last good secret") && said.contains("cannot be read"), "{said}");
}
