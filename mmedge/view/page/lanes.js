// Everything on one clock: sound, tasks, inputs, skew, latency.
import { hatch, labelColour, levelColour, ms, onScheme, palette, plain, score, sized } from "./palette.js";
import { spoken } from "./scene.js";

export const SPAN_MS = 10000;
const KEPT = 700; // columns of sound: more than SPAN_MS
const LEFT = 92, RIGHT = 96, AXIS = 20, GAP = 5;

// The newest columns of one input's sound, drawn into a ring of pixels as they come.
export class SoundColumns {
  constructor(bands) {
    this.bands = bands;
    this.t = new Float64Array(KEPT).fill(-Infinity);
    this.low = new Int8Array(KEPT);
    this.high = new Int8Array(KEPT);
    this.levels = new Uint8Array(KEPT * Math.max(bands, 1));
    this.at = 0;
    this.image = document.createElement("canvas");
    this.image.width = KEPT;
    this.image.height = Math.max(bands, 1);
    this.context = this.image.getContext("2d");
    this.close = onScheme(() => {
      for (let index = 0; index < KEPT; index++) this.paint(index);
    });
  }

  clear() {
    this.t.fill(-Infinity);
  }

  take(times, data) {
    const size = 2 + this.bands;
    const signed = new Int8Array(data.buffer, data.byteOffset, data.byteLength);
    times.forEach((t, index) => {
      const at = this.at;
      this.t[at] = t;
      this.low[at] = signed[index * size];
      this.high[at] = signed[index * size + 1];
      this.levels.set(data.subarray(index * size + 2, (index + 1) * size), at * this.bands);
      this.paint(at);
      this.at = (at + 1) % KEPT;
    });
  }

  paint(at) {
    if (!this.bands) return;
    const pixels = this.context.createImageData(1, this.bands);
    for (let band = 0; band < this.bands; band++) {
      const place = 4 * (this.bands - 1 - band);
      const [r, g, b] = levelColour(this.levels[at * this.bands + band]);
      pixels.data[place] = r;
      pixels.data[place + 1] = g;
      pixels.data[place + 2] = b;
      pixels.data[place + 3] = 255;
    }
    this.context.putImageData(pixels, at, 0);
  }
}

export class Lanes {
  constructor(canvas, hello) {
    this.canvas = canvas;
    this.hello = hello;
    this.columns = Object.fromEntries(hello.sounds.map((name) => [name, new SoundColumns(hello.bands)]));
    this.rate = hello.columns_per_s;
  }

  close() {
    Object.values(this.columns).forEach((each) => each.close());
  }

  // What is drawn from top to bottom; flexible lanes share what is left.
  plan(height) {
    const { hello } = this;
    const lanes = [];
    const sounding = hello.privacy !== "none";
    for (const name of hello.sounds.filter((each) => hello.attached.includes(each))) {
      if (sounding) lanes.push({ kind: "wave", name, title: name, least: 40, share: 2 });
      if (sounding && hello.bands) lanes.push({ kind: "spectrum", name, title: "spectrum", least: 54, share: 4 });
    }
    for (const name of Object.keys(hello.tasks)) lanes.push({ kind: "task", name, title: name, least: 26, share: 1.4 });
    for (const name of Object.keys(hello.inputs)) lanes.push({ kind: "input", name, title: name, least: 15, share: 0.25 });
    lanes.push({ kind: "skew", title: "skew \u00b1", least: 30, share: 0.7 });
    lanes.push({ kind: "latency", title: "latency", least: 46, share: 2 });
    const room = height - AXIS - 6;
    const least = lanes.reduce((sum, lane) => sum + lane.least + GAP, 0);
    const spare = Math.max(0, room - least), shares = lanes.reduce((sum, lane) => sum + lane.share, 0);
    const squeeze = Math.min(1, room / least);
    let y = 6;
    for (const lane of lanes) {
      lane.y = y;
      lane.h = lane.least * squeeze + Math.min((spare * lane.share) / shares, lane.least * 3);
      y += lane.h + GAP * squeeze;
    }
    return { lanes, end: y };
  }

