//! The HTTP half: CONNECT, and requests in absolute form as clients send them for destinations without TLS.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::Inner;

/// Longest head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    inner: &Inner,
    mut stream: S,
    is_endless: bool,
) -> io::Result<()> {
    let head = read_head(&mut stream).await?;
    if is_endless {
        stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
        loop {
            stream.write_all(b"x-filler: 0123456789\r\n").await?;
        }
    }
    let text = String::from_utf8_lossy(&head);
    let login = text.lines().find_map(basic_login);
    if !inner.admits(login.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))) {
        return answer(&mut stream, "407 Proxy Authentication Required").await;
    }
    let mut words = text.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let authority = match target.strip_prefix("http://") {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => target,
    };
    let Some((host, port)) = authority.rsplit_once(':') else { return answer(&mut stream, "400 Bad Request").await };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let reached = match port.parse() {
        Ok(port) => inner.reach(host, port).await,
        Err(_) => return answer(&mut stream, "400 Bad Request").await,
    };
    let Ok(mut destination) = reached else { return answer(&mut stream, "502 Bad Gateway").await };
    if method == "CONNECT" {
        stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    } else {
        // Servers take absolute targets, so the request goes on as it is, and so does whatever follows it.
        destination.write_all(&head).await?;
    }
    tokio::io::copy_bidirectional(&mut stream, &mut destination).await?;
    Ok(())
}

async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, status: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.shutdown().await
}

/// The bytes up to and with the empty line, read one by one so that nothing behind it is taken.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

fn basic_login(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let credentials = value.trim().strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    name.eq_ignore_ascii_case("proxy-authorization").then(|| (user.to_owned(), password.to_owned()))
}
