// Uses Antecede as a program with ioredis would: `suite_ioredis.js PORT`.

import assert from "node:assert/strict";

import { Redis } from "ioredis";

const port = Number(process.argv[2]);
const open = [];

function connect(options = {}) {
  const client = new Redis({ port, retryStrategy: null, ...options });
  client.on("error", () => {});
  open.push(client);
  return client;
}

const tests = {
  async "connects, and waits until the server is ready"() {
    const client = connect({ connectionName: "worker" });
    assert.equal(await client.ping(), "PONG");
    assert.equal(client.status, "ready");
    assert.equal(await client.client("GETNAME"), "worker");
  },

  async "strings come back"() {
    const client = connect();
    assert.equal(await client.set("io:a", "1"), "OK");
    assert.equal(await client.get("io:a"), "1");
    assert.equal(await client.set("io:a", "2", "NX"), null);
    assert.deepEqual(await client.mget("io:a", "io:none"), ["1", null]);
    assert.equal(await client.append("io:a", "2"), 2);
    assert.equal(await client.getrange("io:a", 1, 1), "2");
    assert.equal(await client.set("io:t", "v", "EX", 100), "OK");
    const left = await client.ttl("io:t");
    assert.ok(90 < left && left <= 100, `${left} seconds left`);
    assert.equal(await client.del("io:a", "io:t", "io:none"), 2);
  },

  async "many requests in flight keep their order"() {
    const client = connect();
    const writes = Array.from({ length: 500 }, (_, number) => client.set(`io:n${number}`, number));
    await Promise.all(writes);
    const reads = Array.from({ length: 500 }, (_, number) => client.get(`io:n${number}`));
    assert.deepEqual(await Promise.all(reads), Array.from({ length: 500 }, (_, n) => String(n)));
  },

  async "a pipeline and a transaction are answered"() {
    const client = connect();
    const piped = await client.pipeline().set("{io}:p", "1").get("{io}:p").exec();
    assert.deepEqual(piped, [[null, "OK"], [null, "1"]]);
    const multi = await client.multi().set("{io}:m", "1").get("{io}:m").exec();
    assert.deepEqual(multi, [[null, "OK"], [null, "1"]]);
    await client.watch("{io}:m");
    await connect().set("{io}:m", "2");
    assert.equal(await client.multi().set("{io}:m", "3").exec(), null);
  },

  async "bytes come back"() {
    const client = connect();
    const value = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    await client.set("io:bytes", value);
    assert.deepEqual(await client.getBuffer("io:bytes"), value);
  },

  async "a scan stream finds all keys"() {
    const client = connect();
    for (let number = 0; number < 30; number += 1) await client.set(`io:scan:${number}`, "v");
    const found = new Set();
    for await (const keys of client.scanStream({ match: "io:scan:*", count: 5 })) {
      keys.forEach((key) => found.add(key));
    }
    assert.equal(found.size, 30);
  },

  async "errors are told"() {
    const client = connect();
    await assert.rejects(client.call("NOSUCH"), /unknown command/);
    await assert.rejects(client.set("io:a", "v", "EX", 0), /invalid expire time in 'set' command/);
  },
};

for (const [name, body] of Object.entries(tests)) {
  try {
    await body();
    console.log(`ok   ioredis: ${name}`);
  } catch (error) {
    console.log(`FAIL ioredis: ${name}: ${error.message}`);
  }
}
open.forEach((client) => client.disconnect());