  // view: {rows, row, now, from, to, cut, health, losses, cursor}; row is the one whose values are written
  draw(view) {
    const context = sized(this.canvas);
    const width = this.canvas.clientWidth, height = this.canvas.clientHeight;
    const left = width < 520 ? 74 : LEFT, right = width < 520 ? 78 : RIGHT;
    const { lanes, end } = this.plan(height);
    const x = (t) => left + ((t - view.from) / (view.to - view.from)) * (width - left - right);
    const area = { left, margin: right, right: width - right, width: width - left - right, x, end };
    const colours = palette();
    this.axis(context, area, view, colours);
    context.font = "12px system-ui, sans-serif";
    view.gap = 4 * period(view.rows) + 250;
    const rows = view.rows.filter((row) => row.t >= view.from - 1000 && row.t <= view.to);
    for (const lane of lanes) {
      context.textBaseline = "middle";
      context.textAlign = "right";
      context.fillStyle = colours.dim;
      context.fillText(cut(context, lane.title, left - 12), left - 8, lane.y + lane.h / 2);
      context.save();
      context.beginPath();
      context.rect(left, lane.y, area.width, lane.h);
      context.clip();
      const value = this[lane.kind](context, lane, area, view, rows, colours);
      context.restore();
      context.textAlign = "left";
      this.value(context, lane, area, view.row, view, colours, value);
    }
    if (view.cursor !== null && view.cursor !== undefined) {
      context.strokeStyle = colours.accent;
      context.lineWidth = 1.5;
      context.beginPath();
      context.moveTo(x(view.cursor), 2);
      context.lineTo(x(view.cursor), end);
      context.stroke();
    }
  }

  axis(context, area, view, colours) {
    context.strokeStyle = colours.line;
    context.fillStyle = colours.dim;
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    context.lineWidth = 1;
    context.beginPath();
    const step = area.width < 330 ? 4000 : 2000;
    for (let t = Math.max(0, Math.ceil(view.from / step) * step); t <= view.to; t += step) {
      const at = Math.round(area.x(t)) + 0.5;
      context.moveTo(at, 4);
      context.lineTo(at, area.end);
      if (at < area.right - 22 || !this.hello.live) context.fillText(clock(t), at, area.end + 12);
    }
    context.stroke();
    if (this.hello.live) context.fillText("now", area.right, area.end + 12);
  }

  wave(context, lane, area, view, rows, colours) {
    this.window(context, lane, area, view, colours);
    const columns = this.columns[lane.name], middle = lane.y + lane.h / 2, half = lane.h / 2 - 1;
    let most = 8;
    for (let index = 0; index < KEPT; index++) {
      if (columns.t[index] >= view.from) most = Math.max(most, columns.high[index], -columns.low[index]);
    }
    const step = (1000 / this.rate) * (area.width / (view.to - view.from));
    context.fillStyle = colours.wave;
    for (let index = 0; index < KEPT; index++) {
      const t = columns.t[index];
      if (t < view.from || t > view.to + 100) continue;
      const top = middle - (columns.high[index] / most) * half, bottom = middle - (columns.low[index] / most) * half;
      context.fillRect(area.x(t) - step, top, Math.max(step * 0.8, 0.6), Math.max(bottom - top, 0.8));
    }
    return most / 127;
  }

  spectrum(context, lane, area, view, rows, colours) {
    const columns = this.columns[lane.name];
    const step = (1000 / this.rate) * (area.width / (view.to - view.from));
    context.imageSmoothingEnabled = false;
    // Runs of columns that follow each other, in the ring and in time, are drawn at once.
    let begin = -1;
    for (let k = 0; k <= KEPT; k++) {
      const index = (columns.at + k) % KEPT, before = (index + KEPT - 1) % KEPT;
      const seen = k < KEPT && columns.t[index] >= view.from && columns.t[index] <= view.to + 100;
      const follows = begin >= 0 && seen && index > begin && Math.abs(columns.t[index] - columns.t[before] - 1000 / this.rate) < 6;
      if (begin >= 0 && !follows) {
        const n = before - begin + 1, x1 = area.x(columns.t[before]);
        context.drawImage(columns.image, begin, 0, n, columns.bands, x1 - n * step, lane.y, n * step, lane.h);
        begin = -1;
      }
      if (begin < 0 && seen) begin = index;
    }
    this.window(context, lane, area, view, colours, true);
  }

  // The part of the sound that the newest trigger was answered from.
  window(context, lane, area, view, colours, frame = false) {
    const found = view.cut?.[lane.name];
    if (!found) return;
    const x1 = area.x(found[0]), x2 = area.x(found[1]);
    context.fillStyle = colours.shade;
    if (!frame) context.fillRect(x1, lane.y, x2 - x1, lane.h);
    context.strokeStyle = colours.accent;
    context.lineWidth = 1.5;
    context.strokeRect(x1 + 0.75, lane.y + 0.75, x2 - x1 - 1.5, lane.h - 1.5);
  }

