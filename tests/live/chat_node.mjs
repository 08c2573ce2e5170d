// Chat as a stream and embeddings from OpenAI's own library for Node; prints what came, as JSON.

import { createRequire } from "node:module";

const [modules, baseURL, apiKey] = process.argv.slice(2);
const { OpenAI } = createRequire(`${modules}/`)("openai");
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });

const stream = await client.chat.completions.create({
  model: "tiny",
  messages: [{ role: "user", content: "hi" }],
  temperature: 0,
  max_tokens: 12,
  stream: true,
  stream_options: { include_usage: true },
});
let text = "";
let usage;
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
// The library asks for base64 unless told otherwise, and unpacks it.
const embeddings = await client.embeddings.create({ model: "tiny-embedder", input: ["a", "b"] });
console.log(
  JSON.stringify({ text, tokens: usage?.completion_tokens, vectors: embeddings.data.map((one) => one.embedding) }),
);
