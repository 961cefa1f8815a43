// Scrub, play and step through a recording, trigger by trigger.
import { clock } from "./lanes.js";

const $ = (id) => document.getElementById(id);
const PAUSE_MS = 350; // after which it is asked why a trigger saw what it saw

export class Player {
  constructor(link, hello, state) {
    Object.assign(this, { link, state, triggers: hello.triggers, at: 0, t: null, playing: false });
    this.wanted = null;
    this.controls = new AbortController();
    const on = (id, kind, act) => $(id).addEventListener(kind, act, { signal: this.controls.signal });
    $("place").max = Math.max(0, this.triggers - 1);
    on("place", "input", () => this.go(Number($("place").value)));
    on("first", "click", () => this.go(0));
    on("back", "click", () => this.step(-1));
    on("next", "click", () => this.step(1));
    on("play", "click", () => this.play());
    document.addEventListener("keydown", (event) => this.key(event), { signal: this.controls.signal });
    if (this.triggers) this.go(0);
    else $("where").textContent = "no triggers";
  }

  close() {
    this.controls.abort();
    clearTimeout(this.timer);
  }

  key(event) {
    if (event.target.matches("input[type=text], textarea, select") || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "ArrowRight") this.step(event.shiftKey ? 30 : 1);
    else if (event.key === "ArrowLeft") this.step(event.shiftKey ? -30 : -1);
    else if (event.key === " ") this.play();
    else return;
    event.preventDefault();
  }

  step(by) {
    this.playing = false;
    this.go((this.wanted ?? this.at) + by);
  }

  // One request is on its way at a time; of those that come meanwhile only the last is made.
  go(trigger) {
    this.wanted = Math.max(0, Math.min(this.triggers - 1, trigger));
    $("place").value = this.wanted;
    if (!this.asked) this.ask();
  }

  ask() {
    clearTimeout(this.timer); // nobody asks any more why the one before saw what it saw
    this.asked = this.link.send({ at: this.wanted });
    this.wanted = null;
  }

  took(header) {
    if (header.at === undefined) return;
    this.asked = false;
    this.at = header.at;
    this.t = header.now;
    $("where").textContent = `trigger ${header.number}, ${header.at + 1} of ${this.triggers}, at ${clock(Math.round(header.now / 100) * 100)}`;
    $("play").textContent = this.playing ? "pause" : "play";
    clearTimeout(this.timer);
    if (this.wanted !== null) this.ask();
    else if (this.playing) this.goOn();
    else this.timer = setTimeout(() => this.link.send({ explain: this.at }), PAUSE_MS);
  }

  play() {
    this.playing = !this.playing;
    $("play").textContent = this.playing ? "pause" : "play";
    if (this.playing && this.at >= this.triggers - 1) this.go(0);
    this.base = { real: performance.now(), t: this.t ?? 0 };
    if (this.playing) this.goOn();
    else this.go(this.at);
  }

  // The next trigger at its own time; those that are due already are passed over.
  goOn() {
    const rows = this.state.rows, index = rows.findIndex((row) => row.at === this.at);
    if (this.at >= this.triggers - 1 || index < 0) {
      this.playing = this.at < this.triggers - 1 && index < 0;
      $("play").textContent = this.playing ? "pause" : "play";
      if (!this.playing) return;
    }
    const due = this.base.t + performance.now() - this.base.real;
    let next = rows[index + 1], then = index + 1;
    while (rows[then + 1] && rows[then + 1].t <= due) next = rows[++then];
    const target = next ? next.at : this.at + 1;
    this.timer = setTimeout(() => this.playing && this.go(target), Math.max(0, (next ? next.t : due) - due));
  }

  row() {
    return this.state.rows.find((row) => row.at === this.at) ?? null;
  }
}
