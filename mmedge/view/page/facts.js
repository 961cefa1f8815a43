// Tables: latency by step, the histogram, losses by cause, health with reasons, why a trigger saw what it saw.
import { ms, palette, plain, sized } from "./palette.js";
import { made } from "./scene.js";

const STATES = { OK: "good", LATE: "warn", STALE: "bad", MISSING: "bad", RECONNECTING: "warn" };

function rowOf(table, cells, kind = "", tag = "td") {
  const row = made("tr", kind, table);
  for (const cell of cells) made(tag, "", row, cell === null ? "-" : String(cell));
  return row;
}

const figure = (value) => (value === null || value === undefined ? "-" : value.toFixed(value >= 100 ? 0 : 1));

export function showLatency(figures, hello) {
  const table = document.getElementById("steps"), total = figures.end_to_end;
  table.replaceChildren();
  rowOf(table, ["ms", "p50", "p90", "p99"], "", "th");
  hello.steps.forEach((step, index) => {
    const told = figures.steps[step];
    if (!told) return;
    const row = rowOf(table, [step, figure(told.p50), figure(told.p90), figure(told.p99)]);
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = palette().steps[index];
    row.firstChild.prepend(swatch);
  });
  if (total.n) rowOf(table, ["end to end", figure(total.p50), figure(total.p90), figure(total.p99)]).style.fontWeight = 650;
  const known = figures.stamps_ms > 0.1 ? `, capture times \u00b1 ${figure(figures.stamps_ms)} ms` : "";
  document.getElementById("latency-sum").textContent = total.n ? `of ${total.n} results (${figures.evidence})${known}` : "";
  histogram(document.getElementById("histogram"), figures);
}

function histogram(canvas, figures) {
  const context = sized(canvas), colours = palette();
  const width = canvas.clientWidth, height = canvas.clientHeight - 15, found = figures.histogram;
  if (!found.length) return;
  const first = Math.min(found[0][0] * 0.7, 1), last = Math.max(found.at(-1)[0] * 1.6, 30);
  const x = (value) => (Math.log(value / first) / Math.log(last / first)) * width;
  const most = Math.max(...found.map(([, n]) => n));
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "top";
  context.textAlign = "center";
  context.fillStyle = colours.dim;
  context.strokeStyle = colours.line;
  context.beginPath();
  let free = 0;
  for (let decade = 10 ** Math.ceil(Math.log10(first)); decade <= last; decade *= 10) {
    const at = x(decade);
    context.moveTo(at, 0);
    context.lineTo(at, height);
    const text = decade >= 1000 ? `${decade / 1000} s` : `${decade} ms`, half = context.measureText(text).width / 2;
    if (at - half < free || at + half > width) continue;
    context.fillText(text, at, height + 2);
    free = at + half + 6;
  }
  context.moveTo(0, height + 0.5);
  context.lineTo(width, height + 0.5);
  context.stroke();
  context.fillStyle = colours.wave;
  for (const [from, n] of found) {
    const wide = x(from * 2 ** (1 / 6)) - x(from), high = Math.max(1.5, (n / most) * (height - 14));
    context.fillRect(x(from) + 0.5, height - high, Math.max(wide - 1, 1), high);
  }
  const marks = [["p50", figures.end_to_end.p50], ["p99", figures.end_to_end.p99]];
  context.strokeStyle = colours.accent;
  context.fillStyle = colours.text;
  for (const [name, value] of marks) {
    if (value === null) continue;
    const at = x(value);
    context.beginPath();
    context.moveTo(at, 12);
    context.lineTo(at, height);
    context.stroke();
    const text = `${name} ${figure(value)}`, wide = context.measureText(text).width;
    context.textAlign = "left";
    // The one to the left of its mark, the other to the right, as far as there is room.
    const begin = name === "p50" ? at - wide : at + 2;
    context.fillText(text, Math.max(0, Math.min(begin, width - wide - 1)), 0);
  }
}

