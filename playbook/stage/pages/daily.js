// A room of Daily's: by daily-js from its public address, pinned; else the room's own page in a frame.

const DAILY_JS = "https://unpkg.com/@daily-co/daily-js@0.92.2/dist/daily.js";
const INTEGRITY = "sha384-qkOcWks7O6ZM0W8bDQRvE2Zigs/pWm7ioqYeangGqWoaqMEFUNeAKYLp8J+qWiUS";
const LOAD_MS = 8000;
const LETTER_MS = 65;
const LETTERS = Object.fromEntries(Object.entries({ closed: "pbm", lip: "fv", tongue: "ln", teeth: "tdszr", hush: "j", open: "a", mid: "e", wide: "iy", round: "o",
  small: "uw", rest: " .,;:!?" }).flatMap(([shape, letters]) => [...letters].map((letter) => [letter, shape])));

export class DailyRenderer {
  constructor({ stage, sound, link, viewer, notice, report, face, captions }) {
    Object.assign(this, { stage, sound, link, viewer, notice, report, face, captions });
  }

  async open() {
    if (!this.viewer.room_url) return this.notice("The room's address is not known: only captions can be shown here.");
    if (!this.viewer.room_url.startsWith("https:")) return this.mime("This is an emulated room: it has no sound, and the face is ours.");
    try {
      await library();
      await this.join();
    } catch (error) {
      if (this.over) return;
      this.leave();
      const why = `Daily's library could not be used (${error?.errorMsg ?? error?.message ?? "it did not load"}): `;
      if (this.viewer.token) return this.mime(`${why}the room is private, so that only captions can be shown, with a face of ours.`);
      this.notice(`${why}this is the room's own page. What is heard is not measured.`);
      this.frame(this.viewer.room_url);
    }
  }

  // Our face, with the lines' own letters for its mouth: what is shown of a room without sound, or that cannot be entered.
  mime(why) {
    this.notice(why);
    const draw = () => {
      this.frames = requestAnimationFrame(draw);
      const line = this.captions.line;
      const letter = line?.text[Math.floor((this.link.now() - line.start) / LETTER_MS)]?.toLowerCase();
      this.face.shape(letter === undefined ? "rest" : LETTERS[letter] ?? "back");
    };
    this.mimed = true;
    draw();
  }

  async join() {
    this.video = document.createElement("video");
    Object.assign(this.video, { autoplay: true, playsInline: true, muted: true });
    this.video.setAttribute("aria-label", "The avatar");
    this.stream = new MediaStream();
    const call = this.call = globalThis.Daily.createCallObject({ videoSource: false, audioSource: false, dailyConfig: { avoidEval: true } });
    call.on("track-started", ({ participant, track }) => { if (participant && !participant.local) this.take(track); });
    call.on("track-stopped", ({ track }) => { if (track) this.stream.removeTrack(track); this.report(); });
    call.on("error", ({ errorMsg }) => this.notice(errorMsg ?? "The room was lost."));
    await call.join({ url: this.viewer.room_url, ...(this.viewer.token ? { token: this.viewer.token } : {}), userName: "audience" });
  }

  take(track) {
    for (const old of this.stream.getTracks()) if (old.kind === track.kind) this.stream.removeTrack(old);
    this.stream.addTrack(track);
    if (track.kind === "audio") this.sound.listen(new MediaStream([track]));
    this.video.srcObject = this.stream;
    if (!this.video.isConnected) { this.face.svg.setAttribute("hidden", ""); this.stage.append(this.video); }
    this.voice();
    this.report();
  }

  voice() {
    if (this.kept) { this.inner.src = this.kept; this.kept = null; }
    if (!this.video) return;
    this.video.muted = !this.sound.running;
    this.video.play().catch(() => { this.video.muted = true; this.video.play().catch(() => {}); });
  }

  silence() {
    if (this.video) this.video.muted = true;
    if (this.inner && !this.kept) { this.kept = this.inner.src; this.inner.src = "about:blank"; }  // nobody can turn down a frame
  }

  // The room's own page. A token would have to be part of its address, and is not given away.
  frame(address) {
    this.inner = document.createElement("iframe");
    Object.assign(this.inner, { src: address, title: "The avatar's room", allow: "autoplay; fullscreen", referrerPolicy: "no-referrer" });
    this.face.svg.setAttribute("hidden", "");
    this.stage.append(this.inner);
  }

  stalled() { return this.inner || this.mimed ? false : !this.stream?.getTracks().some((track) => track.kind === "audio" && !track.muted); }

  leave() {
    this.sound.stopListening();
    this.call?.destroy?.().catch?.(() => {});
    this.call = null;
    this.video?.remove();
  }

  close() {
    this.over = true;
    cancelAnimationFrame(this.frames);
    if (this.mimed) this.notice("");
    this.leave();
    this.inner?.remove();
    this.face.svg.removeAttribute("hidden");
  }
}

let loading;
function library() {
  return loading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: DAILY_JS, integrity: INTEGRITY, crossOrigin: "anonymous", onload: done });
    script.onerror = () => { loading = null; failed(new Error("it did not load")); };
    setTimeout(() => failed(new Error("it did not load in time")), LOAD_MS);
    document.head.append(script);
  });
}
