//! Encrypted content: opaque outside, readable to the account that made it and to no other.
//!
//! A blob has the outer shape of the real ones (a Fernet token) and carries its owner inside, so a fake needs to
//! remember nothing to refuse it elsewhere, even after a restart.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use sha2::{Digest as _, Sha256};

use crate::{clock, ids};

const VERSION: u8 = 0x80;
const HEAD_BYTES: usize = 1 + 8 + 16;
const MAC_BYTES: usize = 32;
/// Real reasoning blobs are rarely shorter than this.
const CONTENT_BYTES: usize = 640;

/// A new blob of this account.
pub(crate) fn seal(identity: &str) -> String {
    let mut blob = vec![VERSION];
    blob.extend(clock::unix_now().to_be_bytes());
    blob.extend(ids::unique().to_be_bytes());
    blob.extend(ids::unique().to_be_bytes());
    let mut content = owner_digest(identity).to_vec();
    content.resize(CONTENT_BYTES, 0);
    blob.extend(masked(&content, &blob[..HEAD_BYTES]));
    blob.extend(mac(&blob));
    URL_SAFE.encode(blob)
}

/// Whether this account made the blob.
pub(crate) fn opens(sealed: &str, identity: &str) -> bool {
    let Ok(blob) = URL_SAFE.decode(sealed) else { return false };
    if blob.len() < HEAD_BYTES + MAC_BYTES + 32 {
        return false;
    }
    let (signed, mac_found) = blob.split_at(blob.len() - MAC_BYTES);
    let content = masked(&signed[HEAD_BYTES..], &signed[..HEAD_BYTES]);
    mac(signed) == mac_found && content.starts_with(&owner_digest(identity))
}

fn owner_digest(identity: &str) -> [u8; 32] {
    Sha256::digest(identity).into()
}

fn mac(signed: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update("fake-chatgpt mac").chain_update(signed).finalize().into()
}

/// XOR with a stream that depends on the head, so that no two blobs look alike. It hides nothing from a reader of this.
fn masked(content: &[u8], head: &[u8]) -> Vec<u8> {
    let block = |index: usize| Sha256::new().chain_update(head).chain_update(index.to_be_bytes()).finalize();
    content
        .chunks(32)
        .enumerate()
        .flat_map(|(index, chunk)| chunk.iter().zip(block(index)).map(|(a, b)| a ^ b).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_opens_for_its_account_only() {
        let sealed = seal("workspace-1/user-1");
        assert!(sealed.starts_with("gAAAAA"), "looks like the real ones: {sealed}");
        assert!(opens(&sealed, "workspace-1/user-1"));
        assert!(!opens(&sealed, "workspace-1/user-2"));
        assert!(!opens(&sealed[..sealed.len() - 4], "workspace-1/user-1"), "truncated");
        assert!(!opens("gAAAAA", "workspace-1/user-1"));
    }
}
