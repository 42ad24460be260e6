//! Answers health checks: alive, ready for traffic, started.

use bytes::Bytes;
use codex_lb_shared::clock;
use pingora_proxy::Session;
use serde_json::json;

use crate::relay::{AnswerHead, ClientGone};
use crate::route::HealthQuestion;
use crate::serve::DataPlane;
use crate::trail::Trail;

/// Answers. A lost database is told as `degraded` and never as "not ready": it would restart every pod at once.
pub(crate) async fn answer(plane: &DataPlane, session: &mut Session, question: HealthQuestion) {
    let (status, word) = match question {
        HealthQuestion::Ready if plane.state.is_draining() => (503, "draining"),
        HealthQuestion::Ready | HealthQuestion::Live | HealthQuestion::Startup => {
            (200, if plane.state.is_database_lost() { "degraded" } else { "ok" })
        }
    };
    let trail = Trail::begin("health", &session.req_header().headers, clock::now());
    let body = Bytes::from(json!({ "status": word }).to_string());
    let head = AnswerHead { headers: vec![("cache-control", "no-store".to_owned())] };
    // A prober that left needs no answer.
    let mut downstream = plane.downstream(session, trail.id);
    let (Ok(()) | Err(ClientGone)) = downstream.answer(status, "application/json", &head, body).await;
}
