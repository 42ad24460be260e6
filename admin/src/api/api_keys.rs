//! `/api/v1/api-keys`: the secrets that callers show. Each is shown once, when it is created.

mod create;
mod disable;
mod enable;
mod list;
mod revoke;
mod view;

pub(crate) use create::create;
pub(crate) use disable::disable;
pub(crate) use enable::enable;
pub(crate) use list::list;
pub(crate) use revoke::revoke;
