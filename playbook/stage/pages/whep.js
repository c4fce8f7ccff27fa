// A stream by WHEP: the browser receives it, the server does the signalling and gives the viewer's place back.

const GATHER_MS = 2000, ANSWER_MS = 15000, AGAIN_MS = 1500, STALL_MS = 3000;

export class WhepRenderer {
  constructor({ stage, sound, link, viewer, notice, report, face }) {
    Object.assign(this, { stage, sound, link, viewer, notice, report, face });
  }

  open() {
    this.video = document.createElement("video");
    Object.assign(this.video, { autoplay: true, playsInline: true, muted: true });
    this.video.setAttribute("aria-label", "The avatar");
    this.stream = new MediaStream();
    this.connect();
    this.watching = setInterval(() => this.watch(), 1000);
  }

  async connect() {
    const peer = this.peer = new RTCPeerConnection({ iceServers: this.viewer.ice ?? [], bundlePolicy: "max-bundle",
      iceTransportPolicy: this.viewer.relay ? "relay" : "all" });
    peer.addTransceiver("audio", { direction: "recvonly" });
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.ontrack = ({ track }) => this.take(track);  // tracks, not streams: each comes in a stream of its own
    peer.onconnectionstatechange = () => {
      if (this.peer === peer && ["failed", "closed"].includes(peer.connectionState)) this.again("The stream was lost. Connecting again…");
      this.report();
    };
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    if (this.peer !== peer) return;
    this.link.send({ type: "offer", sdp: peer.localDescription.sdp });
    this.waiting = setTimeout(() => this.again("The stream did not answer. Trying again…"), ANSWER_MS);
  }

  async answer({ sdp, reason }) {
    clearTimeout(this.waiting);
    if (!sdp) return this.again(reason);
    try {
      await this.peer.setRemoteDescription({ type: "answer", sdp });
      this.notice("");
    } catch (error) { this.again(`The stream's answer cannot be used: ${error.message}`); }
  }

  take(track) {
    this.stream.addTrack(track);
    if (track.kind === "audio") this.sound.listen(new MediaStream([track]));
    if (this.video.srcObject !== this.stream) this.video.srcObject = this.stream;
    if (!this.video.isConnected) { this.face.svg.setAttribute("hidden", ""); this.stage.append(this.video); }
    this.voice();
  }

  // Sound only where the browser allows it; a picture without sound starts by itself.
  voice() {
    this.video.muted = !this.sound.running;
    this.video.play().catch(() => { this.video.muted = true; this.video.play().catch(() => {}); });
  }

  silence() { this.video.muted = true; }

  async watch() {
    if (this.video.muted && this.sound.running && !this.hushed) this.voice();
    const peer = this.peer;
    if (!peer || peer.connectionState !== "connected") return;
    let bytes = 0;
    for (const each of (await peer.getStats()).values()) if (each.type === "inbound-rtp") bytes += each.bytesReceived ?? 0;
    if (bytes !== this.bytes) { this.bytes = bytes; this.movedAt = Date.now(); }
    this.report();
  }

  stalled() { return !this.peer || this.peer.connectionState !== "connected" || Date.now() - (this.movedAt ?? Date.now()) > STALL_MS; }

  again(reason) {
    if (this.over) return;
    this.notice(reason ?? "");
    this.drop();
    this.retry = setTimeout(() => this.connect(), AGAIN_MS);
  }

  drop() {
    clearTimeout(this.waiting);
    const peer = this.peer;
    this.peer = null;
    this.sound.stopListening();
    for (const track of this.stream.getTracks()) this.stream.removeTrack(track);
    peer?.close();
  }

  close() {
    this.over = true;
    clearTimeout(this.retry);
    clearInterval(this.watching);
    this.drop();
    this.link.send({ type: "leave" });
    this.video.remove();
    this.face.svg.removeAttribute("hidden");
  }
}

function gathered(peer) {
  if (peer.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((done) => {
    setTimeout(done, GATHER_MS);
    peer.addEventListener("icegatheringstatechange", () => { if (peer.iceGatheringState === "complete") done(); });
  });
}
