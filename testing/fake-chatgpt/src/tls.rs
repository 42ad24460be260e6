//! A certificate authority of its own for each fake, so that clients prove that they were told whom to trust.

use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

/// The last is one that no resolver knows: a test's proxy leads it here, and nothing else does.
const NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "upstream.invalid"];

/// What is needed to serve TLS, and to trust it.
pub(crate) struct Identity {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) ca_pem: String,
}

impl Identity {
    /// Makes a CA and a leaf under it. ALPN offers h2 only if `http2`.
    pub(crate) fn new(http2: bool) -> anyhow::Result<Self> {
        let ca_key = KeyPair::generate().context("generate the key of the CA")?;
        let mut ca_params = CertificateParams::new(Vec::default()).context("describe the CA")?;
        ca_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca_params.distinguished_name.push(DnType::CommonName, "fake-chatgpt CA");
        ca_params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_pem = ca_params.self_signed(&ca_key).context("sign the CA")?.pem();
        let issuer = Issuer::new(ca_params, ca_key);

        let leaf_key = KeyPair::generate().context("generate the key of the leaf")?;
        let names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
        let mut leaf_params = CertificateParams::new(names).context("describe the leaf")?;
        leaf_params.distinguished_name.push(DnType::CommonName, "localhost");
        leaf_params.use_authority_key_identifier_extension = true;
        leaf_params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        leaf_params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        let leaf = leaf_params.signed_by(&leaf_key, &issuer).context("sign the leaf")?;
        let private_key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));

        // The provider is named, so that it does not matter whether and what the process has installed.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("choose TLS versions")?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], private_key)
            .context("configure TLS")?;
        config.alpn_protocols =
            if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), ca_pem })
    }
}
