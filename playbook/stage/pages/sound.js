// Sound in the page: lines that the server sends are played to the sample, and an ear listens to whatever is heard.

const BUFFER_MS = 60;  // every sound is so much late, so that its beginning has come when it is due

export class Sound {
  constructor(link, edge) {
    this.link = link;
    this.edge = edge;
    this.playing = new Map();
    this.context = new AudioContext({ latencyHint: "interactive" });
    this.out = this.context.createGain();
    this.out.connect(this.context.destination);
    this.heard = this.context.createGain();  // what the ear listens to
    this.out.connect(this.heard);
    this.meter = new AnalyserNode(this.context, { fftSize: 512 });
    this.heard.connect(this.meter);
    this.wave = new Float32Array(512);
    this.ready = this.context.audioWorklet.addModule("/static/ear.js").then(() => {
      const ear = this.ear = new AudioWorkletNode(this.context, "ear", { numberOfOutputs: 0 });
      ear.port.onmessage = ({ data }) => this.tell(data);
      this.heard.connect(ear);
    });
  }

  get running() { return this.context.state === "running"; }

  async wake() { await this.context.resume(); }

  // An edge happened at a time of the audio clock; its age is counted on that clock, and what the loudspeaker is behind is taken off.
  tell({ kind, at }) {
    const behind = this.context.outputLatency || this.context.baseLatency || 0;
    this.edge(kind, Math.max(0, Math.round((this.context.currentTime - at - behind) * 1000)));
  }

  // The level of what is heard now, from 0 to 1.
  level() {
    this.meter.getFloatTimeDomainData(this.wave);
    let sum = 0;
    for (const x of this.wave) sum += x * x;
    return Math.sqrt(sum / this.wave.length);
  }

  // A message of the server's: the length of a header, the header as JSON, a WAV.
  take(data) {
    const view = new DataView(data), size = view.getUint32(0);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
    const buffer = this.read(data.slice(4 + size));
    const line = { ...header, buffer, source: null };
    this.playing.set(header.id, line);
    this.begin(line);
  }

  read(wav) {
    const view = new DataView(wav), rate = view.getUint32(24, true), samples = new Int16Array(wav, 44);
    const buffer = this.context.createBuffer(1, Math.max(1, samples.length), rate), channel = buffer.getChannelData(0);
    for (let i = 0; i < samples.length; i++) channel[i] = samples[i] / 32768;
    return buffer;
  }

  // Start it where it is by now: at its beginning, or, for a page that comes late, in the middle.
  begin(line) {
    const due = line.start + BUFFER_MS - this.link.now();
    const late = Math.max(0, -due - 40) / 1000;
    const from = line.from / 1000 + late, lasts = (line.to - line.from) / 1000 - late;
    if (lasts <= 0) return;
    const source = line.source = new AudioBufferSourceNode(this.context, { buffer: line.buffer });
    source.connect(this.out);
    line.began = this.context.currentTime + Math.max(0, due) / 1000;
    line.offset = from;
    source.start(line.began, from, lasts);
    source.onended = () => { if (line.source === source) this.playing.delete(line.id); };
  }

  // Its end has moved: more of it has come.
  extend({ id, to }) {
    const line = this.playing.get(id);
    if (!line) return;
    line.source?.stop();
    line.to = to;
    this.begin(line);
  }

  cut({ id }) {
    const line = this.playing.get(id);
    if (!line) return;
    line.source?.stop();
    this.playing.delete(id);
  }

  silence() {
    for (const id of [...this.playing.keys()]) this.cut({ id });
  }

  // The line that is heard at this moment, and how far it is, in its own milliseconds.
  position() {
    const behind = this.context.outputLatency || this.context.baseLatency || 0;
    const now = this.context.currentTime - behind;
    for (const line of this.playing.values()) {
      const at = (now - line.began + line.offset) * 1000;
      if (line.source && at >= line.from && at < line.to) return { line, at };
    }
    return null;
  }

  // Listen to a track that somebody else plays.
  listen(stream) {
    this.stopListening();
    this.remote = this.context.createMediaStreamSource(stream);
    this.remote.connect(this.heard);
  }

  stopListening() {
    this.remote?.disconnect();
    this.remote = null;
  }
}
