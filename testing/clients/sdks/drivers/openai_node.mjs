// The official OpenAI Node SDK, both APIs, called as its documentation shows it.

import OpenAI from "openai";
import { CITY, IMAGE, MODEL, PLACE, serve } from "./serve.mjs";

const TOOL = { name: "get_weather", description: "The weather of a city.", parameters: CITY };

const responses = {
  async ask(client, job) {
    const response = await responded(client, job, { input: job.prompt });
    return { text: response.output_text, usage: usageOfResponse(response.usage) };
  },
  async image(client, job) {
    const image = { type: "input_image", image_url: IMAGE, detail: "auto" };
    const content = [{ type: "input_text", text: job.prompt }, image];
    return { text: (await responded(client, job, { input: [{ role: "user", content }] })).output_text };
  },
  async structured(client, job) {
    const text = { format: { type: "json_schema", name: "place", strict: true, schema: PLACE } };
    return { parsed: JSON.parse((await responded(client, job, { input: job.prompt, text })).output_text) };
  },
  async tools(client, job) {
    const tools = [{ type: "function", strict: true, ...TOOL }];
    const input = [{ role: "user", content: job.prompt }];
    const first = await responded(client, job, { input, tools });
    const calls = first.output.filter((item) => item.type === "function_call");
    const type = "function_call_output";
    const outputs = calls.map(({ call_id }, at) => ({ type, call_id, output: job.outputs[at] }));
    const second = await responded(client, job, { input: [...input, ...first.output, ...outputs], tools });
    const told = calls.map((call) => ({ name: call.name, arguments: JSON.parse(call.arguments) }));
    return { calls: told, text: second.output_text };
  },
  async cancel(client, job) {
    const stream = await client.responses.create({ model: MODEL, input: job.prompt, stream: true });
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") break;
    }
    return { text: "" };
  },
};

// The SDK's own accumulation is part of what is tried.
async function responded(client, job, request) {
  if (!job.stream) return client.responses.create({ model: MODEL, ...request });
  return client.responses.stream({ model: MODEL, ...request }).finalResponse();
}

function usageOfResponse(usage) {
  return {
    input: usage.input_tokens,
    cached: usage.input_tokens_details.cached_tokens,
    output: usage.output_tokens,
    reasoning: usage.output_tokens_details.reasoning_tokens,
  };
}

const chat = {
  async ask(client, job) {
    const completion = await completed(client, job, { messages: user(job.prompt) });
    return { text: completion.choices[0].message.content, usage: usageOfCompletion(completion.usage) };
  },
  async image(client, job) {
    const content = [{ type: "text", text: job.prompt }, { type: "image_url", image_url: { url: IMAGE } }];
    return { text: (await completed(client, job, { messages: user(content) })).choices[0].message.content };
  },
  async structured(client, job) {
    const response_format = { type: "json_schema", json_schema: { name: "place", strict: true, schema: PLACE } };
    const completion = await completed(client, job, { messages: user(job.prompt), response_format });
    return { parsed: JSON.parse(completion.choices[0].message.content) };
  },
  async tools(client, job) {
    const tools = [{ type: "function", function: TOOL }];
    const messages = user(job.prompt);
    const { message } = (await completed(client, job, { messages, tools })).choices[0];
    const calls = message.tool_calls;
    const results = calls.map(({ id }, at) => ({ role: "tool", tool_call_id: id, content: job.outputs[at] }));
    const second = await completed(client, job, { messages: [...messages, message, ...results], tools });
    return {
      calls: calls.map((call) => ({ name: call.function.name, arguments: JSON.parse(call.function.arguments) })),
      text: second.choices[0].message.content,
    };
  },
  async cancel(client, job) {
    const stream = await client.chat.completions.create({ model: MODEL, messages: user(job.prompt), stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) break;
    }
    return { text: "" };
  },
};

function user(content) {
  return [{ role: "user", content }];
}

async function completed(client, job, request) {
  if (!job.stream) return client.chat.completions.create({ model: MODEL, ...request });
  const stream_options = { include_usage: true };
  return client.chat.completions.stream({ model: MODEL, stream_options, ...request }).finalChatCompletion();
}

function usageOfCompletion(usage) {
  return {
    input: usage.prompt_tokens,
    cached: usage.prompt_tokens_details.cached_tokens,
    output: usage.completion_tokens,
    reasoning: usage.completion_tokens_details.reasoning_tokens,
  };
}

await serve("openai", (job) => {
  const client = new OpenAI({ baseURL: `${job.url}/v1`, apiKey: job.api_key, maxRetries: job.retries });
  return (job.api === "responses" ? responses : chat)[job.do](client, job);
});
