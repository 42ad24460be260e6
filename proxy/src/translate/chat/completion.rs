//! An answer as one completion.

use bytes::Bytes;
use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::ids::ExchangeId;

use super::ChatAnswer;
use super::call_ids::CallKind;
use super::chunks::{chat_id, citation, image, readable_detail, sealed_detail};
use super::members::Members;
use super::pieces::{Ending, Finish, Piece, Reasoning};
use super::reader::{HELD_BYTES_MAX, Reader, Teller};
use crate::intake::json_string;
use crate::relay::Event;
use crate::translate::Collected;

/// Collects the events of an answer.
#[derive(Debug)]
pub(crate) struct ChatCollector {
    answer: ChatAnswer,
    id: String,
    created: i64,
    reader: Reader,
    message: Message,
}

impl ChatCollector {
    /// A completion with the exchange's id and the time at which it was asked for.
    pub(crate) fn new(answer: ChatAnswer, id: ExchangeId, requested_at: Timestamp) -> Self {
        Self::bounded(answer, id, requested_at, HELD_BYTES_MAX)
    }

    /// The same with another bound on what is held of the answer.
    pub(super) fn bounded(answer: ChatAnswer, id: ExchangeId, requested_at: Timestamp, held_bytes_max: usize) -> Self {
        let created = requested_at.as_unix_seconds();
        Self { answer, id: chat_id(id), created, reader: Reader::new(held_bytes_max), message: Message::default() }
    }

    /// Looks at one event of an answer; [`Collected::Done`] holds the whole completion.
    pub(crate) fn collect(&mut self, event: Event<'_>) -> Collected {
        let ending = self.reader.read(event, &mut self.message);
        match ending {
            None => Collected::More,
            Some(Ending::Finished(finish)) => Collected::Done(self.completion(&finish)),
            Some(Ending::TooLarge) => Collected::TooLarge,
            Some(Ending::Failed(_)) => Collected::Failed(Bytes::from(event.data().into_owned())),
        }
    }

    fn completion(&self, finish: &Finish) -> Bytes {
        let has_legacy_calls = self.answer.has_legacy_calls;
        let mut choice = Members::new(0);
        choice.put("index", "0");
        choice.put("message", &self.message.to_json(has_legacy_calls));
        choice.put("logprobs", "null");
        choice.put("finish_reason", &json_string(finish.reason(self.reader.calls(), has_legacy_calls)));
        let choice = choice.into_json();
        let mut completion = Members::new(choice.len());
        completion.put("id", &json_string(&self.id));
        completion.put("object", r#""chat.completion""#);
        completion.put("created", &self.created.to_string());
        completion.put("model", &json_string(self.reader.model.as_deref().unwrap_or(&self.answer.model)));
        completion.put("choices", &format!("[{choice}]"));
        completion.put_if_some("usage", finish.usage.as_deref());
        completion.put_if_some("service_tier", self.reader.service_tier.as_deref().map(json_string).as_deref());
        completion.put("system_fingerprint", "null");
        Bytes::from(completion.into_json())
    }
}

/// The message, as far as it was told.
#[derive(Debug, Default)]
struct Message {
    content: String,
    refusal: String,
    reasoning: String,
    details: Vec<Detail>,
    annotations: Vec<String>,
    calls: Vec<Call>,
    images: Vec<String>,
}

/// A detail of the reasoning.
#[derive(Debug)]
enum Detail {
    Readable { id: Option<String>, is_summary: bool, index: usize, text: String },
    Sealed(String),
}

#[derive(Debug)]
struct Call {
    kind: CallKind,
    id: String,
    name: String,
    text: String,
}

impl Teller for Message {
    fn tell(&mut self, piece: &Piece<'_>) {
        match piece {
            Piece::Text(text) => self.content.push_str(text),
            Piece::Refusal(text) => self.refusal.push_str(text),
            Piece::Citation { json, .. } => self.annotations.push(citation(None, json)),
            Piece::Reasoning(piece) => self.reason(piece),
            Piece::SealedReasoning { detail, id, data } => {
                self.details.push(Detail::Sealed(sealed_detail(*detail, *id, data)));
            }
            Piece::Call { kind, id, name, .. } => {
                let (id, name) = ((*id).to_owned(), (*name).to_owned());
                self.calls.push(Call { kind: *kind, id, name, text: String::new() });
            }
            Piece::CallText { index, text, .. } => {
                if let Some(call) = self.calls.get_mut(*index) {
                    call.text.push_str(text);
                }
            }
            Piece::Image { index, url } => self.images.push(image(*index, url)),
        }
    }
}

impl Message {
    fn reason(&mut self, piece: &Reasoning<'_>) {
        self.reasoning.push_str(piece.lead);
        self.reasoning.push_str(piece.text);
        let known = self.details.iter_mut().find_map(|detail| match detail {
            Detail::Readable { index, text, .. } if *index == piece.detail => Some(text),
            Detail::Readable { .. } | Detail::Sealed(_) => None,
        });
        match known {
            Some(text) => text.push_str(piece.text),
            None => self.details.push(Detail::Readable {
                id: piece.id.map(str::to_owned),
                is_summary: piece.is_summary,
                index: piece.detail,
                text: piece.text.to_owned(),
            }),
        }
    }

    fn to_json(&self, has_legacy_calls: bool) -> String {
        let mut message = Members::new(self.content.len());
        message.put("role", r#""assistant""#);
        // Without text there is none, unless there is nothing else either.
        let has_other = !self.calls.is_empty() || !self.refusal.is_empty() || !self.images.is_empty();
        let content = if self.content.is_empty() && has_other { None } else { Some(json_string(&self.content)) };
        message.put("content", content.as_deref().unwrap_or("null"));
        let refusal = (!self.refusal.is_empty()).then(|| json_string(&self.refusal));
        message.put("refusal", refusal.as_deref().unwrap_or("null"));
        if !self.reasoning.is_empty() {
            let reasoning = json_string(&self.reasoning);
            message.put("reasoning_content", &reasoning);
            message.put("reasoning", &reasoning);
        }
        if !self.details.is_empty() {
            let details: Vec<String> = self.details.iter().map(Detail::to_json).collect();
            message.put("reasoning_details", &format!("[{}]", details.join(",")));
        }
        message.put("annotations", &format!("[{}]", self.annotations.join(",")));
        if !self.images.is_empty() {
            message.put("images", &format!("[{}]", self.images.join(",")));
        }
        if has_legacy_calls {
            message.put_if_some("function_call", self.calls.first().map(Call::called).as_deref());
        } else if !self.calls.is_empty() {
            let calls: Vec<String> = self.calls.iter().map(Call::to_json).collect();
            message.put("tool_calls", &format!("[{}]", calls.join(",")));
        }
        message.into_json()
    }
}

impl Detail {
    fn to_json(&self) -> String {
        match self {
            Self::Readable { id, is_summary, index, text } => readable_detail(&Reasoning {
                detail: *index,
                id: id.as_deref(),
                is_summary: *is_summary,
                begins: true,
                lead: "",
                text,
            }),
            Self::Sealed(json) => json.clone(),
        }
    }
}

impl Call {
    fn called(&self) -> String {
        let mut called = Members::new(self.text.len());
        called.put("name", &json_string(&self.name));
        called.put(self.kind.text_name(), &json_string(&self.text));
        called.into_json()
    }

    fn to_json(&self) -> String {
        let mut call = Members::new(self.text.len());
        call.put("id", &json_string(&self.id));
        call.put("type", &json_string(self.kind.name()));
        call.put(self.kind.name(), &self.called());
        call.into_json()
    }
}
