//! An answer as the chunks of a stream.

use codex_lb_shared::clock::Timestamp;
use codex_lb_shared::ids::ExchangeId;

use super::ChatAnswer;
use super::call_ids::CallKind;
use super::members::Members;
use super::pieces::{Ending, Finish, Piece, Reasoning};
use super::reader::{HELD_BYTES_MAX, Reader};
use super::reasoning;
use crate::intake::json_string;
use crate::rejection::Rejection;
use crate::relay::{Event, FailureForm};

/// Translates the events of an answer.
#[derive(Debug)]
pub(crate) struct ChatStream {
    reader: Reader,
    chunks: Chunks,
    has_ended: bool,
    failure: Option<Rejection>,
}

impl ChatStream {
    /// A stream whose chunks bear the exchange's id and the time at which it was asked for.
    pub(crate) fn new(answer: ChatAnswer, id: ExchangeId, requested_at: Timestamp) -> Self {
        Self::bounded(answer, id, requested_at, HELD_BYTES_MAX)
    }

    /// The same with another bound on what is held of the answer.
    pub(super) fn bounded(answer: ChatAnswer, id: ExchangeId, requested_at: Timestamp, held_bytes_max: usize) -> Self {
        let chunks = Chunks { answer, id: chat_id(id), created: requested_at.as_unix_seconds(), frame: None };
        Self { reader: Reader::new(held_bytes_max), chunks, has_ended: false, failure: None }
    }

    /// Appends what the client gets of one event.
    pub(crate) fn translate(&mut self, event: Event<'_>, out: &mut Vec<u8>) {
        // Upstream may say more behind its end, which no client waits for.
        if self.has_ended {
            return;
        }
        let Self { reader, chunks, .. } = self;
        // The head of a response comes before its first piece, so what it says is known by then.
        let (model, service_tier) = match chunks.frame {
            Some(_) => (None, None),
            None => (reader.model.clone(), reader.service_tier.clone()),
        };
        let mut told = |piece: &Piece<'_>| {
            let frame = chunks.frame(model.as_deref(), service_tier.as_deref(), matches!(piece, Piece::Text(_)), out);
            if let Some(delta) = delta(piece, frame.has_legacy_calls) {
                frame.chunk(&delta, None, out);
            }
        };
        let Some(ending) = reader.read(event, &mut told) else { return };
        self.has_ended = true;
        match ending {
            Ending::Finished(finish) => self.finish(&finish, out),
            Ending::Failed(error) => out.extend_from_slice(&FailureForm::Chat.event(&error)),
            Ending::TooLarge => {
                let rejection = Rejection::answer_too_large();
                out.extend_from_slice(&FailureForm::Chat.event(&rejection.error()));
                self.failure = Some(rejection);
            }
        }
    }

    /// Why the answer was ended here, if it was. The client was told.
    pub(crate) fn failure(&self) -> Option<Rejection> {
        self.failure.clone()
    }

    fn finish(&mut self, finish: &Finish, out: &mut Vec<u8>) {
        let Self { reader, chunks, .. } = self;
        let frame = chunks.frame(reader.model.as_deref(), reader.service_tier.as_deref(), true, out);
        frame.chunk("{}", Some(finish.reason(reader.calls(), frame.has_legacy_calls)), out);
        if let Some(usage) = finish.usage.as_deref().filter(|_| frame.tells_usage) {
            frame.usage(usage, out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

/// The id of a chat's answer: the request's own, by which it is found in the request log.
pub(super) fn chat_id(id: ExchangeId) -> String {
    format!("chatcmpl-{id}")
}

/// What a piece adds to the message, as JSON; `None` for a second call where there can be one only.
fn delta(piece: &Piece<'_>, has_legacy_calls: bool) -> Option<String> {
    let mut delta = Members::new(0);
    match piece {
        Piece::Text(text) => delta.put("content", &json_string(text)),
        Piece::Refusal(text) => delta.put("refusal", &json_string(text)),
        Piece::Citation { index, json } => delta.put("annotations", &format!("[{}]", citation(Some(*index), json))),
        Piece::Reasoning(piece) => {
            let text = json_string(&format!("{}{}", piece.lead, piece.text));
            delta.put("reasoning_content", &text);
            delta.put("reasoning", &text);
            delta.put("reasoning_details", &format!("[{}]", readable_detail(piece)));
        }
        Piece::SealedReasoning { detail, id, data } => {
            delta.put("reasoning_details", &format!("[{}]", sealed_detail(*detail, *id, data)));
        }
        Piece::Call { index, .. } | Piece::CallText { index, .. } if has_legacy_calls => {
            if *index > 0 {
                return None;
            }
            delta.put("function_call", &called(piece)?);
        }
        Piece::Call { index, kind, id, .. } => {
            let mut call = Members::new(0);
            call.put("index", &index.to_string());
            call.put("id", &json_string(id));
            call.put("type", &json_string(kind.name()));
            call.put(kind.name(), &called(piece)?);
            delta.put("tool_calls", &format!("[{}]", call.into_json()));
        }
        Piece::CallText { index, kind, .. } => {
            let mut call = Members::new(0);
            call.put("index", &index.to_string());
            call.put(kind.name(), &called(piece)?);
            delta.put("tool_calls", &format!("[{}]", call.into_json()));
        }
        Piece::Image { index, url } => delta.put("images", &format!("[{}]", image(*index, url))),
    }
    Some(delta.into_json())
}

/// What a piece says of the tool that is called.
fn called(piece: &Piece<'_>) -> Option<String> {
    let (name, kind, text) = match piece {
        Piece::Call { name, kind, .. } => (Some(json_string(name)), kind, ""),
        Piece::CallText { kind, text, .. } => (None, kind, *text),
        Piece::Text(_)
        | Piece::Refusal(_)
        | Piece::Citation { .. }
        | Piece::Reasoning(_)
        | Piece::SealedReasoning { .. }
        | Piece::Image { .. } => return None,
    };
    let mut called = Members::new(0);
    called.put_if_some("name", name.as_deref());
    called.put(kind.text_name(), &json_string(text));
    Some(called.into_json())
}

impl CallKind {
    /// What a chat calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Function => "function",
            Self::Custom => "custom",
        }
    }

    /// What a chat calls that which it is called with.
    pub(super) const fn text_name(self) -> &'static str {
        match self {
            Self::Function => "arguments",
            Self::Custom => "input",
        }
    }
}

