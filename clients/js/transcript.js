// The text of one request as it arrives. Pure: it takes pushes, and has no connection.

const REMEMBERED_RUNS = 1_000;
const REMEMBERED_VOIDED = 5;

export class Transcript {
  /** The attempt that the text is of; 0 before there is any. */
  attempt = 0;
  text = "";
  /** Whether pieces are missing before or in the text. */
  hasHole = false;
  /** Texts of attempts that do not count any more, oldest first: `{attempt, text}`. */
  voided = [];
  #nextSeq = 0;
  #runs = []; // where in the text the last pieces begin, for those that come again joined in another way

  /** Takes a push of type `text`, `delta` or `void` of its request. Gives whether something changed. */
  apply(push) {
    if (push.type === "void") return this.#void(push.superseded_by);
    if (push.attempt < this.attempt) return false;
    if (push.attempt > this.attempt) this.#void(push.attempt);
    if (push.type === "text") return this.#begin(push);
    if (push.last_seq < this.#nextSeq) return false;
    if (push.seq > this.#nextSeq) this.hasHole = true;
    if (push.seq < this.#nextSeq) {
      const overlapping = this.#runs.find(({ seq }) => seq === push.seq);
      if (!overlapping) return this.#begin(push); // what it repeats cannot be told from what is new
      this.text = this.text.slice(0, overlapping.at);
      this.#runs = this.#runs.filter(({ seq }) => seq < push.seq);
    }
    this.#append(push);
    return true;
  }

  #begin(push) {
    this.text = "";
    this.#runs = [];
    this.hasHole = push.seq > 0;
    this.#append(push);
    return true;
  }

  #append({ seq, last_seq: lastSeq, text }) {
    this.#runs.push({ seq, at: this.text.length });
    if (this.#runs.length > REMEMBERED_RUNS) this.#runs.shift();
    this.text += text;
    this.#nextSeq = lastSeq + 1;
  }

  #void(supersededBy) {
    if (supersededBy <= this.attempt) return false;
    if (this.text) this.voided.push({ attempt: this.attempt, text: this.text });
    if (this.voided.length > REMEMBERED_VOIDED) this.voided.shift();
    this.attempt = supersededBy;
    this.text = "";
    this.hasHole = false;
    this.#nextSeq = 0;
    this.#runs = [];
    return true;
  }
}
