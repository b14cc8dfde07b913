// The cases, the same for both generations of the client; `client` says where their names differ:
// connect, headers, caseSensitive (the header match option), isNoResponders, isTimeout, isTooBig.
import { after, before, describe, test } from "node:test";
import assert from "node:assert/strict";
import { Server, until } from "./server.js";

const PAYLOAD_BYTES_MAX = 1024 * 1024;
const text = (msg) => new TextDecoder().decode(msg.data);

/** Collects what a subscription receives. */
function collect(connection, subject, options = {}) {
  const messages = [];
  const sub = connection.subscribe(subject, {
    ...options,
    callback: (error, msg) => {
      assert.equal(error, null);
      messages.push(msg);
    },
  });
  return { sub, messages };
}

function echoService(connection, subject, queue) {
  const callback = (_, msg) => msg.respond(`re:${text(msg)}`);
  return connection.subscribe(subject, { queue, callback });
}

export function suite(name, client) {
  describe(name, () => {
    let server;
    const opened = [];

    async function connect(options = {}, to = server) {
      const connection = await client.connect({
        servers: to.url,
        reconnectTimeWait: 50,
        maxReconnectAttempts: -1,
        ...options,
      });
      opened.push(connection);
      return connection;
    }

    async function pair() {
      return [await connect(), await connect()];
    }

    before(async () => {
      server = await Server.start();
    });

    after(async () => {
      await Promise.all(opened.map((c) => c.close()));
      assert.equal(server.process.exitCode, null, "the server died");
      await server.close();
    });

    /** A test with a server of its own, for those that hurt it. */
    function testAlone(title, body) {
      test(title, async () => {
        const own = await Server.start();
        const mine = [];
        try {
          await body(own, async (options) => {
            mine.push(await connect(options, own));
            return mine.at(-1);
          });
        } finally {
          await Promise.all(mine.map((c) => c.close()));
          await own.close();
        }
      });
    }

    test("info names the server", async () => {
      const c = await connect();
      assert.equal(c.info.max_payload, PAYLOAD_BYTES_MAX);
      assert.equal(c.info.headers, true);
      assert.equal(c.info.port, server.port);
      assert.match(c.info.version, /^\d+\.\d+\.\d+$/);
      assert.ok(c.info.client_id > 0);
      assert.ok((await c.rtt()) >= 0);
    });

    test("publish and subscribe keep the order", async () => {
      const [publisher, subscriber] = await pair();
      const { messages } = collect(subscriber, "order.a");
      await subscriber.flush();
      for (let i = 0; i < 5000; i++) publisher.publish("order.a", `${i}`);
      await until("5000 messages", () => messages.length >= 5000);
      assert.deepEqual(messages.map(text), Array.from({ length: 5000 }, (_, i) => `${i}`));
    });

    test("iterator, subject, reply and empty payload", async () => {
      const [publisher, subscriber] = await pair();
      const sub = subscriber.subscribe("iter.>", { max: 2 });
      await subscriber.flush();
      publisher.publish("iter.a", "x", { reply: "answers.here" });
      publisher.publish("iter.b.c");
      const got = [];
      for await (const m of sub) got.push([m.subject, m.reply ?? "", text(m), m.sid === sub.getID()]);
      assert.deepEqual(got, [
        ["iter.a", "answers.here", "x", true],
        ["iter.b.c", "", "", true],
      ]);
    });

    test("two matching subscriptions get a copy each", async () => {
      const [publisher, subscriber] = await pair();
      const all = ["twice.a", "twice.*", "twice.>"].map((s) => collect(subscriber, s).messages);
      const { messages: end } = collect(subscriber, "end.twice");
      await subscriber.flush();
      publisher.publish("twice.a", "1");
      publisher.publish("end.twice");
      await until("the end", () => end.length === 1);
      assert.deepEqual(all.map((messages) => messages.map(text)), [["1"], ["1"], ["1"]]);
    });

    for (const [wildcard, matches, misses] of [
      ["w.*", ["w.a", "w.b"], ["w", "w.a.b", "v.a"]],
      ["w.*.c", ["w.a.c", "w.cc.c"], ["w.c", "w.a.d", "w.a.b.c"]],
      ["w.>", ["w.a", "w.a.b.c"], ["w", "v.a"]],
      ["*.w", ["a.w", "w.w"], ["w", "a.b.w"]],
      ["w.*.>", ["w.a.b", "w.a.b.c"], ["w.a", "w"]],
    ]) {
      test(`wildcard ${wildcard}`, async () => {
        const [publisher, subscriber] = await pair();
        const { messages } = collect(subscriber, wildcard);
        const { messages: end } = collect(subscriber, "end.wild.card");
        await subscriber.flush();
        for (const subject of [...misses, ...matches]) publisher.publish(subject);
        // The last message of this publisher: whatever was to come before it has come.
        publisher.publish("end.wild.card");
        await until("the end", () => end.length === 1);
        assert.deepEqual(messages.map((m) => m.subject), matches);
      });
    }

    test("a queue group gives each message to one member", async () => {
      const publisher = await connect();
      const members = { a: [], b: [] };
      const ends = [];
      for (const [queue, count] of [["a", 3], ["b", 2]]) {
        for (let i = 0; i < count; i++) {
          const c = await connect();
          members[queue].push(collect(c, "jobs.*", { queue }).messages);
          ends.push(collect(c, "end.of.jobs").messages);
          await c.flush();
        }
      }
      for (let i = 0; i < 600; i++) publisher.publish(`jobs.${i % 7}`, `${i}`);
      publisher.publish("end.of.jobs");
      await until("the end at each member", () => ends.every((end) => end.length === 1));
      for (const lists of Object.values(members)) {
        const numbers = lists.map((messages) => messages.map((m) => Number(text(m))));
        for (const mine of numbers) {
          assert.ok(mine.length > 0, "a member got nothing");
          assert.deepEqual(mine, [...mine].sort((x, y) => x - y));
        }
        const all = numbers.flat().sort((x, y) => x - y);
        assert.deepEqual(all, Array.from({ length: 600 }, (_, i) => i));
      }
    });

    for (const noMux of [false, true]) {
      test(`request and reply, noMux ${noMux}`, async () => {
        const [caller, service] = await pair();
        echoService(service, `rr.one.${noMux}`);
        await service.flush();
        const reply = await caller.request(`rr.one.${noMux}`, "ask", { timeout: 20_000, noMux });
        assert.equal(text(reply), "re:ask");
      });
    }

    test("two hundred requests at once", async () => {
      const caller = await connect();
      for (let i = 0; i < 3; i++) {
        const service = await connect();
        echoService(service, "rr.many", "workers");
        await service.flush();
      }
      const replies = await Promise.all(
        Array.from({ length: 200 }, (_, i) => caller.request("rr.many", `${i}`, { timeout: 20_000 })),
      );
      assert.deepEqual(replies.map(text), Array.from({ length: 200 }, (_, i) => `re:${i}`));
    });

    test("several replies to one request", async () => {
      const caller = await connect();
      for (let i = 0; i < 3; i++) {
        const service = await connect();
        echoService(service, "rr.several");
        await service.flush();
      }
      const options = { strategy: "count", maxMessages: 3, maxWait: 20_000 };
      const got = [];
      for await (const m of await caller.requestMany("rr.several", "x", options)) got.push(text(m));
      assert.deepEqual(got, ["re:x", "re:x", "re:x"]);
    });

    test("no responders", async () => {
      const caller = await connect();
      await assert.rejects(caller.request("rr.nobody", "", { timeout: 20_000 }), client.isNoResponders);
      await assert.rejects(
        caller.request("rr.nobody", "", { timeout: 20_000, noMux: true }),
        client.isNoResponders,
      );
    });

    test("no responders status on an inbox", async () => {
      const caller = await connect();
      const inbox = client.createInbox();
      const got = [];
      caller.subscribe(inbox, { callback: (error, msg) => got.push([error, msg]) });
      caller.publish("rr.nobody", "x", { reply: inbox });
      await until("the status", () => got.length === 1);
      const [error, msg] = got[0];
      if (error) assert.ok(client.isNoResponders(error), `${error}`);
      else assert.equal(msg.headers.code, 503);
    });

    test("a request that nobody answers in time", async () => {
      const [caller, service] = await pair();
      service.subscribe("rr.silent");
      await service.flush();
      await assert.rejects(caller.request("rr.silent", "", { timeout: 200 }), client.isTimeout);
    });

    test("headers keep case, order and duplicates", async () => {
      const [publisher, subscriber] = await pair();
      const { messages } = collect(subscriber, "head");
      await subscriber.flush();
      const headers = client.headers();
      headers.append("X-Mixed-CASE", "One", client.caseSensitive);
      headers.append("X-Mixed-CASE", "Two", client.caseSensitive);
      headers.append("x-mixed-case", "three", client.caseSensitive);
      headers.append("utf8", "grüße: ☃", client.caseSensitive);
      publisher.publish("head", "body", { headers });
      publisher.publish("head", "", { headers });
      publisher.publish("head", "none");
      await until("three messages", () => messages.length === 3);
      for (const [msg, body] of [[messages[0], "body"], [messages[1], ""]]) {
        assert.equal(text(msg), body);
        assert.deepEqual(msg.headers.values("X-Mixed-CASE", client.caseSensitive), ["One", "Two"]);
        assert.deepEqual(msg.headers.values("x-mixed-case", client.caseSensitive), ["three"]);
        assert.deepEqual(msg.headers.values("utf8", client.caseSensitive), ["grüße: ☃"]);
        assert.deepEqual([...msg.headers.keys()], ["X-Mixed-CASE", "x-mixed-case", "utf8"]);
      }
      assert.equal(messages[2].headers, undefined);
    });

    test("payload of all byte values", async () => {
      const [publisher, subscriber] = await pair();
      const { messages } = collect(subscriber, "binary");
      await subscriber.flush();
      const every = Uint8Array.from({ length: 256 }, (_, i) => i);
      const tricky = new TextEncoder().encode("\r\nPING\r\nMSG a 1 2\r\n\0\r\n");
      for (const data of [every, tricky]) publisher.publish("binary", data);
      await until("two messages", () => messages.length === 2);
      assert.deepEqual(Buffer.from(messages[0].data), Buffer.from(every));
      assert.deepEqual(Buffer.from(messages[1].data), Buffer.from(tricky));
    });

    test("payload of one mebibyte, and one byte more", async () => {
      const [publisher, subscriber] = await pair();
      const { messages } = collect(subscriber, "big");
      await subscriber.flush();
      const data = Buffer.alloc(PAYLOAD_BYTES_MAX, "0123456789abcdef");
      for (let i = 0; i < 5; i++) publisher.publish("big", data);
      await until("five messages", () => messages.length === 5);
      for (const msg of messages) assert.ok(data.equals(msg.data));
      assert.throws(() => publisher.publish("big", Buffer.alloc(PAYLOAD_BYTES_MAX + 1)), client.isTooBig);
      await publisher.flush();
    });

    test("auto-unsubscribe", async () => {
      const [publisher, subscriber] = await pair();
      const { sub, messages } = collect(subscriber, "auto", { max: 5 });
      const { messages: end } = collect(subscriber, "end.auto");
      await subscriber.flush();
      const before = subscriber.stats().inMsgs;
      for (let i = 0; i < 20; i++) publisher.publish("auto", `${i}`);
      publisher.publish("end.auto");
      await until("the end", () => end.length === 1);
      assert.deepEqual(messages.map(text), ["0", "1", "2", "3", "4"]);
      assert.ok(sub.isClosed());
      // The server held back the rest, not only the client.
      assert.equal(subscriber.stats().inMsgs - before, 6);
      await assert.rejects(publisher.request("auto", "", { timeout: 20_000 }), client.isNoResponders);
    });

    test("unsubscribe ends the interest", async () => {
      const [publisher, subscriber] = await pair();
      const { sub } = collect(subscriber, "gone");
      await subscriber.flush();
      sub.unsubscribe();
      await subscriber.flush();
      await assert.rejects(publisher.request("gone", "", { timeout: 20_000 }), client.isNoResponders);
    });

    test("no echo", async () => {
      const quiet = await connect({ noEcho: true });
      const other = await connect();
      const { messages: own } = collect(quiet, "echo");
      const { messages: theirs } = collect(other, "echo");
      await quiet.flush();
      await other.flush();
      quiet.publish("echo", "mine");
      await quiet.flush();
      other.publish("echo", "yours");
      await until("both", () => own.length >= 1 && theirs.length >= 2);
      assert.deepEqual(own.map(text), ["yours"]);
      assert.deepEqual(theirs.map(text).sort(), ["mine", "yours"]);
    });

    test("verbose and pedantic", async () => {
      const strict = await connect({ verbose: true, pedantic: true });
      const { messages } = collect(strict, "strict");
      for (let i = 0; i < 100; i++) strict.publish("strict", `${i}`);
      await strict.flush();
      await until("100 messages", () => messages.length === 100);
    });

    test("drain of a subscription", async () => {
      const [publisher, subscriber] = await pair();
      const got = [];
      const sub = subscriber.subscribe("drain.sub");
      const done = (async () => {
        for await (const m of sub) {
          await null;
          got.push(text(m));
        }
      })();
      await subscriber.flush();
      for (let i = 0; i < 500; i++) publisher.publish("drain.sub", `${i}`);
      await publisher.flush();
      await sub.drain();
      await done;
      assert.deepEqual(got, Array.from({ length: 500 }, (_, i) => `${i}`));
      assert.equal(subscriber.isClosed(), false);
      await assert.rejects(publisher.request("drain.sub", "", { timeout: 20_000 }), client.isNoResponders);
    });

    test("drain of a connection", async () => {
      const [caller, service] = await pair();
      const { messages } = collect(caller, "drain.inbox");
      echoService(service, "drain.conn");
      await service.flush();
      for (let i = 0; i < 500; i++) caller.publish("drain.conn", `${i}`, { reply: "drain.inbox" });
      await caller.flush();
      await service.drain();
      assert.equal(await service.closed(), undefined);
      await until("all answers", () => messages.length === 500);
      assert.deepEqual(messages.map(text), Array.from({ length: 500 }, (_, i) => `re:${i}`));
    });

    testAlone("reconnect after SIGKILL", async (own, connectOwn) => {
      const c = await connectOwn();
      const seen = [];
      (async () => {
        for await (const status of c.status()) seen.push(status.type);
      })();
      const { messages: plain } = collect(c, "again.*");
      const { messages: queued } = collect(c, "again.queue", { queue: "q" });
      const { messages: limited } = collect(c, "again.limited", { max: 2 });
      await c.flush();
      c.publish("again.limited", "0");
      await until("the first", () => plain.length === 1 && limited.length === 1);

      await own.kill();
      await until("the disconnect", () => seen.includes("disconnect"));
      await own.start();
      await until("the reconnect", () => seen.includes("reconnect"));
      await c.flush();

      const other = await connectOwn();
      const subjects = ["again.queue", "again.limited", "again.limited", "again.end"];
      for (const subject of subjects) other.publish(subject, "1");
      await until("the end", () => plain.at(-1).subject === "again.end");
      assert.deepEqual(plain.slice(1).map((m) => m.subject), subjects);
      assert.equal(queued.length, 1);
      assert.equal(limited.length, 2);
    });

    testAlone("three restarts in a row", async (own, connectOwn) => {
      const c = await connectOwn();
      let reconnects = 0;
      (async () => {
        for await (const status of c.status()) if (status.type === "reconnect") reconnects++;
      })();
      const { messages } = collect(c, "thrice");
      for (let round = 1; round <= 3; round++) {
        await own.kill();
        await own.start();
        await until("the reconnect", () => reconnects === round);
        c.publish("thrice", `${round}`);
        await until("the message", () => messages.length === round);
      }
    });

    testAlone("lame duck is announced", async (own, connectOwn) => {
      const c = await connectOwn();
      const seen = [];
      (async () => {
        for await (const status of c.status()) seen.push(status.type);
      })();
      const { messages } = collect(c, "ldm");
      await c.flush();
      own.lameDuck();
      await until("the status", () => seen.includes("ldm"));
      c.publish("ldm", "still served");
      await until("the message", () => messages.length === 1);
    });

    test("an error of the server ends the connection with its reason", async () => {
      const c = await connect({ reconnect: false });
      // Below the client, which checks subjects itself.
      c.protocol.sendCommand("NOPE\r\n");
      const reason = await c.closed();
      assert.match(`${reason}`.toLowerCase(), /unknown protocol operation/);
    });

    testAlone("a dead port is refused", async (own) => {
      await own.kill();
      await assert.rejects(client.connect({ servers: own.url, reconnect: false, timeout: 5000 }));
    });
  });
}
