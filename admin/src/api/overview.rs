//! `/api/v1/overview`: what was used, by whom and on what.

mod show;

pub(crate) use show::show;
