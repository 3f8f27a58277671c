// Tell the companion something as one of your end users, and ask about it.
//
//     node remember_and_ask.mjs ADDRESS API_KEY

import { Client } from "echomesh";

const [address, apiKey] = process.argv.slice(2);
const client = new Client(address, { apiKey });
const user = client.asUser("example-user");
await user.remember("My bicycle is chained to the blue fence.");
const { text, final } = await user.reply("Where is my bicycle?");
console.log(text);
console.log(`(${final.model}, ${final.totalMs} ms)`);
client.close();
