// Stream a reply and show the memories it rests on; Ctrl-C cancels it.
//
//     node stream_a_reply.mjs ADDRESS API_KEY "Hello there"

import { Client } from "echomesh";

const [address, apiKey, text] = process.argv.slice(2);
const client = new Client(address, { apiKey });
const controller = new AbortController();
process.once("SIGINT", () => controller.abort());
try {
  for await (const frame of client.chat(text, { signal: controller.signal })) {
    if (frame.kind === "memories") {
      for (const memory of frame.memories.slice(0, 3)) console.log(`[${memory.speaker}: ${memory.text}]`);
    } else if (frame.kind === "text") {
      process.stdout.write(frame.text);
    } else if (frame.kind === "final") {
      console.log(`\n${frame.finishReason} after ${frame.totalMs} ms`);
    }
  }
} finally {
  client.close();
}
