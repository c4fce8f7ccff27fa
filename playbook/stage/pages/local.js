// The local voice: its sound is played by the page, and the face is drawn with its mouth shapes.

const AHEAD_MS = 25;  // a mouth begins to move before it sounds

export class LocalRenderer {
  constructor({ face, sound }) {
    this.face = face;
    this.sound = sound;
  }

  open() {
    this.face.svg.removeAttribute("hidden");
    const draw = () => {
      this.frame = requestAnimationFrame(draw);
      const heard = this.sound.position();
      if (!heard) return this.face.shape("rest");
      if (!heard.line.shapes.length) return this.face.level(this.sound.level());
      this.face.shape(shapeAt(heard.line.shapes, heard.at + AHEAD_MS));
    };
    draw();
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.face.shape("rest");
  }
}

// The shape that holds at a time; shapes are [from when, which], in order.
export function shapeAt(shapes, at) {
  let low = 0, high = shapes.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (shapes[middle][0] <= at) low = middle + 1; else high = middle;
  }
  return low ? shapes[low - 1][1] : "rest";
}
