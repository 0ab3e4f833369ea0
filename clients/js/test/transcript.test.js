import assert from "node:assert/strict";
import test from "node:test";

import { Order } from "../order.js";
import { Transcript } from "../transcript.js";
import { delta } from "./fake_socket.js";

const texts = (pushes) => {
  const transcript = new Transcript();
  return pushes.map((push) => (transcript.apply(push), transcript.text));
};

test("pieces are joined once, whatever comes again", () => {
  assert.deepEqual(texts([delta(0, "a"), delta(0, "a"), delta(1, "bc", 1, 2), delta(2, "c"), delta(3, "d")]), ["a", "a", "abc", "abc", "abcd"]);
});

test("pieces that come again joined in another way replace what they repeat", () => {
  assert.deepEqual(texts([delta(0, "a"), delta(1, "b"), delta(2, "c"), delta(1, "bcd", 1, 3)]).at(-1), "abcd");
});

test("an overlap that cannot be placed begins the text anew and says that something is missing", () => {
  const transcript = new Transcript();
  for (const push of [delta(0, "abc", 1, 2), delta(1, "bcd", 1, 3)]) transcript.apply(push);
  assert.deepEqual([transcript.text, transcript.hasHole], ["bcd", true]);
});

test("a hole is told, and a snapshot's text closes it", () => {
  const transcript = new Transcript();
  transcript.apply(delta(0, "a"));
  transcript.apply(delta(2, "c"));
  assert.deepEqual([transcript.text, transcript.hasHole], ["ac", true]);
  transcript.apply({ ...delta(0, "abc", 1, 2), type: "text" });
  assert.deepEqual([transcript.text, transcript.hasHole], ["abc", false]);
});

test("a later attempt voids what came before, by its first piece or by the word of it", () => {
  const transcript = new Transcript();
  transcript.apply(delta(0, "a"));
  transcript.apply({ type: "void", request_id: "r", attempt: 1, superseded_by: 2 });
  assert.deepEqual([transcript.text, transcript.voided], ["", [{ attempt: 1, text: "a" }]]);
  assert.equal(transcript.apply(delta(1, "late")), false);
  transcript.apply(delta(0, "B", 2));
  transcript.apply(delta(0, "C", 3));
  assert.deepEqual([transcript.text, transcript.attempt, transcript.voided.length], ["C", 3, 2]);
});

test("what is kept of voided attempts is bounded", () => {
  const transcript = new Transcript();
  for (let attempt = 1; attempt <= 50; attempt++) transcript.apply(delta(0, "x", attempt));
  assert.ok(transcript.voided.length <= 5);
});

test("any order of any pushes gives each push once, and ends with the newest", () => {
  let seed = 7;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  for (let round = 0; round < 500; round++) {
    const order = new Order(100);
    const pushes = Array.from({ length: 20 }, () => {
      const [attempt, seq, version] = [1 + Math.floor(random() * 3), Math.floor(random() * 6), 1 + Math.floor(random() * 6)];
      return random() < 0.5 ? delta(seq, "x", attempt) : { type: "status", event: { request_id: "r", state_version: version } };
    });
    const news = pushes.filter((push) => order.isNews(push));
    const versions = news.filter((push) => push.event).map((push) => push.event.state_version);
    const places = news.filter((push) => !push.event).map((push) => push.attempt * 100 + push.seq);
    for (const numbers of [versions, places]) {
      assert.deepEqual(numbers, [...new Set(numbers)].sort((a, b) => a - b));
    }
    assert.equal(versions.at(-1), Math.max(...pushes.filter((push) => push.event).map((push) => push.event.state_version)));
  }
});

test("the memory of what is news is bounded", () => {
  const order = new Order(2);
  const status = (id) => ({ type: "status", event: { request_id: id, state_version: 1 } });
  assert.deepEqual(["a", "b", "a", "c", "a", "b"].map((id) => order.isNews(status(id))), [true, true, false, true, false, true]);
});
