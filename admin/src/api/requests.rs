//! `/api/v1/requests`: the request log. It holds no prompt and no answer.

mod list;

pub(crate) use list::list;
