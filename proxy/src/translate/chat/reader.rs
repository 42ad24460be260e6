//! Reads the events of an answer into its pieces. What an event says again is not told again, and what came in a closing
//! event only is told then.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::call_ids::CallKind;
use super::fields::{Fields, ItemFields, PartNews, ResponseFields, fields, item_kind, list, number, part_kind, text};
use super::pieces::{Cut, Ending, Finish, Piece, Reasoning};
use super::progress::{Item, ItemKind, PartKind};
use super::usage;
use crate::relay::Event;
use crate::translate::failure::openai_error;

/// Most that is held of one answer.
pub(super) const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What an item or a part counts beside its text.
const ENTRY_BYTES: usize = 256;
/// What separates texts that are one to the caller.
const BETWEEN_TEXTS: &str = "\n\n";

/// Reads one answer.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The model, as upstream names it.
    pub(super) model: Option<String>,
    /// The tier that served.
    pub(super) service_tier: Option<String>,
    items: Vec<Item>,
    held_bytes: usize,
    held_bytes_max: usize,
    told_chars: usize,
    calls: usize,
    details: usize,
    images: usize,
    citations: usize,
    has_reasoned: bool,
}

/// Takes the pieces of an answer.
pub(super) trait Teller {
    /// Tells the next one.
    fn tell(&mut self, piece: &Piece<'_>);
}

impl<F: FnMut(&Piece<'_>)> Teller for F {
    fn tell(&mut self, piece: &Piece<'_>) {
        self(piece);
    }
}

impl Reader {
    /// Reads an answer of which so much is held at most.
    pub(super) fn new(held_bytes_max: usize) -> Self {
        Self { held_bytes_max, ..Self::default() }
    }

    /// How many calls were told.
    pub(super) const fn calls(&self) -> usize {
        self.calls
    }

    /// Whether the answer is larger than is held. Then nothing of it is told any more.
    const fn is_too_large(&self) -> bool {
        self.held_bytes > self.held_bytes_max
    }

    /// Tells what an event adds to the answer, and how that ended if it did.
    pub(super) fn read(&mut self, event: Event<'_>, teller: &mut impl Teller) -> Option<Ending> {
        let data = event.data();
        let event = Fields::read(&data)?;
        let kind = text(event.kind)?;
        if let Some(news) = event.part_news(&kind) {
            self.take_news(&event, &news, teller);
        }
        match kind.as_ref() {
            "response.created" | "response.in_progress" => self.note_response(&fields(event.response)),
            "response.output_text.annotation.added" => self.annotate(&event, teller),
            "response.content_part.done" => self.take_part(&event, event.content_index, teller),
            "response.reasoning_summary_part.done" => self.take_part(&event, event.summary_index, teller),
            "response.output_item.added" | "response.output_item.done" => {
                let fields: ItemFields<'_> = fields(event.item);
                let item = self.find_or_make(item_kind(&fields), text(fields.id), number(event.output_index));
                if let Some(item) = item {
                    self.take_item(item, &fields, kind.ends_with(".done"), teller);
                }
            }
            "response.completed" | "response.incomplete" | "response.done" => {
                return Some(self.finish(&kind, &fields(event.response), teller));
            }
            "response.failed" | "error" => {
                let event = serde_json::from_slice(&data).unwrap_or_default();
                return Some(Ending::Failed(openai_error(&event, "Upstream failed in the middle of this answer.")));
            }
            _ => {}
        }
        self.is_too_large().then_some(Ending::TooLarge)
    }

    fn take_news(&mut self, event: &Fields<'_>, news: &PartNews<'_>, teller: &mut impl Teller) {
        if let (Some(text), Some(item)) = (text(news.text), self.item_of(event, news.kind.of_item())) {
            match news.is_whole {
                true => self.add_rest(item, news.kind, news.index, &text, teller),
                false => self.add_text(item, news.kind, news.index, &text, teller),
            }
        }
    }

    fn note_response(&mut self, response: &ResponseFields<'_>) {
        self.model = text(response.model).map(Cow::into_owned).or(self.model.take());
        self.service_tier = text(response.service_tier).map(Cow::into_owned).or(self.service_tier.take());
    }

