//! nginx as a plain relay: one worker, kept connections on both sides, nothing buffered, nothing logged.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use tokio::process::Command;

use crate::process::{Process, free_address};

/// Without a master process, so that killing what we started leaves nothing behind. The paths keep it away from the
/// system's own directories; the counts keep it from closing a connection in the middle of a measurement.
const CONFIGURATION: &str = "
worker_processes 1;
daemon off;
master_process off;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 8192; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size 0;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    upstream fake {
        server UPSTREAM;
        keepalive 2048;
        keepalive_timeout 300s;
        keepalive_requests 1000000000;
    }
    server {
        listen LISTEN backlog=4096;
        location / {
            proxy_pass http://fake;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 300s;
        }
    }
}
";

/// Starts it in front of `upstream`; returns where it listens.
pub(super) async fn start(
    program: &Path,
    upstream: SocketAddr,
    directory: &Path,
) -> anyhow::Result<(Process, SocketAddr)> {
    let address = free_address()?;
    let prefix = directory.join("nginx");
    fs::create_dir(&prefix).with_context(|| format!("create {}", prefix.display()))?;
    let configuration =
        CONFIGURATION.replace("UPSTREAM", &upstream.to_string()).replace("LISTEN", &address.to_string());
    let file = prefix.join("nginx.conf");
    fs::write(&file, configuration).with_context(|| format!("write {}", file.display()))?;
    let mut command = Command::new(program);
    command.arg("-p").arg(&prefix).arg("-c").arg(&file).args(["-e", "stderr"]).stdout(Stdio::null());
    let mut process = Process::start("nginx", command, directory)?;
    process.wait_for(address).await?;
    Ok((process, address))
}
