// A greeting from JavaScript: a `wasi:http` 0.2 handler.
import { Fields, OutgoingBody, OutgoingResponse, ResponseOutparam } from "wasi:http/types@0.2.12";

const encoder = new TextEncoder();
// Lives as long as the instance: see `podium.dev/instance-reuse` in the manifest.
let answered = 0;

export const incomingHandler = {
  handle(request, out) {
    answered += 1;
    const path = request.pathWithQuery() ?? "/";
    const text = path === "/count" ? `${answered}\n` : `Hello from JavaScript at ${path}\n`;
    const response = new OutgoingResponse(Fields.fromList([["content-type", encoder.encode("text/plain")]]));
    const body = response.body();
    ResponseOutparam.set(out, { tag: "ok", val: response });
    {
      const stream = body.write();
      stream.blockingWriteAndFlush(encoder.encode(text));
      stream[Symbol.dispose]();
    }
    OutgoingBody.finish(body, undefined);
  },
};
