// A Lambda handler as anybody writes one: it imports nothing of sublet's.
import { appendFileSync, readFileSync } from "node:fs";

let calls = 0;

export const handler = async (event, context) => {
  calls += 1;
  switch (event.do ?? "who") {
    case "who":
      return {
        client: "node",
        tenant: context.tenantId,
        request: context.awsRequestId,
        left_ms: context.getRemainingTimeInMillis(),
        function: context.functionName,
        memory_mib: Number(context.memoryLimitInMB),
        arn: context.invokedFunctionArn,
        calls,
        value: event.value,
      };
    case "fail":
      throw new TypeError("as asked");
    case "exit":
      process.exit(event.status ?? 3);
    case "log":
      console.error(event.value);
      return null;
    case "sleep":
      await new Promise((done) => setTimeout(done, event.ms));
      return calls;
    case "keep":
      appendFileSync("/tmp/kept", event.value);
      return readFileSync("/tmp/kept", "utf8");
    default:
      throw new RangeError(event.do);
  }
};

// In pieces, the way the client has it; with `after` it fails in the middle.
export const pieces = globalThis.awslambda?.streamifyResponse(async (event, stream) => {
  for (let piece = 0; piece < (event.pieces ?? 3); piece += 1) {
    stream.write(`piece ${piece}\n`);
    await new Promise((done) => setTimeout(done, event.ms ?? 0));
    if (event.after === piece) throw new TypeError("in the middle");
  }
  stream.end();
});
