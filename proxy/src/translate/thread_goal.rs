//! The goals of threads go to upstream as they come, but a thread belongs to a caller: its id is read so strictly that
//! upstream cannot find another one in the same bytes.

use http::{HeaderName, HeaderValue, Method};

use super::request::{AnswerShape, Inquiry, PreparedRequest};
use crate::intake::JsonObject;
use crate::rejection::Rejection;

/// Names the conversation of a thread, as Codex itself names it elsewhere.
const THREAD_ID: HeaderName = HeaderName::from_static("thread-id");
/// The spellings of the parameter.
const NAMES: [&str; 2] = ["threadId", "thread_id"];
/// Longest id of a thread.
const ID_CHARS_MAX: usize = 128;

/// Finds the thread of a request that is otherwise ready.
///
/// # Errors
/// 400 when the request is no JSON object or names several threads.
pub(super) fn prepare(request: PreparedRequest, inquiry: &Inquiry<'_>) -> Result<PreparedRequest, Rejection> {
    let mut ids = in_query(inquiry.query.unwrap_or_default())?;
    if inquiry.method != Method::GET {
        let object = JsonObject::parse(inquiry.body.clone())?;
        for name in NAMES {
            ids.extend(object.get::<String>(name, "a string")?);
        }
    }
    let Some(thread_id) = ids.first() else { return Ok(request) };
    if ids.iter().any(|id| id != thread_id || !is_id(id)) {
        return Err(wrong("A goal is one thread's, named by its id."));
    }
    let named_by = HeaderValue::from_str(thread_id).ok().map(|id| (THREAD_ID, id));
    let answer = AnswerShape::Goal { caller_scope: inquiry.caller_scope.to_owned(), thread_id: thread_id.to_owned() };
    Ok(PreparedRequest { named_by, answer, ..request })
}

fn in_query(query: &str) -> Result<Vec<String>, Rejection> {
    let mut ids = Vec::new();
    for pair in query.split(['&', ';']) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // A name that has to be decoded could be the one we look for.
        if name.contains(['%', '+']) {
            return Err(wrong("The names of a query's parameters must not be encoded here."));
        }
        if NAMES.contains(&name) {
            ids.push(value.to_owned());
        }
    }
    Ok(ids)
}

fn is_id(id: &str) -> bool {
    (1..=ID_CHARS_MAX).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn wrong(message: &str) -> Rejection {
    Rejection::invalid_value(NAMES[0], message)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use codex_lb_shared::domain::models::ModelCatalog;
    use http::HeaderMap;

    use super::super::request;
    use super::*;
    use crate::route::{ControlPath, Endpoint};

    fn thread(method: &Method, query: &str, body: &str) -> Result<Option<String>, u16> {
        let (headers, body) = (HeaderMap::new(), Bytes::copy_from_slice(body.as_bytes()));
        let inquiry = Inquiry {
            endpoint: Endpoint::Control(ControlPath::ThreadGoalGet),
            method,
            query: Some(query),
            headers: &headers,
            body: &body,
            caller_scope: "key:1",
            replay_store: &crate::replay_store::ReplayStore::off(),
        };
        let request = request::prepare(&inquiry, &ModelCatalog::default()).map_err(|rejection| rejection.status)?;
        assert!(request.body.is_empty() || request.body == body);
        let AnswerShape::Goal { thread_id, .. } = request.answer else { return Ok(None) };
        Ok(Some(thread_id))
    }

    #[test]
    fn a_thread_is_named_once_and_plainly() {
        let (get, post) = (Method::GET, Method::POST);
        let cases = [
            (&get, "threadId=t-1&x=%2F", "", Ok(Some("t-1"))),
            (&get, "thread_id=t_1", "{not json", Ok(Some("t_1"))),
            (&get, "other=1", "", Ok(None)),
            (&post, "", r#"{"threadId":"t"}"#, Ok(Some("t"))),
            (&post, "", r#"{"thread\u0049d":"t","goal":{}}"#, Ok(Some("t"))),
            (&post, "threadId=t", r#"{"thread_id":"t"}"#, Ok(Some("t"))),
            (&post, "", "{}", Ok(None)),
            (&post, "threadId=t", r#"{"threadId":"u"}"#, Err(400)),
            (&post, "", r#"{"threadId":"t","threadId":"u"}"#, Err(400)),
            (&post, "", r#"{"threadId":["t"]}"#, Err(400)),
            (&post, "", "[]", Err(400)),
            (&get, "threadId=t&threadId=u", "", Err(400)),
            (&get, "threadId=%74", "", Err(400)),
            (&get, "thread%49d=t", "", Err(400)),
            (&get, "threadId", "", Err(400)),
        ];
        for (method, query, body, expected) in cases {
            let found = thread(method, query, body);
            assert_eq!(found.as_ref().map(Option::as_deref).map_err(|status| *status), expected, "{query} {body}");
        }
    }
}