/// A detail that can be read, as JSON.
pub(super) fn readable_detail(piece: &Reasoning<'_>) -> String {
    let (kind, field) = match piece.is_summary {
        true => ("reasoning.summary", "summary"),
        false => ("reasoning.text", "text"),
    };
    let mut detail = Members::new(piece.text.len());
    detail.put("type", &json_string(kind));
    detail.put(field, &json_string(piece.text));
    // SDKs add up every text of a list's entries, so what does not grow is told once.
    if piece.begins {
        identify(&mut detail, piece.id);
    }
    detail.put("index", &piece.detail.to_string());
    detail.into_json()
}

/// A detail that only upstream can read, as JSON.
pub(super) fn sealed_detail(index: usize, id: Option<&str>, data: &str) -> String {
    let mut detail = Members::new(data.len());
    detail.put("type", r#""reasoning.encrypted""#);
    detail.put("data", &json_string(data));
    identify(&mut detail, id);
    detail.put("index", &index.to_string());
    detail.into_json()
}

fn identify(detail: &mut Members, id: Option<&str>) {
    detail.put("id", &id.map_or_else(|| "null".to_owned(), json_string));
    detail.put("format", &json_string(reasoning::FORMAT));
}

/// A source, as JSON; in a stream with its number, by which SDKs tell the entries of lists apart.
pub(super) fn citation(index: Option<usize>, json: &str) -> String {
    let mut annotation = Members::new(json.len());
    annotation.put_if_some("index", index.map(|index| index.to_string()).as_deref());
    annotation.put("type", r#""url_citation""#);
    annotation.put("url_citation", json);
    annotation.into_json()
}

/// An image, as JSON.
pub(super) fn image(index: usize, url: &str) -> String {
    format!(r#"{{"type":"image_url","image_url":{{"url":{}}},"index":{index}}}"#, json_string(url))
}

/// Writes chunks.
#[derive(Debug)]
struct Chunks {
    answer: ChatAnswer,
    id: String,
    created: i64,
    frame: Option<Frame>,
}

impl Chunks {
    /// What all chunks have in common, decided by the first one: that also says who speaks.
    fn frame(&mut self, model: Option<&str>, service_tier: Option<&str>, is_text: bool, out: &mut Vec<u8>) -> &Frame {
        let Self { answer, id, created, frame } = self;
        frame.get_or_insert_with(|| {
            let mut begin = Members::new(0);
            begin.put("id", &json_string(id));
            begin.put("object", r#""chat.completion.chunk""#);
            begin.put("created", &created.to_string());
            begin.put("model", &json_string(model.unwrap_or(&answer.model)));
            begin.put_if_some("service_tier", service_tier.map(json_string).as_deref());
            begin.put("system_fingerprint", "null");
            let frame = Frame {
                begin: format!("data: {}", begin.into_open_json()),
                tells_usage: answer.tells_usage,
                has_legacy_calls: answer.has_legacy_calls,
            };
            let content = if is_text { "\"\"" } else { "null" };
            frame.chunk(&format!(r#"{{"role":"assistant","content":{content}}}"#), None, out);
            frame
        })
    }
}

/// What all chunks of a stream have in common.
#[derive(Debug)]
struct Frame {
    begin: String,
    tells_usage: bool,
    has_legacy_calls: bool,
}

impl Frame {
    fn chunk(&self, delta: &str, finish_reason: Option<&'static str>, out: &mut Vec<u8>) {
        let finish_reason = finish_reason.map_or_else(|| "null".to_owned(), json_string);
        // With the usage to come, every chunk before it says that it is none.
        let usage = if self.tells_usage { r#","usage":null"# } else { "" };
        for text in [
            &self.begin,
            r#","choices":[{"index":0,"delta":"#,
            delta,
            r#","logprobs":null,"finish_reason":"#,
            &finish_reason,
            "}]",
            usage,
            "}\n\n",
        ] {
            out.extend_from_slice(text.as_bytes());
        }
    }

    fn usage(&self, usage: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{},\"choices\":[],\"usage\":{usage}}}\n\n", self.begin).as_bytes());
    }
}