    /// The answer's end. Upstream repeats the items there seldom, but what only stands there is told, too.
    fn finish(&mut self, kind: &str, response: &ResponseFields<'_>, teller: &mut impl Teller) -> Ending {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Details<'a> {
            #[serde(borrow)]
            reason: Option<&'a RawValue>,
        }
        self.note_response(response);
        let mut seen: Vec<ItemKind> = Vec::new();
        for raw in list(response.output) {
            let fields: ItemFields<'_> = fields(Some(raw));
            let kind = item_kind(&fields);
            // The positions of the list need not be those of the stream, so items are found by kind and order.
            let earlier = seen.iter().filter(|other| **other == kind).count();
            let known = self.items.iter().enumerate().filter(|(_, item)| item.kind == kind).nth(earlier);
            let item = known.map(|(at, _)| at).or_else(|| self.new_item(Item::new(kind)));
            if let Some(item) = item {
                self.take_item(item, &fields, true, teller);
            }
            seen.push(kind);
        }
        let details: Details<'_> = fields(response.incomplete_details);
        let cut_by = match text(details.reason).as_deref() {
            Some("content_filter") if kind == "response.incomplete" => Some(Cut::ContentFilter),
            Some("max_output_tokens" | "max_tokens") if kind == "response.incomplete" => Some(Cut::Length),
            Some(_) | None => None,
        };
        Ending::Finished(Finish { cut_by, usage: response.usage.and_then(usage::of_chat) })
    }

    /// The item that an event about a part of one belongs to.
    fn item_of(&mut self, event: &Fields<'_>, kind: ItemKind) -> Option<usize> {
        self.find_or_make(kind, text(event.item_id), number(event.output_index))
    }

    /// Finds an item by its id, else by its place: there are upstreams that change ids between events. An event that
    /// names neither is about the last one.
    fn find_or_make(&mut self, kind: ItemKind, id: Option<Cow<'_, str>>, output_index: Option<u64>) -> Option<usize> {
        let is_anonymous = id.is_none() && output_index.is_none();
        let by_id = |item: &Item| id.is_some() && item.id.as_deref() == id.as_deref();
        let by_place = |item: &Item| is_anonymous || (output_index.is_some() && item.output_index == output_index);
        let of_kind =
            |is_it: &dyn Fn(&Item) -> bool| self.items.iter().rposition(|item| item.kind == kind && is_it(item));
        let known = of_kind(&by_id).or_else(|| of_kind(&by_place));
        known.or_else(|| self.new_item(Item { id: id.map(Cow::into_owned), output_index, ..Item::new(kind) }))
    }

    fn new_item(&mut self, item: Item) -> Option<usize> {
        self.held_bytes += ENTRY_BYTES;
        if self.is_too_large() {
            return None;
        }
        self.items.push(item);
        Some(self.items.len() - 1)
    }

    /// Takes what an item says of itself; `is_done` when it is whole.
    fn take_item(&mut self, at: usize, fields: &ItemFields<'_>, is_done: bool, teller: &mut impl Teller) {
        match self.items[at].kind {
            ItemKind::Call(kind) => {
                self.begin_call(at, kind, fields, teller);
                let whole = match kind {
                    CallKind::Function => fields.arguments,
                    CallKind::Custom => fields.input,
                };
                if let Some(whole) = text(whole).filter(|_| is_done) {
                    self.add_rest(at, PartKind::CallText(kind), 0, &whole, teller);
                }
            }
            ItemKind::Message | ItemKind::Reasoning if is_done => {
                for raw in [fields.summary, fields.content] {
                    for (index, part) in list(raw).into_iter().enumerate() {
                        self.close_part(at, &self::fields(Some(part)), index as u64, teller);
                    }
                }
                self.seal(at, fields, teller);
            }
            ItemKind::Image if is_done => self.show(at, fields, teller),
            ItemKind::Message | ItemKind::Reasoning | ItemKind::Image | ItemKind::Other => {}
        }
    }

    fn take_part(&mut self, event: &Fields<'_>, index: Option<&RawValue>, teller: &mut impl Teller) {
        let part: ItemFields<'_> = fields(event.part);
        if let Some(item) = part_kind(&part).and_then(|kind| self.item_of(event, kind.of_item())) {
            self.close_part(item, &part, number(index).unwrap_or_default(), teller);
        }
    }

    fn close_part(&mut self, at: usize, part: &ItemFields<'_>, index: u64, teller: &mut impl Teller) {
        let Some(kind) = part_kind(part) else { return };
        let whole = if kind == PartKind::Refusal { part.refusal } else { part.text };
        if let Some(whole) = text(whole) {
            self.add_rest(at, kind, index, &whole, teller);
        }
        for annotation in list(part.annotations).into_iter().skip(self.annotations_of(at, kind, index)) {
            self.tell_annotation(at, index, annotation, teller);
        }
    }

    /// Adds what a closing event has beyond what came before. If it says something else altogether, what was told
    /// stands.
    fn add_rest(&mut self, at: usize, kind: PartKind, index: u64, whole: &str, teller: &mut impl Teller) {
        let item = &mut self.items[at];
        let part = item.part(kind, index);
        let part = &item.parts[part];
        if let Some(rest) = whole.strip_prefix(part.text.as_str()) {
            self.add_text(at, kind, index, rest, teller);
        }
    }

