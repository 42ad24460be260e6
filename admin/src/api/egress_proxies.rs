//! `/api/v1/egress-proxies`: what accounts' connections may go out through. Passwords go in and never come out.

mod create;
mod delete;
mod fields;
mod list;
mod patch;
mod show;
mod test;
mod view;

pub(crate) use create::create;
pub(crate) use delete::delete;
pub(crate) use list::list;
pub(crate) use patch::patch;
pub(crate) use show::show;
pub(crate) use test::test;
