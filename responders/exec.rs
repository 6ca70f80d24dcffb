//! `exec`: one program, started without a shell.
//!
//! What came in with telemetry reaches the program as JSON on its standard input, or as a whole argument that
//! holds only harmless characters. Nothing is tried again here.

use std::collections::BTreeMap;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use relight_core::Span;
use relight_core::detector::ConfigError;
use relight_core::responder::{
    Attempt, Capabilities, EffectKind, NotSent, Observation, Plan, PlanError, Reach, Receipt, Request,
    Responder, ResponderError, Retry, Secret, Secrets,
};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::document::{document, one_line, redacted};
use crate::strays::Strays;

/// Bytes kept of each output; the rest is read and dropped, so that the program does not stall.
const MAX_OUTPUT: usize = 64 * 1024;
/// Between asking a program to end and ending it.
const GRACE: Duration = Duration::from_secs(5);
/// Output that is still on its way when all processes are gone.
const LAST_WORDS: Duration = Duration::from_secs(1);
const MAX_ARGUMENT: usize = 256;

/// Settings of `exec`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecConfig {
    /// The program, with its whole path, and its arguments. An argument `{args.NAME}` is that argument of the
    /// step, `{group.LABEL}` that label of the incident's group.
    command: Vec<String>,
    /// The environment, beside what relight sets. Values are secrets.
    #[serde(default)]
    env: BTreeMap<String, Secret>,
    /// The time that it has, before it and all that it has started are ended.
    #[serde(default = "a_minute")]
    timeout: Span,
    /// Whether it only tells somebody (`notify`) or changes the world (`mutate`).
    #[serde(default)]
    reach: Reach,
    /// Whether running it twice is the same as once; else it is never run again in doubt.
    #[serde(default)]
    idempotent: bool,
    /// What a replaced argument may contain besides harmless characters: `..` leads out of a folder, and `@` names a file
    /// or another host to many programs.
    #[serde(default)]
    allow: Vec<Allowed>,
}

/// A text that is refused in a replaced argument unless it is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
enum Allowed {
    /// Such as in `image@sha256:...`.
    #[serde(rename = "@")]
    At,
    /// Such as in a range of revisions.
    #[serde(rename = "..")]
    Dots,
}

impl Allowed {
    const ALL: [Self; 2] = [Self::At, Self::Dots];

    const fn text(self) -> &'static str {
        match self {
            Self::At => "@",
            Self::Dots => "..",
        }
    }
}

const fn a_minute() -> Span {
    Span::from_secs(60)
}

/// One element of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Arg(String),
    Label(String),
}

/// Runs a program an attempt.
#[derive(Debug)]
pub struct Exec {
    command: Vec<Part>,
    env: BTreeMap<String, Secret>,
    timeout: Duration,
    reach: Reach,
    effect: EffectKind,
    allow: Vec<Allowed>,
}

impl Responder for Exec {
    const NAME: &'static str = "exec";
    const DOC: &'static str = include_str!("exec.md");
    type Config = ExecConfig;

    fn example() -> Value {
        json!({ "command": ["/usr/local/bin/rollback", "--to", "{args.to}"] })
    }

    fn new(config: ExecConfig, _secrets: &Secrets) -> Result<Self, ConfigError> {
        let is_path = config.command.first().is_some_and(|program| program.starts_with('/'));
        if !is_path {
            return Err(ConfigError::at(
                "command",
                "begins with a program's whole path, such as /usr/bin/env",
            ));
        }
        if config.command.iter().any(|text| text.contains('\0')) {
            return Err(ConfigError::at("command", "holds a NUL"));
        }
        if config.timeout <= Span::ZERO {
            return Err(ConfigError::at("timeout", "must be longer than nothing"));
        }
        for (name, value) in &config.env {
            let is_name = !name.is_empty() && !name.contains(['=', '\0']) && !name.starts_with("RELIGHT_");
            if !is_name || value.reveal().contains('\0') {
                return Err(ConfigError::at(format!("env.{name}"), "cannot be set"));
            }
        }
        Ok(Self {
            command: config.command.iter().map(|text| part(text)).collect(),
            env: config.env,
            timeout: Duration::from_nanos(config.timeout.ns().unsigned_abs()),
            reach: config.reach,
            effect: if config.idempotent { EffectKind::Idempotent } else { EffectKind::FireOnce },
            allow: config.allow,
        })
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { effect: self.effect, reach: self.reach, observes: false, reverts: false }
    }

