// Pays for one streamed answer with the stock client, and prints what came as JSON.
// Environment: URL, KEY (private key), RPC_URL.
import { wrapFetchWithPayment, x402Client } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm/exact/client";
import { privateKeyToAccount } from "viem/accounts";

const client = new x402Client();
client.register("eip155:84532", new ExactEvmScheme(privateKeyToAccount(process.env.KEY)));
const pay = wrapFetchWithPayment(fetch, client);

const response = await pay(`${process.env.URL}/v1/chat/completions`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({
    messages: [{ role: "user", content: process.env.QUESTION }],
    stream: true,
  }),
});

let text = "";
let receipt = null;
let chunks = 0;
let buffered = "";
const decoder = new TextDecoder();
for await (const bytes of response.body) {
  buffered += decoder.decode(bytes, { stream: true });
  const events = buffered.split("\n\n");
  buffered = events.pop();
  for (const event of events) {
    const data = event.replace(/^data: /, "");
    if (data === "[DONE]") continue;
    chunks += 1;
    const chunk = JSON.parse(data);
    text += chunk.choices?.[0]?.delta?.content ?? "";
    receipt = chunk.x_tinybrain?.receipt ?? receipt;
  }
}
console.log(JSON.stringify({ status: response.status, text, receipt, chunks }));
