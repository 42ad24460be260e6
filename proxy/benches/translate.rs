//! How long a translation takes: 1 MB of chat history with 200 calls at most 5 ms, because it comes with each turn.

use std::hint::black_box;

use bytes::Bytes;
use codex_lb_proxy::bench::{chat_request, chat_stream};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};

const CALLS: usize = 200;
const HISTORY_BYTES: usize = 1024 * 1024;
const DELTAS: usize = 1_000;

/// A long session of a coding agent: it calls a tool, reads the output, and calls again.
fn history() -> Bytes {
    let mut messages = vec![
        json!({"role": "system", "content": "You are a coding agent.\n".repeat(400)}),
        json!({"role": "user", "content": "Make the tests pass."}),
    ];
    let line = "  let answer = compute(\"a path/with some \\\\ text\");\n";
    let output = line.repeat(HISTORY_BYTES / CALLS / 2 / line.len());
    for turn in 0..CALLS {
        let arguments = json!({"path": format!("src/file_{turn}.rs"), "text": output}).to_string();
        let data = "gAAAAABo".repeat(100);
        messages.push(json!({"role": "assistant", "content": null, "reasoning_content": "I look.",
            "reasoning_details": [{"type": "reasoning.encrypted", "id": format!("rs_{turn}"), "data": data, "index": 0}],
            "tool_calls": [{"id": format!("call_{turn}"), "type": "function",
                "function": {"name": "write_file", "arguments": arguments}}]}));
        messages.push(json!({"role": "tool", "tool_call_id": format!("call_{turn}"), "content": output}));
    }
    Bytes::from(json!({"model": "gpt-5.5", "messages": messages, "stream": true}).to_string())
}

/// An answer, word by word.
fn answer() -> String {
    let framed = |event: Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default());
    let delta = json!({"type": "response.output_text.delta", "sequence_number": 4, "item_id": "msg_0123456789abcdef",
        "output_index": 0, "content_index": 0, "delta": " word", "logprobs": [], "obfuscation": "q9Zx"});
    let end = json!({"type": "response.completed", "response": {"output": [], "usage": {"input_tokens": 1}}});
    framed(delta).repeat(DELTAS) + &framed(end)
}

fn translate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chat");
    let history = history();
    group.throughput(Throughput::Bytes(history.len() as u64));
    group.bench_function("request_of_200_calls", |bencher| bencher.iter(|| chat_request(black_box(&history))));
    let answer = answer();
    group.throughput(Throughput::Elements(DELTAS as u64));
    group.bench_function("stream_of_1000_deltas", |bencher| bencher.iter(|| chat_stream(black_box(answer.as_bytes()))));
    group.finish();
}

criterion_group!(benches, translate);
criterion_main!(benches);
