// Answers jobs for a driver: one line of JSON in, one line of JSON out, in order. Drivers only report; tests judge.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

export const MODEL = "gpt-5.5";
export const IMAGE =
  "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Erk" +
  "Jggg==";
export const CITY = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};
export const PLACE = {
  type: "object",
  properties: { city: { type: "string" }, rivers: { type: "array", items: { type: "string" } } },
  required: ["city", "rivers"],
  additionalProperties: false,
};

export async function serve(packageName, work) {
  // Not every package exports its own description.
  const path = new URL(`../node_modules/${packageName}/package.json`, import.meta.url);
  say({ version: JSON.parse(readFileSync(path)).version });
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      say(await work(JSON.parse(line)));
    } catch (error) {
      say({ error: described(error) });
    }
  }
}

function say(result) {
  process.stdout.write(JSON.stringify(result) + "\n");
}

// The AI SDK wraps the last failure of its retries.
function described(error) {
  const cause = error.lastError ?? error;
  const inner = cause.data?.error ?? cause.error ?? {};
  return {
    name: cause.name,
    status: cause.status ?? cause.statusCode ?? null,
    code: cause.code ?? inner.code ?? null,
    message: String(cause.message),
  };
}
