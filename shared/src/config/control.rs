//! Sections `[admin]`, `[metrics]` and `[dashboard]`: the listeners besides the data plane's.

use std::net::SocketAddr;

use crate::config::reader::Reader;

/// Section `[admin]`: the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens.
    pub listen: SocketAddr,
}

impl AdminConfig {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        Some(Self { listen: reader.socket_addr("admin.listen")? })
    }
}

/// Section `[metrics]`: the Prometheus endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Where it listens.
    pub listen: SocketAddr,
}

impl MetricsConfig {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        Some(Self { listen: reader.socket_addr("metrics.listen")? })
    }
}

/// Section `[dashboard]`: where the control plane can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DashboardConfig {
    /// Whether the data plane hands on to the control plane what is not its own.
    pub on_proxy_port: bool,
}

impl DashboardConfig {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        Some(Self { on_proxy_port: reader.boolean("dashboard.on_proxy_port")? })
    }
}

/// Two listeners on one address would fail at start with "address in use", which names neither.
pub(super) fn check_listeners_differ(reader: &mut Reader, listeners: &[(&'static str, Option<SocketAddr>)]) {
    for (index, (key, address)) in listeners.iter().enumerate() {
        let Some(address) = address.filter(|address| address.port() != 0) else { continue };
        let earlier = listeners[..index].iter().find(|(_, other)| *other == Some(address));
        if let Some((other_key, _)) = earlier {
            reader.refuse(key, format!("the same address as {other_key}"), "give each listener its own port");
        }
    }
}
