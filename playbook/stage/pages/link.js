// A page's socket: the token from the address, the server's clock, and a new try whenever it is lost.

const RETRY_MS = [250, 500, 1000, 2000];

export const parameters = new URLSearchParams(location.search);
const token = new URLSearchParams(location.hash.slice(1)).get("token");

export class Link {
  // `on` has a function for each type of message, `binary` for sounds, `open` and `lost`.
  constructor(path, hello, on) {
    this.url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
    this.hello = hello;
    this.on = on;
    this.tries = 0;
    this.offset = null;
    this.best = Infinity;
    this.connect();
  }

  connect() {
    const socket = this.socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.best = Infinity;
      this.offset = null;
      socket.send(JSON.stringify({ ...this.hello(), ...(token ? { token } : {}) }));
      this.ping();
      this.pings = setInterval(() => this.ping(), 1500);
    };
    let early = [];  // what comes before the server's clock is known
    socket.onmessage = ({ data }) => {
      const message = typeof data === "string" ? JSON.parse(data) : { type: "binary", data };
      if (message.type === "pong") {
        this.pong(message);
        for (const each of early.splice(0)) this.take(each);
      } else if (this.offset === null) early.push(message);
      else this.take(message);
    };
    socket.onclose = ({ code }) => {
      clearInterval(this.pings);
      if (this.opened !== false) this.on.lost?.(code);
      this.opened = false;
      if (code === 4401) return;
      setTimeout(() => this.connect(), RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)]);
    };
  }

  take(message) {
    if (!this.opened) { this.tries = 0; this.opened = true; this.on.open?.(); }
    this.on[message.type]?.(message);
  }

  ping() { this.send({ type: "ping", at: performance.now(), rtt: this.best === Infinity ? null : this.best }); }

  // The quickest answer tells best how the two clocks differ.
  pong({ at, now }) {
    const rtt = performance.now() - at;
    if (rtt <= this.best) { this.best = rtt; this.offset = now - (at + rtt / 2); }
    else this.best += 0.05;  // so that a clock that drifts is found out
  }

  // The server's clock, in milliseconds.
  now() { return performance.now() + (this.offset ?? 0); }

  send(message) {
    if (this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(typeof message === "string" ? message : JSON.stringify(message));
    return true;
  }
}

export async function signal(name, body = {}) {
  const answer = await fetch(`/api/signal/${encodeURIComponent(name)}`, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...(token ? { Authorization: `Bearer ${token}` } : {}) },
    body: JSON.stringify(body),
  });
  if (answer.ok) return null;
  const told = await answer.json().catch(() => ({}));
  return told.reason ?? `the server answered ${answer.status}`;
}
