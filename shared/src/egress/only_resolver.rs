//! A resolver that knows a single name: the egress proxy's own.
//!
//! A client that is to use a proxy and for some reason does not would resolve upstream's name and connect. With this
//! resolver it cannot.

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Resolves one name and refuses every other.
pub(crate) struct OnlyResolver {
    host: String,
}

impl OnlyResolver {
    pub(crate) const fn new(host: String) -> Self {
        Self { host }
    }
}

impl Resolve for OnlyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let is_allowed = name.as_str().eq_ignore_ascii_case(&self.host);
        let host = self.host.clone();
        Box::pin(async move {
            if !is_allowed {
                return Err("only the egress proxy's own name is resolved here".into());
            }
            let addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_other_name_is_resolved() {
        let resolver = OnlyResolver::new("localhost".to_owned());
        assert!(resolver.resolve("LocalHost".parse().unwrap()).await.is_ok_and(|mut found| found.next().is_some()));
        for other in ["chatgpt.com", "localhost.", "xlocalhost", "127.0.0.1"] {
            assert!(resolver.resolve(other.parse().unwrap()).await.is_err(), "{other}");
        }
    }
}