    fn add_text(&mut self, at: usize, kind: PartKind, index: u64, text: &str, teller: &mut impl Teller) {
        if text.is_empty() {
            return;
        }
        let has_told_text = self.items[at].has_told_text();
        let is_new = !self.items[at].parts.iter().any(|part| part.kind == kind && part.index == index);
        self.held_bytes += text.len() + if is_new { ENTRY_BYTES } else { 0 };
        if self.is_too_large() {
            return;
        }
        let item = &mut self.items[at];
        let at_part = item.part(kind, index);
        let part = &mut item.parts[at_part];
        // A call without its name cannot be told yet.
        let waits = matches!(kind, PartKind::CallText(_)) && item.call_index.is_none();
        part.text.push_str(text);
        if waits {
            return;
        }
        part.told_bytes = part.text.len();
        match kind {
            PartKind::Text => {
                if !has_told_text && self.told_chars > 0 {
                    self.told_chars += BETWEEN_TEXTS.len();
                    teller.tell(&Piece::Text(BETWEEN_TEXTS));
                }
                if part.told_bytes == text.len() {
                    part.begins_at = self.told_chars;
                }
                self.told_chars += text.chars().count();
                teller.tell(&Piece::Text(text));
            }
            PartKind::Refusal => teller.tell(&Piece::Refusal(text)),
            PartKind::Summary | PartKind::Thought => {
                let begins = part.detail.is_none();
                let detail = *part.detail.get_or_insert(self.details);
                self.details += usize::from(begins);
                let lead = if begins && self.has_reasoned { BETWEEN_TEXTS } else { "" };
                self.has_reasoned = true;
                let (id, is_summary) = (item.id.as_deref(), kind == PartKind::Summary);
                teller.tell(&Piece::Reasoning(Reasoning { detail, id, is_summary, begins, lead, text }));
            }
            PartKind::CallText(kind) => {
                if let Some(index) = item.call_index {
                    teller.tell(&Piece::CallText { index, kind, text });
                }
            }
        }
    }

    /// Tells a call once its name is known, and what it was called with until then.
    fn begin_call(&mut self, at: usize, kind: CallKind, fields: &ItemFields<'_>, teller: &mut impl Teller) {
        let item = &mut self.items[at];
        let id = text(fields.call_id).or_else(|| text(fields.id));
        let (None, Some(id), Some(name)) = (item.call_index, id, text(fields.name)) else { return };
        let index = self.calls;
        self.calls += 1;
        item.call_index = Some(index);
        teller.tell(&Piece::Call { index, kind, id: &id, name: &name });
        for part in &mut item.parts {
            part.told_bytes = part.text.len();
            if !part.text.is_empty() {
                teller.tell(&Piece::CallText { index, kind, text: &part.text });
            }
        }
    }

    /// Tells the part of reasoning that only upstream can read.
    fn seal(&mut self, at: usize, fields: &ItemFields<'_>, teller: &mut impl Teller) {
        let item = &mut self.items[at];
        let data = text(fields.encrypted_content).filter(|data| !data.is_empty() && item.kind == ItemKind::Reasoning);
        let Some(data) = data.filter(|_| !item.is_closed) else { return };
        item.is_closed = true;
        let detail = self.details;
        self.details += 1;
        teller.tell(&Piece::SealedReasoning { detail, id: item.id.as_deref(), data: &data });
    }

    fn show(&mut self, at: usize, fields: &ItemFields<'_>, teller: &mut impl Teller) {
        let item = &mut self.items[at];
        let image = text(fields.result).filter(|image| !image.is_empty() && !item.is_closed);
        let Some(image) = image else { return };
        item.is_closed = true;
        let format = text(fields.output_format).unwrap_or(Cow::Borrowed("png"));
        let index = self.images;
        self.images += 1;
        teller.tell(&Piece::Image { index, url: &format!("data:image/{format};base64,{image}") });
    }

    fn annotate(&mut self, event: &Fields<'_>, teller: &mut impl Teller) {
        if let (Some(annotation), Some(item)) = (event.annotation, self.item_of(event, ItemKind::Message)) {
            let index = number(event.content_index).unwrap_or_default();
            self.tell_annotation(item, index, annotation, teller);
        }
    }

    fn annotations_of(&self, at: usize, kind: PartKind, index: u64) -> usize {
        let part = self.items[at].parts.iter().find(|part| part.kind == kind && part.index == index);
        part.map_or(0, |part| part.annotations)
    }

    fn tell_annotation(&mut self, at: usize, index: u64, annotation: &RawValue, teller: &mut impl Teller) {
        let item = &mut self.items[at];
        let part = item.part(PartKind::Text, index);
        let part = &mut item.parts[part];
        part.annotations += 1;
        if let Some(json) = usage::citation_of_chat(annotation, part.begins_at) {
            let index = self.citations;
            self.citations += 1;
            teller.tell(&Piece::Citation { index, json: &json });
        }
    }
}
