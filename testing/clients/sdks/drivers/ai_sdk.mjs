// The Vercel AI SDK with one of its two providers: `ai_sdk.mjs @ai-sdk/openai` or `@ai-sdk/openai-compatible`.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, isStepCount, jsonSchema, streamText, tool } from "ai";
import { CITY, IMAGE, MODEL, PLACE, serve } from "./serve.mjs";

const PACKAGE = process.argv[2];

const work = {
  async ask(job) {
    const { text, usage } = await generated(job, { prompt: job.prompt });
    return { text, usage: told(usage) };
  },
  async image(job) {
    const content = [{ type: "text", text: job.prompt }, { type: "file", mediaType: "image/png", data: IMAGE }];
    const { text } = await generated(job, { messages: [{ role: "user", content }] });
    return { text };
  },
  async structured(job) {
    const wanted = Output.object({ schema: jsonSchema(PLACE) });
    const { output } = await generated(job, { prompt: job.prompt, output: wanted });
    return { parsed: output };
  },
  // The SDK runs the tools and makes the second request by itself.
  async tools(job) {
    const outputs = [...job.outputs];
    const get_weather = tool({
      description: "The weather of a city.",
      inputSchema: jsonSchema(CITY),
      execute: () => outputs.shift(),
    });
    const request = { prompt: job.prompt, tools: { get_weather }, stopWhen: isStepCount(3) };
    const { text, steps } = await generated(job, request);
    const calls = steps.flatMap((step) => step.toolCalls);
    return { calls: calls.map(({ toolName, input }) => ({ name: toolName, arguments: input })), text };
  },
  async cancel(job) {
    const abort = new AbortController();
    const { stream } = streamText({ model: model(job), prompt: job.prompt, abortSignal: abort.signal });
    for await (const part of stream) {
      if (part.type === "text-delta") abort.abort();
    }
    return { text: "" };
  },
};

function model(job) {
  const options = { baseURL: `${job.url}/v1`, apiKey: job.api_key };
  if (PACKAGE === "@ai-sdk/openai-compatible") {
    const provider = { name: "gateway", includeUsage: true, supportsStructuredOutputs: true, ...options };
    return createOpenAICompatible(provider)(MODEL);
  }
  const provider = createOpenAI(options);
  return job.api === "responses" ? provider(MODEL) : provider.chat(MODEL);
}

async function generated(job, request) {
  const options = { model: model(job), maxRetries: job.retries, ...request };
  if (!job.stream) return generateText(options);
  let failure;
  const result = streamText({ ...options, onError: ({ error }) => void (failure ??= error) });
  for await (const part of result.stream) {
    if (part.type === "error") failure ??= part.error;
  }
  // What the stream told of may be no Error.
  if (failure) throw failure instanceof Error ? failure : new Error(JSON.stringify(failure));
  const [text, usage, steps] = [await result.text, await result.usage, await result.steps];
  return { text, usage, steps, output: request.output && (await result.output) };
}

function told(usage) {
  return {
    input: usage.inputTokens,
    cached: usage.inputTokenDetails.cacheReadTokens,
    output: usage.outputTokens,
    reasoning: usage.outputTokenDetails.reasoningTokens,
  };
}

await serve(PACKAGE, (job) => work[job.do](job));
