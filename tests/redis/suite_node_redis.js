// Uses Antecede as a program with node-redis would: `suite_node_redis.js PORT`.

import assert from "node:assert/strict";

import { createClient } from "redis";

const port = Number(process.argv[2]);
const open = [];

async function connect(options = {}) {
  const client = createClient({ socket: { port, reconnectStrategy: false }, ...options });
  client.on("error", () => {});
  open.push(client);
  return client.connect();
}

const tests = {
  async "connects in both versions with a name"() {
    for (const RESP of [2, 3]) {
      const client = await connect({ RESP, name: "worker" });
      assert.equal(await client.ping(), "PONG");
      assert.equal(await client.clientGetName(), "worker");
    }
  },

  async "strings come back"() {
    const client = await connect();
    assert.equal(await client.set("node:a", "1"), "OK");
    assert.equal(await client.get("node:a"), "1");
    assert.equal(await client.get("node:none"), null);
    assert.equal(await client.set("node:a", "2", { condition: "NX" }), null);
    assert.deepEqual(await client.mGet(["node:a", "node:none"]), ["1", null]);
    await client.mSet({ "node:b": "x", "node:c": "y" });
    assert.equal(await client.getDel("node:b"), "x");
    assert.equal(await client.strLen("node:c"), 1);
    await client.setEx("node:t", 100, "v");
    const left = await client.ttl("node:t");
    assert.ok(90 < left && left <= 100, `${left} seconds left`);
    assert.equal(await client.del(["node:a", "node:c", "node:t"]), 3);
  },

  async "many requests in flight keep their order"() {
    const client = await connect();
    const numbers = Array.from({ length: 500 }, (_, number) => String(number));
    await Promise.all(numbers.map((number) => client.set(`node:n${number}`, number)));
    assert.deepEqual(await Promise.all(numbers.map((n) => client.get(`node:n${n}`))), numbers);
  },

  async "a transaction is answered, and stopped by a watched key"() {
    const client = await connect();
    const answers = await client.multi().set("{node}:m", "1").get("{node}:m").exec();
    assert.deepEqual(answers, ["OK", "1"]);
    await client.watch("{node}:m");
    await (await connect()).set("{node}:m", "2");
    await assert.rejects(client.multi().set("{node}:m", "3").exec(), /watched keys/);
  },

  async "a scan finds all keys"() {
    const client = await connect();
    for (let number = 0; number < 30; number += 1) await client.set(`node:scan:${number}`, "v");
    const found = new Set();
    for await (const keys of client.scanIterator({ MATCH: "node:scan:*", COUNT: 5 })) {
      [keys].flat().forEach((key) => found.add(key));
    }
    assert.equal(found.size, 30);
  },

  async "errors are told"() {
    const client = await connect();
    await assert.rejects(client.sendCommand(["NOSUCH"]), /unknown command/);
    await assert.rejects(client.sendCommand(["GET"]), /wrong number of arguments for 'get'/);
  },

  async "the server describes itself"() {
    const client = await connect();
    assert.ok((await client.commandCount()) > 50);
    assert.match(await client.info(), /redis_version/);
    assert.ok((await client.clientId()) > 0);
  },
};

for (const [name, body] of Object.entries(tests)) {
  try {
    await body();
    console.log(`ok   node-redis: ${name}`);
  } catch (error) {
    console.log(`FAIL node-redis: ${name}: ${error.message}`);
  }
}
open.forEach((client) => client.destroy());
