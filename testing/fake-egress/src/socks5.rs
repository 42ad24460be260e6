//! The SOCKS5 half: RFC 1928 with the user and password of RFC 1929, CONNECT only.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::Inner;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const SUCCEEDED: u8 = 0;
const HOST_UNREACHABLE: u8 = 4;

pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    inner: &Inner,
    mut stream: S,
    is_endless: bool,
) -> io::Result<()> {
    let (_version, count) = (stream.read_u8().await?, stream.read_u8().await?);
    let methods = read_bytes(&mut stream, count).await?;
    if is_endless {
        loop {
            stream.write_all(&[VERSION, NO_LOGIN, VERSION, SUCCEEDED, 0, 3, 255]).await?;
        }
    }
    let method = if inner.login.is_some() { USER_AND_PASSWORD } else { NO_LOGIN };
    if !methods.contains(&method) {
        inner.admits(None);
        stream.write_all(&[VERSION, NO_METHOD]).await?;
        return stream.shutdown().await;
    }
    stream.write_all(&[VERSION, method]).await?;
    if method == USER_AND_PASSWORD && !is_admitted(inner, &mut stream).await? {
        return stream.shutdown().await;
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await?;
    let host = match request[3] {
        1 => Ipv4Addr::from(stream.read_u32().await?).to_string(),
        4 => Ipv6Addr::from(stream.read_u128().await?).to_string(),
        _ => read_text(&mut stream).await?,
    };
    let port = stream.read_u16().await?;
    let reached = inner.reach(&host, port).await;
    let code = if reached.is_ok() { SUCCEEDED } else { HOST_UNREACHABLE };
    stream.write_all(&[VERSION, code, 0, 1, 127, 0, 0, 1, 0, 0]).await?;
    let Ok(mut destination) = reached else { return stream.shutdown().await };
    tokio::io::copy_bidirectional(&mut stream, &mut destination).await?;
    Ok(())
}

async fn is_admitted<S: AsyncRead + AsyncWrite + Unpin>(inner: &Inner, stream: &mut S) -> io::Result<bool> {
    let _version = stream.read_u8().await?;
    let (user, password) = (read_text(stream).await?, read_text(stream).await?);
    let is_admitted = inner.admits(Some((&user, &password)));
    stream.write_all(&[1, u8::from(!is_admitted)]).await?;
    Ok(is_admitted)
}

/// A text with its length in front.
async fn read_text<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<String> {
    let count = stream.read_u8().await?;
    let bytes = read_bytes(stream, count).await?;
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

async fn read_bytes<S: AsyncRead + Unpin>(stream: &mut S, count: u8) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(count)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
