// Colours of the page, and how figures are written.
const LABELS = {
  light: ["#1f6feb", "#c2410c", "#8250df", "#0e7490", "#b3245f", "#9a6700", "#4d5b6b", "#1a7f37"],
  dark: ["#5fa8ff", "#ff9d57", "#b995ff", "#4fc9dd", "#ff82b2", "#e3b341", "#a6b3c2", "#57cf74"],
};
const STEPS = {
  light: ["#7b8aa0", "#e0a93a", "#3aa0a8", "#1f6feb", "#8250df"],
  dark: ["#8696ab", "#e3b341", "#4fc9dd", "#5fa8ff", "#b995ff"],
};
const scheme = matchMedia("(prefers-color-scheme: dark)");
let colours = {};

function read() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  colours = Object.fromEntries(
    ["back", "card", "line", "text", "dim", "accent", "good", "warn", "bad", "hatch", "wave", "shade"].map((n) => [n, of(n)]),
  );
  colours.dark = scheme.matches;
  colours.steps = STEPS[scheme.matches ? "dark" : "light"];
  colours.labels = LABELS[scheme.matches ? "dark" : "light"];
}
read();
const listeners = new Set();
scheme.addEventListener("change", () => {
  read();
  listeners.forEach((each) => each());
});

export const palette = () => colours;
// Returns what takes the listener away again.
export function onScheme(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const known = new Map();
// A label keeps its colour; those of one task that are said first get the ones that differ most.
export function labelColour(task, label) {
  if (!known.has(task)) known.set(task, new Map());
  const labels = known.get(task);
  if (!labels.has(label) && labels.size < 4096) labels.set(label, labels.size);
  return colours.labels[(labels.get(label) ?? 0) % colours.labels.length];
}

const RAMPS = {
  light: [[255, 255, 255], [222, 233, 247], [150, 186, 228], [59, 110, 168], [15, 40, 84]],
  dark: [[23, 27, 34], [27, 49, 92], [40, 110, 165], [112, 199, 196], [250, 246, 208]],
};
// Colour of a level 0..255 of the spectrum, as [r, g, b].
export function levelColour(level) {
  const ramp = RAMPS[colours.dark ? "dark" : "light"], at = (level / 255) * (ramp.length - 1);
  const first = Math.min(Math.floor(at), ramp.length - 2), share = at - first;
  return ramp[first].map((value, index) => value + (ramp[first + 1][index] - value) * share);
}

export function ms(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "-";
  const size = Math.abs(value);
  if (size >= 9950) return `${(value / 1000).toFixed(1)} s`;
  return `${value.toFixed(size >= 99.5 ? 0 : 1)} ms`;
}

export const score = (value) => (value === null || value === undefined ? "" : value.toFixed(2));

// Text for a canvas: controls and direction marks are shown as a box, and long texts are cut.
export function plain(text, most = 60) {
  const clean = String(text).replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}]/gu, "\u25a1");
  return clean.length > most ? `${clean.slice(0, most - 1)}\u2026` : clean;
}

export function sized(canvas) {
  const scale = devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  return context;
}

export function hatch(context, x, y, width, height, colour) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.beginPath();
  for (let at = Math.floor((x - height) / 7) * 7; at < x + width; at += 7) {
    context.moveTo(at, y + height);
    context.lineTo(at + height, y);
  }
  context.stroke();
  context.restore();
}