  task(context, lane, area, view, rows, colours) {
    context.fillStyle = colours.back;
    context.fillRect(area.left, lane.y, area.width, lane.h);
    if (rows.some((row) => typeof row.tasks[lane.name]?.[2] === "number")) return this.values(context, lane, area, view, rows, colours);
    const found = runs(rows, view, (row) => {
      const answer = row.tasks[lane.name], { text, kind } = spoken(row, answer);
      return { same: `${kind} ${text}`, label: text, kind, key: answer?.[2] };
    });
    for (const run of found) {
      const x1 = area.x(run.begin), x2 = area.x(run.end);
      if (run.kind === "said") {
        context.globalAlpha = 0.3;
        context.fillStyle = labelColour(lane.name, run.key);
        context.fillRect(x1, lane.y, x2 - x1, lane.h);
        context.globalAlpha = 1;
        context.fillRect(x1, lane.y + lane.h - 3, x2 - x1, 3);
      } else if (run.kind === "abstains") hatch(context, x1, lane.y, x2 - x1, lane.h, colours.hatch);
    }
    // The score, from bottom (0) to top (1).
    context.strokeStyle = colours.dim;
    context.lineWidth = 1.2;
    context.beginPath();
    this.line(context, lane, area, view, rows, (row) => row.tasks[lane.name]?.[1], 0, 1);
    context.stroke();
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.font = "600 12px system-ui, sans-serif";
    for (const run of found) {
      const x1 = Math.max(area.x(run.begin), area.left), room = area.x(run.end) - x1 - 6;
      if (run.kind !== "said" || room < 9) continue;
      context.fillStyle = colours.text;
      context.fillText(cut(context, run.label, room), x1 + 4, lane.y + lane.h / 2 - 1);
    }
    context.font = "12px system-ui, sans-serif";
  }

  // A task that gives a number: its line, from the least to the greatest that is seen.
  values(context, lane, area, view, rows, colours) {
    const of = (row) => row.tasks[lane.name]?.[2], seen = rows.map(of).filter((each) => typeof each === "number");
    const low = Math.min(...seen), high = Math.max(...seen);
    context.strokeStyle = labelColour(lane.name, null);
    context.lineWidth = 1.6;
    context.beginPath();
    this.line(context, lane, area, view, rows, of, low, high === low ? low + 1 : high);
    context.stroke();
  }

  // A line through what `of` gives, from bottom (low) to top (high); it breaks where nothing was given.
  line(context, lane, area, view, rows, of, low, high) {
    let before = null;
    for (const row of rows) {
      const value = of(row);
      if (typeof value !== "number") {
        before = null;
        continue;
      }
      const share = Math.max(0, Math.min(1, (value - low) / (high - low)));
      const at = area.x(row.t), y = lane.y + 2 + (1 - share) * (lane.h - 6);
      if (before !== null && row.t - before < view.gap) context.lineTo(at, y);
      else context.moveTo(at, y);
      before = row.t;
    }
  }

  input(context, lane, area, view, rows, colours) {
    const attached = this.hello.attached.includes(lane.name);
    if (!attached) return;
    const high = Math.min(lane.h, 12), y = lane.y + (lane.h - high) / 2;
    for (const run of runs(rows, view, (row) => ({ same: Boolean(row.present[lane.name]) }))) {
      const x1 = area.x(run.begin), x2 = area.x(run.end);
      if (run.same) {
        context.fillStyle = colours.good;
        context.globalAlpha = 0.75;
        context.fillRect(x1, y + high / 2 - 2.5, x2 - x1, 5);
        context.globalAlpha = 1;
      } else hatch(context, x1, y, x2 - x1, high, this.hello.inputs[lane.name].modality === "text" ? colours.hatch : colours.bad);
    }
  }

  skew(context, lane, area, view, rows, colours) {
    const most = Math.max(2, ...rows.map((row) => row.skew + row.unc));
    const y = (value) => lane.y + lane.h - 1 - (Math.max(0, value) / most) * (lane.h - 3);
    context.fillStyle = colours.accent;
    rows.forEach((row, index) => {
      const x = area.x(row.t), wide = area.x(until(rows, index, view)) - x;
      context.globalAlpha = 0.22;
      context.fillRect(x, y(row.skew + row.unc), wide, y(row.skew - row.unc) - y(row.skew + row.unc));
      context.globalAlpha = 1;
      context.fillRect(x, y(row.skew) - 0.7, wide + 0.5, 1.4);
    });
    return most;
  }

