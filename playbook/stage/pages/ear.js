// The ear: in the audio thread, it tells when sound begins and when it has ended. Times are of the audio clock.

const LOUD = 0.006, QUIET = 0.0035;  // of full scale; between them nothing changes
const STEADY_S = 0.012, HANG_S = 0.2;  // a click is no speech; a gap between two words is no end

class Ear extends AudioWorkletProcessor {
  constructor() {
    super();
    this.sounding = false;
    this.since = null;  // since when the level has been on the other side
    this.lastLoud = 0;
  }

  process([input]) {
    const channel = input[0];
    let peak = 0;
    if (channel) for (const x of channel) peak = Math.max(peak, Math.abs(x));
    const end = currentTime + (channel ? channel.length : 128) / sampleRate;
    if (peak > LOUD) this.lastLoud = end;
    if (!this.sounding) {
      if (peak <= LOUD) { if (peak < QUIET) this.since = null; }
      else {
        this.since ??= currentTime;
        if (end - this.since >= STEADY_S) this.turn(true, this.since);
      }
    } else if (peak < QUIET && currentTime - this.lastLoud >= HANG_S) this.turn(false, this.lastLoud);
    return true;
  }

  turn(sounding, at) {
    this.sounding = sounding;
    this.since = null;
    this.port.postMessage({ kind: sounding ? "sound" : "silence", at });
  }
}
registerProcessor("ear", Ear);
