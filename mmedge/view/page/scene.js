// The pictures, with what tasks say of them, and the answers.
import { hatch, labelColour, ms, palette, plain, score, sized } from "./palette.js";

export function made(tag, kind, parent, text = "") {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text) element.textContent = text;
  parent.append(element);
  return element;
}

export class Scene {
  constructor(name, parent, hello) {
    this.name = name;
    this.hello = hello;
    this.box = made("div", "scene", parent);
    this.canvas = made("canvas", "", this.box);
    this.canvas.setAttribute("role", "img");
    this.title = made("span", "title", this.box, name);
    this.age = made("span", "age", this.box);
    this.bitmap = null;
    this.boxes = [];
    this.t = null;
    this.canvas.width = 640;
    this.canvas.height = 480;
  }

  async take(told, data) {
    const bitmap = await createImageBitmap(new Blob([data], { type: "image/jpeg" }));
    this.bitmap?.close();
    this.bitmap = bitmap;
    this.boxes = told.boxes;
    this.t = told.t;
    this.shown = (this.shown ?? 0) + 1;
  }

  close() {
    this.bitmap?.close();
  }

  // row: the newest result; now: ms of the run; health: of this input
  draw(row, now, health) {
    const { canvas, bitmap } = this;
    const width = bitmap?.width ?? 640, height = bitmap?.height ?? 360;
    // As many pixels as the screen has there: what is written on a small picture is as sharp as on a large one.
    const wide = Math.round(Math.max(width, Math.min(canvas.clientWidth * (devicePixelRatio || 1), 2048))), scale = wide / width;
    if (canvas.width !== wide || canvas.height !== Math.round(height * scale)) {
      canvas.width = wide;
      canvas.height = Math.round(height * scale);
      canvas.style.aspectRatio = `${width} / ${height}`;
    }
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.fillStyle = "#15181d";
    context.fillRect(0, 0, width, height);
    // How large a line of text is, in pixels of the picture, to be the same size on every screen.
    const unit = width / Math.max(canvas.clientWidth, 1);
    const attached = this.hello.attached.includes(this.name);
    const absent = row !== null && row.present[this.name] === false;
    const down = health && health.state !== "OK";
    if (bitmap) context.drawImage(bitmap, 0, 0);
    if (absent || down || !bitmap) {
      context.fillStyle = "rgba(10, 12, 16, 0.62)";
      context.fillRect(0, 0, width, height);
      if (absent || down) hatch(context, 0, 0, width, height, "rgba(255, 255, 255, 0.10)");
      const why = !attached
        ? "no source"
        : absent || down
          ? reasonOf(row, this.name) ?? health?.reason ?? "absent"
          : this.hello.privacy === "none"
            ? "pictures stay on the device (privacy: none)"
            : "no picture yet";
      const title = absent ? "absent" : down ? health.state.toLowerCase() : "";
      const more = absent && down && health.reason && health.reason !== why ? `${health.state.toLowerCase()}: ${health.reason}` : "";
      centred(context, [title, plain(why, 90), plain(more, 140)], width, height, unit);
    } else {
      for (const box of this.boxes) drawBox(context, box, width, height, unit);
    }
    this.box.classList.toggle("absent", Boolean(absent || down));
    const said = absent || down ? `absent: ${reasonOf(row, this.name) ?? health?.reason ?? "no data"}` : `${this.boxes.length} boxes`;
    if (this.said !== said) this.canvas.setAttribute("aria-label", `${this.name}, ${plain((this.said = said), 160)}`);
    const age = this.t === null ? null : now - this.t;
    this.age.textContent = age === null ? "" : `${ms(Math.max(age, 0))} old`;
    this.age.classList.toggle("late", age !== null && age > 1000 && this.hello.live);
    this.age.hidden = age === null || !this.hello.live;
    this.title.textContent = this.name + (this.hello.privacy === "blur" ? " (blurred)" : "");
  }
}

export function reasonOf(row, name) {
  const found = row?.reason?.split("; ").find((part) => part.startsWith(`${name}: `));
  return found ? found.slice(name.length + 2) : null;
}

function centred(context, lines, width, height, unit) {
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = "#ffffff";
  let y = height / 2 - (lines[0] ? 12 * unit : 0);
  lines.forEach((line, index) => {
    if (!line) return;
    context.font = `${index ? 500 : 700} ${(index ? 13 : 19) * unit}px system-ui, sans-serif`;
    for (const part of wrapped(context, line, width * 0.9)) {
      context.fillText(part, width / 2, y);
      y += (index ? 18 : 25) * unit;
    }
  });
}

function wrapped(context, text, most) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = lines.at(-1) ? `${lines.at(-1)} ${word}` : word;
    if (context.measureText(longer).width > most && lines.at(-1)) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines.slice(0, 4);
}

function drawBox(context, [task, label, value, x1, y1, x2, y2], width, height, unit) {
  const [left, top, right, bottom] = [x1 * width, y1 * height, x2 * width, y2 * height];
  const colour = labelColour(task, label);
  context.strokeStyle = colour;
  context.lineWidth = 2 * unit;
  context.strokeRect(left, top, right - left, bottom - top);
  const text = `${plain(label, 32)} ${score(value)}`;
  context.font = `600 ${12 * unit}px system-ui, sans-serif`;
  context.textAlign = "left";
  context.textBaseline = "middle";
  const wide = context.measureText(text).width + 8 * unit, high = 17 * unit;
  const x = Math.max(0, Math.min(left, width - wide)), y = top >= high ? top - high : Math.min(top, height - high);
  context.fillStyle = colour;
  context.fillRect(x, Math.max(y, 0), wide, high);
  context.fillStyle = palette().dark ? "#0e1116" : "#ffffff";
  context.fillText(text, x + 4 * unit, Math.max(y, 0) + high / 2);
}

export class Answer {
  constructor(name, told, parent) {
    this.name = name;
    this.box = made("div", "answer", parent);
    const head = made("div", "task", this.box);
    made("span", "", head, name);
    this.score = made("span", "figures", head);
    this.label = made("div", "label", this.box);
    this.bar = made("i", "", made("div", "bar", this.box));
    if (told.smoothing) made("div", "how", this.box, told.smoothing);
  }

  draw(row, stale) {
    const answer = row?.tasks[this.name];
    const { text, kind } = spoken(row, answer);
    this.label.textContent = plain(text, 80);
    this.label.classList.toggle("none", kind !== "said" || stale);
    this.score.textContent = answer && typeof answer[1] === "number" ? score(answer[1]) : "";
    this.bar.style.width = `${Math.round(100 * Math.max(0, Math.min(1, answer?.[1] ?? 0)))}%`;
    const colour = kind === "said" && !stale ? labelColour(this.name, typeof answer[2] === "number" ? null : answer[2]) : palette().hatch;
    this.box.style.borderLeftColor = colour;
    this.bar.style.background = colour;
  }
}

// What a task says, and whether it says something (said), abstains, or cannot know (undefined).
export function spoken(row, answer) {
  if (!row) return { text: "-", kind: "undefined" };
  if (!answer) return { text: "no answer", kind: "undefined" };
  if (answer[0] !== null) return { text: answer[0], kind: "said" };
  if (answer[1] !== null && answer[1] !== undefined) return { text: "abstains", kind: "abstains" };
  return { text: row.valid ? "undefined" : "mask not validated", kind: "undefined" };
}