  latency(context, lane, area, view, rows, colours) {
    const totals = rows.map((row) => row.total ?? row.ms.reduce((sum, each) => sum + each, 0));
    const sorted = [...totals].sort((a, b) => a - b);
    const most = Math.max(1, (sorted[Math.floor(sorted.length * 0.98)] ?? 1) * 1.15);
    const wide = Math.max(1, area.width / Math.max((view.to - view.from) / 33, 1));
    const bottom = lane.y + lane.h;
    rows.forEach((row, index) => {
      let y = bottom;
      const bar = (value, colour) => {
        const high = (Math.max(0, value) / most) * lane.h;
        context.fillStyle = colour;
        context.fillRect(area.x(row.t) - wide, y - high, wide * 0.86, high);
        y -= high;
      };
      const rest = totals[index] - row.ms.reduce((sum, each) => sum + each, 0);
      row.ms.forEach((value, step) => bar(value, colours.steps[step]));
      if (rest > 0) bar(rest, colours.hatch);
    });
    context.fillStyle = colours.bad;
    let free = -Infinity; // where the text of the loss before ends
    for (const loss of view.losses ?? []) {
      const at = area.x(loss.t);
      context.fillRect(at - 1, lane.y, 2, lane.h);
      context.textAlign = "right";
      context.textBaseline = "top";
      const text = `${loss.n} dropped`, wide = context.measureText(text).width + 8;
      if (at - wide > free) context.fillText(text, at - 4, lane.y + 1);
      free = Math.max(free, at);
    }
    return most;
  }

  value(context, lane, area, row, view, colours, scale) {
    const x = area.right + 8, y = lane.y + lane.h / 2, most = area.margin - 10;
    const say = (text, colour = colours.text, dy = 0) => {
      context.fillStyle = colour;
      context.fillText(cut(context, text, most), x, y + dy);
    };
    context.textBaseline = "middle";
    if (lane.kind === "wave") say(`peak ${scale < 0.1 ? scale.toFixed(3) : scale.toFixed(2)}`, colours.dim);
    if (lane.kind === "spectrum") {
      const highest = Math.min(8000, this.hello.inputs[lane.name].rate_hz / 2);
      say(`to ${(highest / 1000).toFixed(highest % 1000 ? 1 : 0)} kHz`, colours.dim);
    }
    if (!row) return;
    if (lane.kind === "task") {
      const answer = row.tasks[lane.name], { text, kind } = spoken(row, answer);
      say(plain(text, 30), kind === "said" ? colours.text : colours.dim, typeof answer?.[1] === "number" ? -7 : 0);
      if (typeof answer?.[1] === "number") say(score(answer[1]), colours.dim, 7);
    }
    if (lane.kind === "input") {
      const state = view.health?.[lane.name]?.state, attached = this.hello.attached.includes(lane.name);
      if (!attached) say("no source", colours.dim);
      else if (state && state !== "OK") say(state.toLowerCase(), colours.bad);
      else if (!row.present[lane.name]) say("absent", colours.dim);
      else say(`${ms(row.age[lane.name] ?? 0)} old`, colours.dim);
    }
    if (lane.kind === "skew") say(`${row.skew.toFixed(1)} \u00b1 ${row.unc.toFixed(1)}${area.margin < 90 ? "" : " ms"}`, colours.text);
    if (lane.kind === "latency") {
      say(row.total === null || row.total === undefined ? "-" : ms(row.total), colours.text, -7);
      say(`of ${ms(scale)}`, colours.dim, 7);
    }
  }
}

// Rows that follow each other and of which `of` says the same: what it says, from when, and until when.
function runs(rows, view, of) {
  const found = [];
  rows.forEach((row, index) => {
    const said = of(row), end = until(rows, index, view), last = found.at(-1);
    if (last && last.same === said.same && row.t - last.end < 1) last.end = end;
    else found.push({ ...said, begin: row.t, end });
  });
  return found;
}

// Until when a row is drawn: to the next one, unless that is long after.
function until(rows, index, view) {
  const { t } = rows[index], next = rows[index + 1]?.t ?? Math.min(t + view.gap / 4, view.to);
  return next - t > view.gap ? t + view.gap / 8 : next;
}

// The usual time from one result to the next, in ms.
function period(rows) {
  const steps = [];
  for (let index = Math.max(1, rows.length - 60); index < rows.length; index++) steps.push(rows[index].t - rows[index - 1].t);
  return steps.sort((a, b) => a - b)[steps.length >> 1] ?? 40;
}

function cut(context, text, most) {
  let shown = plain(text, 60);
  while (shown.length > 1 && context.measureText(shown).width > most) shown = `${shown.slice(0, -2)}\u2026`;
  return shown;
}

export function clock(t) {
  const s = Math.abs(t) / 1000, minutes = Math.floor(s / 60);
  const digits = (s - minutes * 60).toFixed(Number.isInteger(s) ? 0 : 1);
  return `${t < 0 ? "-" : ""}${minutes}:${s - minutes * 60 < 10 ? "0" : ""}${digits}`;
}
