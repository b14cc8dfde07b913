// The current client for Node.
import * as core from "@nats-io/transport-node";
import { suite } from "./suite.js";

suite("@nats-io/transport-node", {
  connect: core.connect,
  headers: core.headers,
  createInbox: core.createInbox,
  caseSensitive: "exact",
  isNoResponders: (e) =>
    e instanceof core.errors.NoRespondersError || e.cause instanceof core.errors.NoRespondersError,
  isTimeout: (e) => e instanceof core.errors.TimeoutError || e.cause instanceof core.errors.TimeoutError,
  isTooBig: (e) => e instanceof core.errors.InvalidArgumentError,
});
