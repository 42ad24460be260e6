//! `/api/v1/accounts`: the pooled logins. Their tokens go in by import and never come out.

mod delete;
mod import;
mod list;
mod patch;
mod pause;
mod resume;
mod show;
mod view;

pub(crate) use delete::delete;
pub(crate) use import::import;
pub(crate) use list::list;
pub(crate) use patch::patch;
pub(crate) use pause::pause;
pub(crate) use resume::resume;
pub(crate) use show::show;
