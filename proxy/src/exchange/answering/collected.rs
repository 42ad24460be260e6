//! Collects an answer and sends it whole.

use bytes::{Bytes, BytesMut};
use codex_lb_shared::clock;
use codex_lb_shared::domain::exchange_record::ExchangeStatus;
use codex_lb_shared::kind::Kind;

use super::{End, Relay};
use crate::exchange::refusal::{UpstreamRefusal, pass_on};
use crate::leg::LegItem;
use crate::rejection::Rejection;
use crate::relay::{ClientGone, Event, EventSplitter};
use crate::translate::{AnswerShape, ChatCollector, Collected, OutputItems, to_compaction, to_images};

/// Largest answer that is no model's.
const RAW_BYTES_MAX: usize = 32 * 1024 * 1024;

impl Relay<'_, '_> {
    /// Collects a model's answer out of its events and sends it as one object of this shape.
    pub(super) async fn collect_response(mut self, shape: &AnswerShape) -> Result<(), ClientGone> {
        let mut splitter = EventSplitter::default();
        let mut collector = match shape {
            AnswerShape::ChatJson(answer) => {
                let (id, requested_at) = (self.open.trail.id, self.open.trail.requested_at);
                Collector::Chat(Box::new(ChatCollector::new(answer.clone(), id, requested_at)))
            }
            AnswerShape::OpenAiJson
            | AnswerShape::Compaction { .. }
            | AnswerShape::Images
            | AnswerShape::ImageStream(_)
            | AnswerShape::NativeStream
            | AnswerShape::OpenAiStream
            | AnswerShape::ChatStream(_)
            | AnswerShape::Raw
            | AnswerShape::File { .. }
            | AnswerShape::Goal { .. } => Collector::Response(OutputItems::default()),
        };
        let mut collected = Collected::More;
        while collected == Collected::More {
            match self.next(false).await? {
                Some(LegItem::Body(bytes)) => {
                    let split = splitter.push(&bytes, |event| {
                        if collected == Collected::More {
                            collected = collector.collect(event);
                        }
                    });
                    if split.is_err() {
                        collected = Collected::TooLarge;
                    }
                }
                Some(LegItem::Head(_)) => {}
                Some(LegItem::End | LegItem::Failed) => {
                    self.judge(End::Cut);
                    return self.reject(Rejection::stream_incomplete()).await;
                }
                None => {
                    self.judge(End::Silent);
                    return self.reject(Rejection::upstream_timeout()).await;
                }
            }
        }
        match collected {
            Collected::Done(response) => match in_shape(shape, response) {
                Ok(body) => {
                    self.settle().await;
                    self.remember(collector.take_items());
                    self.downstream.answer(200, "application/json", &self.answering.head, body).await
                }
                Err(rejection) => self.reject(rejection).await,
            },
            Collected::Failed(event) => {
                let refusal = UpstreamRefusal::from_event(&event);
                self.judge(End::Failed);
                self.open.trail.error_code = refusal.code.clone();
                self.open.trail.error_kind = Some(Kind::Upstream);
                self.open.close(ExchangeStatus::Error).await;
                pass_on(self.downstream, self.dialect, &refusal).await
            }
            Collected::TooLarge | Collected::More => self.reject(Rejection::answer_too_large()).await,
        }
    }

    /// Sends an answer that is no model's as it came.
    pub(super) async fn collect_raw(mut self, shape: &AnswerShape) -> Result<(), ClientGone> {
        let mut body = BytesMut::new();
        loop {
            match self.next(false).await? {
                Some(LegItem::Body(bytes)) if body.len() + bytes.len() > RAW_BYTES_MAX => {
                    return self.reject(Rejection::answer_too_large()).await;
                }
                Some(LegItem::Body(bytes)) => body.extend_from_slice(&bytes),
                Some(LegItem::Head(_)) => {}
                Some(LegItem::End) => break,
                Some(LegItem::Failed) => {
                    self.judge(End::Cut);
                    return self.reject(Rejection::stream_incomplete()).await;
                }
                None => {
                    self.judge(End::Silent);
                    return self.reject(Rejection::upstream_timeout()).await;
                }
            }
        }
        self.judge(End::Whole);
        self.note_owner(shape, &body);
        self.open.close(ExchangeStatus::Ok).await;
        let (status, content_type) = (self.answering.status, self.answering.content_type.as_deref());
        let content_type = content_type.unwrap_or("application/octet-stream");
        self.downstream.answer(status, content_type, &self.answering.head, body.freeze()).await
    }
}

impl Relay<'_, '_> {
    /// Remembers whose it is what an answer is about, before the caller can ask for it.
    fn note_owner(&self, shape: &AnswerShape, body: &[u8]) {
        let (account, now) = (self.answering.lease.account().account.id, clock::now());
        match shape {
            AnswerShape::File { caller_scope } => {
                if let Some(file_id) = file_id(body) {
                    self.plane.file_pins.pin(caller_scope, &file_id, account, now);
                }
            }
            AnswerShape::Goal { caller_scope, thread_id } => {
                self.plane.thread_claims.claim(thread_id, caller_scope, account, now);
            }
            AnswerShape::Raw
            | AnswerShape::NativeStream
            | AnswerShape::OpenAiStream
            | AnswerShape::OpenAiJson
            | AnswerShape::Compaction { .. }
            | AnswerShape::ChatStream(_)
            | AnswerShape::ChatJson(_)
            | AnswerShape::Images
            | AnswerShape::ImageStream(_) => {}
        }
    }
}

/// Collects the events of a model's answer.
enum Collector {
    /// Into a response.
    Response(OutputItems),
    /// Into a chat completion.
    Chat(Box<ChatCollector>),
}

impl Collector {
    fn collect(&mut self, event: Event<'_>) -> Collected {
        match self {
            Self::Response(items) => items.collect(event),
            Self::Chat(collector) => collector.collect(event),
        }
    }

    /// The items of the answer, each as JSON, if callers may refer to them.
    fn take_items(&mut self) -> Vec<String> {
        match self {
            Self::Response(items) => items.take(),
            Self::Chat(_) => Vec::new(),
        }
    }
}

/// A whole response in the shape that the caller asked for.
fn in_shape(shape: &AnswerShape, response: Bytes) -> Result<Bytes, Rejection> {
    match shape {
        AnswerShape::Compaction { user_messages } => to_compaction(&response, user_messages),
        AnswerShape::Images => to_images(&response),
        AnswerShape::OpenAiJson
        | AnswerShape::ChatStream(_)
        | AnswerShape::ChatJson(_)
        | AnswerShape::ImageStream(_)
        | AnswerShape::NativeStream
        | AnswerShape::OpenAiStream
        | AnswerShape::Raw
        | AnswerShape::File { .. }
        | AnswerShape::Goal { .. } => Ok(response),
    }
}

/// The file that an answer names.
fn file_id(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        #[serde(default)]
        file_id: Option<String>,
        #[serde(default)]
        id: Option<String>,
    }
    let named: Named = serde_json::from_slice(body).ok()?;
    named.file_id.or(named.id)
}
