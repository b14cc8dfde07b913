// The older client for Node, still in wide use.
import nats from "nats";
import { suite } from "./suite.js";

suite("nats", {
  connect: nats.connect,
  headers: nats.headers,
  createInbox: nats.createInbox,
  caseSensitive: nats.Match.Exact,
  isNoResponders: (e) => e.code === nats.ErrorCode.NoResponders,
  isTimeout: (e) => e.code === nats.ErrorCode.Timeout,
  isTooBig: (e) => e.code === nats.ErrorCode.MaxPayloadExceeded,
});
