//! Streams an answer, event by event as it comes.

use bytes::Bytes;
use tokio::time::Instant;

use super::{End, Relay};
use crate::leg::LegItem;
use crate::rejection::Rejection;
use crate::relay::{ClientGone, EventSplitter, EventTooLarge};
use crate::translate::{ChatStream, ImageStream, OpenAiStream};

/// How a relayed stream is changed on its way.
pub(super) enum Filter {
    /// Not at all: the same bytes in the same pieces.
    Untouched,
    /// Into OpenAI's events.
    OpenAi(OpenAiStream),
    /// Into the chunks of a chat.
    Chat(Box<ChatStream>),
    /// Into the events of the Images API.
    Images(ImageStream),
}

impl Filter {
    /// What goes downstream of these bytes.
    fn pass(&mut self, splitter: &mut EventSplitter, bytes: Bytes) -> Result<Bytes, EventTooLarge> {
        match self {
            Self::Untouched => splitter.push(&bytes, |_| {}).map(|()| bytes),
            Self::OpenAi(translator) => {
                let mut out = Vec::with_capacity(bytes.len() + 256);
                splitter.push(&bytes, |event| translator.translate(event, &mut out))?;
                Ok(Bytes::from(out))
            }
            Self::Chat(translator) => {
                let mut out = Vec::with_capacity(2 * bytes.len());
                splitter.push(&bytes, |event| translator.translate(event, &mut out))?;
                Ok(Bytes::from(out))
            }
            Self::Images(translator) => {
                let mut out = Vec::new();
                splitter.push(&bytes, |event| translator.translate(event, &mut out))?;
                Ok(Bytes::from(out))
            }
        }
    }

    /// The items of an answer that has just become whole, each as JSON, if callers may refer to them.
    fn take_finished(&mut self) -> Option<Vec<String>> {
        match self {
            Self::OpenAi(translator) => translator.take_finished(),
            Self::Untouched | Self::Chat(_) | Self::Images(_) => None,
        }
    }

    /// The end of a stream that breaks off for this reason, if it depends on what was told before.
    fn broken_off(&self, rejection: &Rejection) -> Option<Bytes> {
        match self {
            Self::OpenAi(translator) => Some(translator.failure(&rejection.error())),
            Self::Untouched | Self::Chat(_) | Self::Images(_) => None,
        }
    }

    /// Why a whole answer is none all the same. The client was told.
    fn failure(&self) -> Option<Rejection> {
        match self {
            Self::Untouched | Self::OpenAi(_) => None,
            Self::Chat(translator) => translator.failure(),
            Self::Images(translator) => translator.failure(),
        }
    }
}

impl Relay<'_, '_> {
    /// Streams the answer through `filter`.
    pub(super) async fn stream(mut self, mut filter: Filter) -> Result<(), ClientGone> {
        self.open.trail.transport = "sse";
        let mut splitter = EventSplitter::default();
        self.downstream.begin_stream(&self.answering.head).await?;
        loop {
            let item = self.next(splitter.is_between_events()).await?;
            let failure = match item {
                Some(LegItem::Body(bytes)) => match filter.pass(&mut splitter, bytes) {
                    Ok(bytes) => {
                        let failure = filter.failure();
                        if let Some(rejection) = &failure {
                            self.fail(rejection).await;
                        } else if self.open.has_terminal() {
                            self.settle().await;
                        }
                        if let Some(items) = filter.take_finished() {
                            self.remember(items);
                        }
                        if !bytes.is_empty() {
                            self.downstream.write(bytes).await?;
                            self.written_at = Instant::now();
                        }
                        // The client was told the end, and what upstream still says is nobody's.
                        if failure.is_some() {
                            return self.downstream.end().await;
                        }
                        continue;
                    }
                    Err(EventTooLarge) => Some(Rejection::answer_too_large()),
                },
                Some(LegItem::Head(_)) => continue,
                Some(LegItem::End | LegItem::Failed) if self.open.has_terminal() => None,
                Some(LegItem::End | LegItem::Failed) => {
                    self.judge(End::Cut);
                    Some(Rejection::stream_incomplete())
                }
                None if self.open.has_terminal() => None,
                None => {
                    self.judge(End::Silent);
                    Some(Rejection::upstream_timeout())
                }
            };
            let Some(rejection) = failure else {
                self.settle().await;
                return self.downstream.end().await;
            };
            self.fail(&rejection).await;
            // An untouched stream may have been cut inside an event, which must not swallow ours.
            if matches!(filter, Filter::Untouched) && !splitter.is_between_events() {
                self.downstream.write(Bytes::from_static(b"\n\n")).await?;
            }
            let Some(end) = filter.broken_off(&rejection) else { return self.downstream.reject(&rejection).await };
            self.downstream.write(end).await?;
            return self.downstream.end().await;
        }
    }
}
