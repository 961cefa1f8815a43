// The connection: one binary message at a time, confirmed when it was drawn, and opened again when it is lost.
const DECODER = new TextDecoder();

export class Link {
  // on: {hello(header), tick(header, blobs), notice(text)}
  constructor(on) {
    this.on = on;
    this.lostAt = performance.now();
    this.waitMs = 250;
    this.socket = null;
  }

  async open() {
    const token = new URLSearchParams(location.hash.slice(1)).get("token");
    if (token !== null) {
      history.replaceState(null, "", location.pathname);
      try {
        const answer = await fetch("enter", { method: "POST", body: token });
        if (!answer.ok) this.refused = true;
      } catch {
        // the server is away: the socket says so below
      }
    }
    this.connect();
  }

  connect() {
    const socket = new WebSocket(`ws://${location.host}/feed`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    let opened = false;
    socket.onmessage = ({ data }) => {
      const { header, blobs } = unpack(data);
      if (header.kind === "hello") {
        opened = true;
        this.refused = false;
        this.waitMs = 250;
        this.on.hello(header);
      } else if (header.kind === "notice") {
        this.on.notice(header.text);
      } else {
        // a tick, or why a trigger saw what it saw
        this.lostAt = performance.now();
        Promise.resolve(this.on.tick(header, blobs)).finally(() => {
          if (socket.readyState === WebSocket.OPEN) socket.send('{"ack":true}');
        });
      }
    };
    socket.onclose = ({ code }) => {
      this.socket = null;
      this.full = code === 1013;
      if (!opened) this.waitMs = Math.min(this.waitMs * 1.5, 3000);
      setTimeout(() => this.connect(), this.waitMs);
    };
  }

  get alive() {
    return this.socket !== null && this.socket.readyState === WebSocket.OPEN;
  }

  silentS() {
    return (performance.now() - this.lostAt) / 1000;
  }

  send(message) {
    if (!this.alive) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }
}

function unpack(data) {
  const length = new DataView(data).getUint32(0, true);
  const header = JSON.parse(DECODER.decode(new Uint8Array(data, 4, length)));
  let at = 4 + length;
  const next = (size) => {
    const blob = new Uint8Array(data, at, size);
    at += size;
    return blob;
  };
  const blobs = {
    pictures: (header.pictures ?? []).map((each) => next(each.bytes)),
    sound: (header.sound ?? []).map((each) => next(each.bytes)),
  };
  return { header, blobs };
}