    fn plan(&self, request: &Request<'_>) -> Result<Plan, PlanError> {
        let argv: Result<Vec<String>, PlanError> =
            self.command.iter().map(|part| argument(part, request, &self.allow)).collect();
        let argv = argv?;
        let summary = one_line(&format!("run {}", argv.join(" ")));
        let document = document(request);
        Ok(Plan { summary, body: json!({ "argv": argv, "stdin": document }) })
    }

    async fn preflight(&self, _plan: &Plan) -> Result<(), ResponderError> {
        Ok(())
    }

    async fn observe(&self, _plan: &Plan) -> Result<Observation, ResponderError> {
        Ok(Observation::Unknown)
    }

    async fn apply(&self, attempt: Attempt, plan: &Plan) -> Result<Receipt, ResponderError> {
        let running = self.start(&attempt, plan)?;
        let ended = timeout(self.timeout, running.ended()).await;
        let in_time = ended.is_ok();
        if !in_time {
            running.signal(Signal::TERM);
            // Whether it obeys or not, the group is killed below.
            let _ = timeout(GRACE, running.ended()).await;
        }
        let (status, output) = running.finish(in_time).await;
        let said = one_line(redacted(&output, self.env.values().map(Secret::reveal)).trim());
        let fail = |message: String, retry| Err(ResponderError { message, retry });
        match status {
            _ if !in_time => fail(format!("killed after {:?}: {said}", self.timeout), Retry::Unknown),
            Ok(status) if status.success() => Ok(Receipt { summary: format!("exit 0: {said}") }),
            Ok(status) => match status.code() {
                Some(code) => fail(format!("exit {code}: {said}"), Retry::Never),
                None => fail(format!("ended by a signal: {said}"), Retry::Unknown),
            },
            Err(error) => fail(format!("its end was not seen: {}", error.kind()), Retry::Unknown),
        }
    }

    async fn revert(&self, _: Attempt, _: &Plan, _: &Receipt) -> Result<Receipt, ResponderError> {
        Err(ResponderError {
            message: "what a program did cannot be taken back".to_owned(),
            retry: Retry::Never,
        })
    }
}

impl Exec {
    fn start(&self, attempt: &Attempt, plan: &Plan) -> Result<Running, ResponderError> {
        let unsent = |message: String| ResponderError { message, retry: Retry::Unsent(NotSent::Start) };
        let argv: Vec<&str> =
            plan.body["argv"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let Some((program, arguments)) = argv.split_first() else {
            return Err(unsent("the plan names no program".to_owned()));
        };
        let document = &plan.body["stdin"];
        let incident = document["incident"]["id"].as_str().unwrap_or_default();
        let action = document["action"]["id"].as_str().unwrap_or_default();
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.envs(self.env.iter().map(|(name, value)| (name, value.reveal())));
        command.env("RELIGHT_INCIDENT", incident).env("RELIGHT_ACTION", action);
        command.env("RELIGHT_IDEMPOTENCY_KEY", &attempt.idempotency_key);
        command.env("RELIGHT_ATTEMPT", attempt.number.to_string());
        command.current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // std marks all that it opens; librdkafka's wake-up pipes are not, and there is one for each of its queues.
        close_fds::set_fds_cloexec_threadsafe(3, &[]);
        // Nothing has run: no such program, no permission, or a program that is being written.
        let child = command.spawn().map_err(|error| unsent(format!("failed to start {program}: {error}")))?;
        Ok(Running::new(child, document.to_string().into_bytes(), attempt))
    }
}

/// A program and all that it has started: one process group, which ends with this.
struct Running {
    child: Child,
    /// Of the group, until its leader is reaped: then the number may be somebody else's.
    group: Option<Pid>,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    /// What it has started outside of the group, until it has ended by itself.
    strays: Option<Strays>,
}

impl Running {
    fn new(mut child: Child, input: Vec<u8>, attempt: &Attempt) -> Self {
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(mut stdin) = child.stdin.take() {
            // A program need not read what it is told, nor read it before it writes.
            tokio::spawn(async move { drop(stdin.write_all(&input).await) });
        }
        let stdout = tokio::spawn(keep(child.stdout.take()));
        let stderr = tokio::spawn(keep(child.stderr.take()));
        Self { child, group, stdout, stderr, strays: Some(Strays::of(attempt, group)) }
    }

