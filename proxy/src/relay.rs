//! From the first byte there is no way back: the answer is streamed, translated or collected until either side ends.

mod downstream;
mod events;
mod meter;
mod vigil;

pub(crate) use downstream::{AnswerHead, ClientGone, Downstream, FailureForm, Headers};
pub(crate) use events::{Event, EventSplitter, EventTooLarge};
pub(crate) use meter::{Meter, Terminal};
pub(crate) use vigil::Vigil;
