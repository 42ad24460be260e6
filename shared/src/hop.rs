//! The one header on the hop from the data plane's port to the control plane: who the real peer is, signed.
//!
//! Without it every remote caller of port 2455 would look like loopback to the dashboard. The secret lives and dies
//! with the process, so nobody else can make one up. Both planes also agree here on which headers claim to speak for
//! somebody else.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The header's name. The control plane refuses it from anyone who did not sign it.
pub const HOP_HEADER: &str = "x-codex-lb-hop";

/// Headers by which somebody in between tells for whom it speaks, beside everything that begins with `x-forwarded-`.
const FORWARDING_HEADERS: [&str; 7] =
    ["forwarded", "via", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip", "cf-connecting-ip"];

/// Whether a header, named in lower case, tells for whom somebody in between speaks.
pub fn is_forwarding_header(name: &str) -> bool {
    FORWARDING_HEADERS.contains(&name) || name.starts_with("x-forwarded-")
}

/// Signs and verifies hop headers.
pub struct HopSecret([u8; 32]);

/// Who called the data plane's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopPeer {
    /// The address at the other end of the socket.
    pub ip: IpAddr,
    /// Whether the socket was TLS.
    pub is_tls: bool,
    /// Whether the caller's request carried a forwarding header (which the hop replaced).
    pub was_forwarded: bool,
}

impl HopSecret {
    /// Makes a new secret.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// The header's value for this peer.
    pub fn sign(&self, peer: HopPeer) -> String {
        let claim = format!("{}|{}|{}", peer.ip, u8::from(peer.is_tls), u8::from(peer.was_forwarded));
        let tag = self.tag(&claim).map(|mac| URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()));
        format!("{claim}|{}", tag.unwrap_or_default())
    }

    /// The peer in a header's value, if this process signed it.
    pub fn verify(&self, value: &str) -> Option<HopPeer> {
        let (claim, tag) = value.rsplit_once('|')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        self.tag(claim)?.verify_slice(&tag).ok()?;
        let mut parts = claim.split('|');
        let peer = HopPeer {
            ip: parts.next()?.parse().ok()?,
            is_tls: parts.next()? == "1",
            was_forwarded: parts.next()? == "1",
        };
        parts.next().is_none().then_some(peer)
    }

    fn tag(&self, claim: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(claim.as_bytes());
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_process_signed_is_believed() {
        let secret = HopSecret::generate();
        let peer = HopPeer { ip: "203.0.113.9".parse().unwrap(), is_tls: true, was_forwarded: false };
        let value = secret.sign(peer);
        assert_eq!(secret.verify(&value), Some(peer));
        assert_eq!(HopSecret::generate().verify(&value), None);
        assert_eq!(secret.verify(&value.replace("203.0.113.9", "127.0.0.1")), None);
        for forged in ["", "127.0.0.1|0|0", "127.0.0.1|0|0|", "|||", "127.0.0.1|0|0|AAAA"] {
            assert_eq!(secret.verify(forged), None, "{forged}");
        }
    }

    #[test]
    fn headers_that_speak_for_somebody_else_are_known() {
        for name in ["forwarded", "via", "x-real-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-whatever"] {
            assert!(is_forwarding_header(name), "{name}");
        }
        for name in ["host", "x-codex-lb-request", "x-codex-window-id", "origin"] {
            assert!(!is_forwarding_header(name), "{name}");
        }
    }
}
