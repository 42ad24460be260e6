//! The hop to the control plane: what is not the data plane's goes over a private Unix socket.
//!
//! Every header by which the client could claim to be somebody else is replaced by one of ours, signed with a secret
//! of this process, that tells the socket's real peer.

use codex_lb_shared::hop::{HOP_HEADER, HopPeer, is_forwarding_header};
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use crate::serve::DataPlane;

/// Where the control plane listens for us.
pub(super) fn peer(plane: &DataPlane) -> Result<Box<HttpPeer>> {
    let path = plane.control_plane_socket.as_ref().and_then(|path| path.to_str());
    let path = path.ok_or_else(|| Error::explain(ErrorType::InternalError, "the control plane has no socket"))?;
    Ok(Box::new(HttpPeer::new_uds(path, false, String::new())?))
}

/// Replaces the client's claims by the signed truth.
pub(super) fn rewrite(plane: &DataPlane, session: &Session, request: &mut RequestHeader) -> Result<()> {
    let claims: Vec<http::HeaderName> =
        request.headers.keys().filter(|name| is_forwarding_header(name.as_str())).cloned().collect();
    let was_forwarded = !claims.is_empty();
    request.remove_header(HOP_HEADER);
    for name in claims {
        request.remove_header(&name);
    }
    let ip = session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip().to_canonical());
    let ip = ip.ok_or_else(|| Error::explain(ErrorType::InternalError, "the client has no address"))?;
    let is_tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
    request.insert_header(HOP_HEADER, plane.state.hop_secret.sign(HopPeer { ip, is_tls, was_forwarded }))
}
