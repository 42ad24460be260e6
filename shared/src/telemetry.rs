//! What the process tells about itself: the log and the metrics. Never a secret, a prompt or an e-mail address.

mod logging;
pub mod metrics;

pub use logging::init_logging;