export function showLosses(figures) {
  const table = document.getElementById("drops");
  table.replaceChildren();
  rowOf(table, ["triggers", figures.triggers]);
  rowOf(table, ["answered", figures.results]);
  const drops = Object.entries(figures.drops);
  if (!drops.length) rowOf(table, ["dropped", 0], "zero");
  for (const [cause, n] of drops) rowOf(table, [`dropped: ${plain(cause, 40).replaceAll("_", " ")}`, n], "some");
  if (figures.unvalidated) rowOf(table, ["masks not validated", figures.unvalidated], "some");
  for (const [what, n] of Object.entries(figures.lost)) rowOf(table, [what, n], n ? "some" : "zero");
}

export function showHealth(health, hello, figures) {
  const box = document.getElementById("health");
  box.replaceChildren();
  made("h2", "", box, "inputs");
  for (const [name, report] of Object.keys(hello.inputs).map((each) => [each, health[each]])) {
    if (!report) continue;
    const line = made("div", "source", box);
    made("span", `chip ${STATES[report.state] ?? ""}`, line, report.state);
    made("span", "who", line, plain(name, 40));
    if (report.clock) {
      const { quality, ppm, jitter_ms: jitter, uncertainty_ms: bound } = report.clock;
      const drift = ppm === null ? "" : `, drift ${ppm >= 0 ? "+" : ""}${ppm.toFixed(0)} ppm`;
      made("span", "reason", line, `clock ${quality} \u00b1 ${bound.toFixed(1)} ms${drift}, jitter ${jitter.toFixed(1)} ms`);
    }
    if (report.reason) made("span", "reason", line, plain(report.reason, 160));
    const lost = Object.entries(report.counters ?? {}).filter(([what]) => /dropped|lost|overflow|restarts|damaged|refused/.test(what));
    if (lost.length) made("span", "reason", line, lost.map(([what, n]) => `${what.replaceAll("_", " ")} ${n}`).join(", "));
  }
  for (const name of Object.keys(hello.inputs).filter((each) => !(each in health))) {
    const line = made("div", "source", box);
    made("span", "chip", line, "none");
    made("span", "who", line, plain(name, 40));
    made("span", "reason", line, "no source");
  }
  for (const note of figures?.notes ?? []) made("div", "note", box, plain(note, 240));
}

// document: mmedge.explain/1
export function showWhy(told) {
  const box = document.getElementById("why-text");
  box.replaceChildren();
  if (told.error) {
    made("p", "", box, plain(told.error, 400));
    return;
  }
  const late = told.waited_for.length ? ` for ${told.waited_for.join(", ")}` : "";
  made("p", "", box, `trigger ${told.trigger}, made by ${told.made_by}: ${told.outcome}`);
  made("p", "", box, `delivered ${ms(told.delivered_ms)} after its capture, then waited ${ms(told.waited_ms)}${late}; left because ${told.left_because}`);
  for (const [name, entry] of Object.entries(told.inputs)) {
    const state = entry.present
      ? `present, number ${entry.used?.[1]} of epoch ${entry.used?.[0]}, ${ms(entry.age_ms)} old`
      : `absent, ${entry.why ?? "nothing had come"}`;
    const newest = entry.newest ? `; newest captured ${ms(entry.newest.capture_ms)}, arrived ${ms(entry.newest.arrive_ms)} \u00b1 ${ms(entry.newest.uncertainty_ms)}` : "";
    const needed = entry.needed_ms === undefined ? "" : `; needed up to ${ms(entry.needed_ms)}, waited ${ms(entry.waited_ms)}`;
    made("p", "", box, `${plain(name, 40)}: ${plain(state, 200)}${newest}${needed}${entry.ended ? `; ended: ${plain(entry.ended, 80)}` : ""}`);
  }
  for (const [name, stage] of Object.entries(told.stages)) {
    made("p", "", box, `stage ${plain(name, 40)}: output of ${ms(stage.age_ms)} before${stage.still_running ? ", its next run was still going on" : ""}`);
  }
  for (const note of told.nearby.slice(-4)) {
    made("p", "", box, `within 2 s: ${plain(Object.entries(note).map(([key, value]) => `${key} ${value}`).join(", "), 160)}`);
  }
}
