// Colours of the page, and how figures are written.
const LABELS = {
  light: ["#1f6feb", "#c2410c", "#1a7f37", "#8250df", "#b3245f", "#0e7490", "#9a6700", "#4d5b6b"],
  dark: ["#5fa8ff", "#ff9d57", "#57cf74", "#b995ff", "#ff82b2", "#4fc9dd", "#e3b341", "#a6b3c2"],
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
const listeners = [];
scheme.addEventListener("change", () => {
  read();
  listeners.forEach((each) => each());
});

export const palette = () => colours;
export const onScheme = (listener) => listeners.push(listener);

const known = new Map();
// The same label has the same colour everywhere; labels that come close together get different ones.
export function labelColour(label) {
  if (!known.has(label) && known.size < 4096) known.set(label, known.size);
  return colours.labels[(known.get(label) ?? 0) % colours.labels.length];
}

// Colour of a level 0..255 of the spectrum, as [r, g, b].
export function levelColour(level) {
  const x = level / 255;
  if (!colours.dark) return [255 - 235 * x ** 1.5, 255 - 190 * x ** 1.2, 255 - 110 * x ** 1.6];
  return [23 + 232 * x ** 1.6, 27 + 190 * x ** 1.5 + 20 * x, 34 + 130 * x * (1 - x) * 2 + 60 * x];
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
