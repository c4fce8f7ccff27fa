// Captions as said: a line stands there while it is heard; words that are still to come are dimmer, where their times are known.

export class Captions {
  constructor(box, log) {
    this.box = box;
    this.log = log;
    this.line = null;
    this.now = () => 0;
  }

  follow(position, now) {
    this.position = position;
    this.now = now;
    const draw = () => { requestAnimationFrame(draw); this.draw(); };
    draw();
  }

  // `marks` are [when, where in the text]: times from the line's beginning, which was at `start` by the server's clock.
  take({ id, text, start, marks, lasts }) {
    const same = this.line?.id === id && this.line.text === text;
    this.line = { id, text, start, marks: marks ?? [], lasts };
    if (!same) {
      this.said = document.createElement("span");
      this.rest = document.createElement("span");
      this.rest.className = "to-come";
      this.box.replaceChildren(this.said, this.rest);
      this.log.textContent = text;
    }
    this.shown = -1;
    this.box.classList.add("shown");
  }

  clear() {
    this.line = null;
    this.box.classList.remove("shown");
  }

  draw() {
    if (!this.line) return;
    const { text, start, marks } = this.line;
    let reached = text.length;
    if (marks.length) {
      const at = this.now() - start - 60;
      reached = 0;
      for (let i = 0; i < marks.length && marks[i][0] <= at; i++) reached = marks[i + 1]?.[1] ?? text.length;
    }
    if (reached === this.shown) return;
    this.shown = reached;
    this.said.textContent = text.slice(0, reached);
    this.rest.textContent = text.slice(reached);
  }
}
