// The page: takes what comes, and draws it.
import { Link } from "./link.js";
import { Lanes, SPAN_MS } from "./lanes.js";
import { Answer, Scene } from "./scene.js";
import { showHealth, showLatency, showLosses, showWhy } from "./facts.js";
import { ms, onScheme, plain } from "./palette.js";
import { Player } from "./player.js";

const $ = (id) => document.getElementById(id);
const KEPT_ROWS = 1500;
const CREEP_MS = 0.05; // from one message to the next
// What the page knows; `window.mmedge` lets a test, or a curious person, look.
const state = { hello: null, rows: [], figures: null, health: {}, cut: {}, losses: [], offset: Infinity, scenes: {}, ticks: 0, now: 0, row: null };
window.mmedge = state;
let lanes = null, answers = {}, player = null;

const link = new Link({ hello: begin, tick: take, notice: (text) => say(text) });

function begin(hello) {
  // A server that was started again counts its time anew.
  [lanes, player, ...Object.values(state.scenes)].forEach((each) => each?.close());
  Object.assign(state, { hello, rows: [], figures: null, health: {}, cut: {}, losses: [], offset: Infinity, row: null });
  document.title = `${plain(hello.name, 120)} \u2013 mmedge`;
  $("name").textContent = plain(hello.name, 120);
  $("scenes").replaceChildren();
  $("answers").replaceChildren();
  state.scenes = Object.fromEntries(hello.pictures.map((name) => [name, new Scene(name, $("scenes"), hello)]));
  answers = Object.fromEntries(Object.entries(hello.tasks).map(([name, told]) => [name, new Answer(name, told, $("answers"))]));
  lanes = new Lanes($("lanes"), hello);
  $("say").hidden = !hello.typed.length;
  $("say-input").replaceChildren(...hello.typed.map((name) => new Option(name, name)));
  $("say-input").hidden = hello.typed.length < 2;
  $("scrub").hidden = hello.live;
  $("why").hidden = hello.live;
  $("losses").hidden = !hello.live;
  player = hello.live ? null : new Player(link, hello, state);
}

async function take(header, blobs) {
  if (header.kind === "why") {
    showWhy(header.why);
    return;
  }
  state.ticks += 1;
  if (header.replace) state.rows = [];
  state.rows.push(...header.rows);
  if (state.rows.length > KEPT_ROWS) state.rows.splice(0, state.rows.length - KEPT_ROWS);
  state.cut = header.cut ?? state.cut;
  // The smallest difference of both clocks is that of the message that was on its way for the shortest time. It is let
  // grow a little: two clocks drift apart in hours.
  state.offset = Math.min(state.offset + CREEP_MS, performance.now() - header.now);
  header.sound.forEach((told, index) => {
    if (header.replace) lanes.columns[told.input].clear();
    lanes.columns[told.input].take(told.t, blobs.sound[index]);
  });
  await Promise.all(header.pictures.map((told, index) => state.scenes[told.input].take(told, blobs.pictures[index])));
  if (header.figures) {
    const before = sum(state.figures?.drops), now = sum(header.figures.drops);
    if (state.figures && now > before) state.losses.push({ t: header.now, n: now - before });
    state.losses = state.losses.slice(-20);
    state.figures = header.figures;
    state.health = header.health;
    showLatency(state.figures, state.hello);
    showLosses(state.figures);
    showHealth(state.health, state.hello, state.figures);
  }
  player?.took(header);
}

const sum = (drops) => Object.values(drops ?? {}).reduce((all, n) => all + n, 0);

let drawnAt = 0;
function draw(at) {
  requestAnimationFrame(draw);
  if (at - drawnAt < 30) return;
  drawnAt = at;
  showLink();
  const { hello } = state;
  if (!hello || (hello.live && state.offset === Infinity)) return; // there is no time yet
  const now = hello.live ? at - state.offset : (player.t ?? 0);
  const row = hello.live ? (state.rows.at(-1) ?? null) : player.row();
  const stale = hello.live && row !== null && now - row.t > 1500;
  for (const [name, scene] of Object.entries(state.scenes)) scene.draw(row, now, state.health[name]);
  for (const answer of Object.values(answers)) answer.draw(row, stale);
  const ahead = hello.live ? 0 : SPAN_MS * 0.3;
  lanes.draw({ ...state, row, now, from: now - SPAN_MS + ahead, to: now + ahead, cursor: hello.live ? null : now });
  headline(row, now);
  Object.assign(state, { now, row }); // what is on the screen
}

function headline(row, now) {
  if (!state.hello.live) return;
  const recent = state.rows.filter((each) => each.t > now - 2000);
  const rate = recent.length > 1 ? (recent.length - 1) / ((recent.at(-1).t - recent[0].t) / 1000) : 0;
  const p50 = state.figures?.end_to_end.p50;
  const parts = [`${rate.toFixed(1)} results/s`];
  if (p50 !== null && p50 !== undefined) parts.push(`p50 ${ms(p50)}`);
  if (row) parts.push(`newest ${ms(Math.max(now - row.t, 0))} old`);
  $("headline").textContent = parts.join("  \u00b7  ");
}

function showLink() {
  const chip = $("state"), silent = link.silentS();
  let [text, kind] = ["connecting", ""];
  if (link.refused) [text, kind] = ["the link is not valid: open the one that was printed", "bad"];
  else if (link.full) [text, kind] = ["too many viewers", "bad"];
  else if (!link.alive && state.hello) [text, kind] = [`no connection for ${silent.toFixed(0)} s`, "bad"];
  else if (link.alive && state.hello?.live && silent > 3 && state.figures?.state !== "STOPPED") [text, kind] = [`nothing came for ${silent.toFixed(0)} s`, "bad"];
  else if (state.hello && !state.hello.live) [text, kind] = ["recording", ""];
  else if (state.figures) {
    text = state.figures.state;
    kind = { READY: "good", DEGRADED: "warn", FAILED: "bad" }[text] ?? "";
  }
  if (chip.textContent !== text) chip.textContent = text;
  chip.className = `chip ${kind}`;
}

let notice = 0;
function say(text) {
  $("notice").textContent = text;
  clearTimeout(notice);
  notice = setTimeout(() => ($("notice").textContent = ""), 4000);
}

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("say-text").value;
  const sent = link.send({ text, input: $("say-input").value || null });
  say(sent ? "sent" : "not sent: there is no connection");
  $("say-text").select();
});
onScheme(() => state.figures && showLatency(state.figures, state.hello));
link.open();
requestAnimationFrame(draw);