    /// The program itself has ended. It is not reaped yet, so the group's number is still its own.
    async fn ended(&self) {
        let Some(leader) = self.group else { return };
        let wait = move || waitid(WaitId::Pid(leader), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        // An error means that there is nothing to wait for.
        let _ = tokio::task::spawn_blocking(wait).await;
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // Gone already is as good.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Ends what is left of the group, and takes the last words. What left the group stays if the program has ended in
    /// time: a script that restarts a service leaves its daemon in a session of its own.
    async fn finish(mut self, in_time: bool) -> (io::Result<ExitStatus>, String) {
        self.signal(Signal::KILL);
        self.group = None;
        let status = self.child.wait().await;
        if let Some(strays) = self.strays.take().filter(|_| !in_time) {
            // A panic has ended none of them, which is as if there were none.
            let _ = tokio::task::spawn_blocking(move || strays.end()).await;
        }
        let mut output = Vec::new();
        for pipe in [&mut self.stdout, &mut self.stderr] {
            // A process that has left the group may hold the pipe open for as long as it likes.
            if let Ok(Ok(bytes)) = timeout(LAST_WORDS, &mut *pipe).await {
                output.extend_from_slice(&bytes);
            }
            pipe.abort();
        }
        (status, String::from_utf8_lossy(&output).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some(strays) = self.strays.take() {
            strays.end();
        }
        self.stdout.abort();
        self.stderr.abort();
    }
}

/// Reads to the end, and keeps the beginning.
async fn keep(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut pipe) = pipe else { return kept };
    let mut chunk = vec![0; 8 * 1024];
    while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&chunk[..length.min(room)]);
    }
    kept
}

fn part(text: &str) -> Part {
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    match inner.and_then(|inner| inner.split_once('.')) {
        Some(("args", name)) => Part::Arg(name.to_owned()),
        Some(("group", label)) => Part::Label(label.to_owned()),
        _ => Part::Text(text.to_owned()),
    }
}

fn argument(part: &Part, request: &Request<'_>, allow: &[Allowed]) -> Result<String, PlanError> {
    let (name, value) = match part {
        Part::Text(text) => return Ok(text.clone()),
        Part::Arg(name) => (name, scalar(&request.action.args[name.as_str()])),
        Part::Label(label) => (label, request.incident.group.get(label).map(str::to_owned)),
    };
    let value = value.ok_or_else(|| PlanError(format!("`{name}` is not given, or is no text or number")))?;
    let is_harmless = |c: char| c.is_ascii_alphanumeric() || "._:/@=+,-".contains(c);
    let fits = !value.is_empty() && value.len() <= MAX_ARGUMENT && !value.starts_with('-');
    let mut refused = Allowed::ALL.iter().filter(|text| !allow.contains(text)).map(|text| text.text());
    if let Some(text) = refused.find(|text| value.contains(text)) {
        let value = one_line(&value);
        return Err(PlanError(format!("`{name}` holds `{text}`, which `allow` does not name: {value}")));
    }
    if fits && value.chars().all(is_harmless) {
        return Ok(value);
    }
    Err(PlanError(format!("`{name}` is no safe argument: {}", one_line(&value))))
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        _ => None,
    }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
