//! From a client's dialect to upstream's and back. Pure: bytes and parsed events in, bytes out.

mod chat;
mod collect;
mod compaction;
mod failure;
mod images;
mod input_items;
mod openai_params;
mod openai_request;
mod openai_stream;
mod raw;
mod request;
mod thread_goal;

pub(crate) use chat::{ChatAnswer, ChatCollector, ChatStream};
pub(crate) use collect::{Collected, OutputItems};
pub(crate) use compaction::to_compaction;
pub(crate) use images::{ImageStream, to_images};
pub(crate) use input_items::{has_compaction, without_encrypted_items};
pub(crate) use openai_stream::OpenAiStream;
pub(crate) use request::{AnswerShape, Inquiry, PreparedRequest, UpstreamHead, prepare};
