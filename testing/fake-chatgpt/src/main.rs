//! `fake-chatgpt`: the fake as a process, for drivers in other languages and for benchmarks.
//!
//! It prints one line of JSON when it is ready and is steered over `/__fake/…` on its own port.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;
use fake_chatgpt::{AccountSpec, Answer, FakeAccount, FakeChatGpt, Script};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// A scriptable fake of the ChatGPT backend and of its OAuth issuer.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Serve TLS and write the certificate of its CA to DIR/ca.pem.
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// Offer HTTP/1.1 only, also with TLS.
    #[arg(long)]
    no_http2: bool,
    /// How many accounts to create: account-1, account-2 and so on.
    #[arg(long, default_value_t = 1)]
    accounts: usize,
    /// Their plan.
    #[arg(long, default_value = "plus")]
    plan: String,
    /// Write the accounts' auth.json to DIR/account-1.json and so on.
    #[arg(long, value_name = "DIR")]
    write_auth: Option<PathBuf>,
    /// Answer every request with a text of so many tokens instead of reading the prompt.
    #[arg(long)]
    tokens: Option<u64>,
    /// Tokens per second of these answers; as fast as clients read when absent.
    #[arg(long, requires = "tokens")]
    rate: Option<f64>,
    /// Let several ready events share a frame, for throughput.
    #[arg(long, requires = "tokens")]
    coalesce: bool,
    /// Do not keep request bodies.
    #[arg(long)]
    no_bodies: bool,
    /// How many requests to remember.
    #[arg(long, default_value_t = 10_000)]
    records: usize,
    /// Worker threads; one per core when absent.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = arguments.threads {
        runtime.worker_threads(threads.max(1));
    }
    runtime.enable_all().build().context("start the runtime")?.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    // Before the first line of output, so that a driver may stop the process as soon as it has read it.
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let fake = FakeChatGpt::builder()
        .listen(arguments.listen)
        .tls(arguments.tls_dir.is_some())
        .http2(!arguments.no_http2)
        .record_bodies(!arguments.no_bodies)
        .records_max(arguments.records)
        .start()
        .await?;
    if let (Some(dir), Some(ca_pem)) = (&arguments.tls_dir, fake.ca_pem()) {
        write(dir, "ca.pem", ca_pem)?;
    }
    if let Some(text_tokens) = arguments.tokens {
        let (tokens_per_second, coalesce) = (arguments.rate, arguments.coalesce);
        fake.default_script_for_new_accounts(Script::Answer(Answer {
            text_tokens,
            tokens_per_second,
            coalesce,
            ..Answer::default()
        }));
    }
    for _ in 0..arguments.accounts {
        let account = fake.add_account(AccountSpec { plan: arguments.plan.clone(), ..AccountSpec::default() });
        if let Some(dir) = &arguments.write_auth {
            write(dir, &format!("{}.json", account.name()), &format!("{:#}\n", account.auth_json()))?;
        }
    }
    print_ready(&fake)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    fake.shutdown().await;
    Ok(())
}

fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn print_ready(fake: &FakeChatGpt) -> anyhow::Result<()> {
    let accounts = fake.accounts();
    let ready = json!({
        "base_url": fake.base_url(),
        "issuer": fake.issuer_url(),
        "control": format!("{}/__fake", fake.issuer_url()),
        "accounts": accounts.iter().map(FakeAccount::name).collect::<Vec<_>>(),
    });
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{ready}").and_then(|()| stdout.flush()).context("say that it is ready")
}
