// The face: mouth shapes, blinking, gaze, breath. It draws; when to draw what is said by whoever has the sound.

// width (half), opening above and below the line, corners (up is a smile), lips (how thick), teeth above and below, tongue: in the drawing's units
const SHAPES = {
  rest:   { w: 45, up: -1, down: 2,  corner: 10, lip: 6,   teeth: 0,  low: 0, tongue: 0 },
  closed: { w: 43, up: 0,  down: 0,  corner: 4,  lip: 6,   teeth: 0,  low: 0, tongue: 0 },
  lip:    { w: 42, up: 5,  down: 3,  corner: 4,  lip: 7,   teeth: 10, low: 0, tongue: 0 },
  tongue: { w: 43, up: 7,  down: 12, corner: 4,  lip: 8,   teeth: 8,  low: 0, tongue: 20 },
  teeth:  { w: 47, up: 6,  down: 7,  corner: 5,  lip: 8,   teeth: 9,  low: 6, tongue: 0 },
  hush:   { w: 31, up: 9,  down: 11, corner: 0,  lip: 12,  teeth: 8,  low: 6, tongue: 0 },
  back:   { w: 42, up: 7,  down: 14, corner: 4,  lip: 8,   teeth: 7,  low: 0, tongue: 10 },
  open:   { w: 46, up: 13, down: 40, corner: 3,  lip: 9,   teeth: 13, low: 0, tongue: 14 },
  mid:    { w: 50, up: 10, down: 25, corner: 5,  lip: 9,   teeth: 12, low: 0, tongue: 12 },
  wide:   { w: 56, up: 7,  down: 13, corner: 8,  lip: 8,   teeth: 11, low: 0, tongue: 8 },
  round:  { w: 31, up: 15, down: 29, corner: -1, lip: 11,  teeth: 8,  low: 0, tongue: 10 },
  small:  { w: 21, up: 8,  down: 12, corner: -2, lip: 13,  teeth: 0,  low: 0, tongue: 0 },
};
const KEYS = Object.keys(SHAPES.rest);
const X = 300, Y = 396;

export class Face {
  constructor(svg) {
    this.svg = svg;
    this.part = (name) => svg.querySelector(`[data-part="${name}"]`);
    this.parts = (name) => [...svg.querySelectorAll(`[data-part="${name}"]`)];
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.mouth = { ...SHAPES.rest };
    this.target = SHAPES.rest;
    this.energy = 0;
    this.blinkAt = 1800;
    this.gazeAt = 900;
    this.gaze = { x: 0, y: 0, toX: 0, toY: 0 };
    this.last = 0;
    this.refs = {
      head: this.part("head"), body: this.part("body"), brows: this.part("brows"), lips: this.part("lips"),
      opening: this.part("opening"), clip: this.part("opening-clip"), teeth: this.part("teeth"), low: this.part("teeth-low"),
      tongue: this.part("tongue"), gaze: this.parts("gaze"), lids: this.parts("lid"), lashes: this.parts("lash"),
    };
    this.frame = this.frame.bind(this);
    requestAnimationFrame(this.frame);
  }

  // Colours by name, as CSS knows them; what is no colour is left out.
  colour(colours) {
    for (const [name, value] of Object.entries(colours)) {
      if (["skin", "hair", "shirt", "iris", "lips", "backdrop"].includes(name) && CSS.supports("color", value)) {
        const root = document.documentElement.style;
        if (name !== "backdrop") root.setProperty(`--${name}`, value);
        else {
          root.setProperty("--backdrop-1", `color-mix(in oklab, ${value} 80%, white)`);
          root.setProperty("--backdrop-2", value);
          root.setProperty("--backdrop-3", `color-mix(in oklab, ${value} 72%, black)`);
        }
      }
    }
  }

  // A mouth shape by its name, or an opening between 0 and 1 where only the level of the sound is known.
  shape(name, strength = 1) {
    this.svg.dataset.shape = SHAPES[name] ? name : "rest";
    this.target = blend(SHAPES.rest, SHAPES[name] ?? SHAPES.rest, strength);
  }

  level(value) {
    const open = Math.min(1, value * 3.2);
    this.svg.dataset.shape = open > 0.12 ? "open" : "rest";
    this.target = open > 0.04 ? blend(SHAPES.back, SHAPES.open, open) : SHAPES.rest;
  }

  frame(now) {
    const passed = Math.min(100, now - this.last);
    this.last = now;
    const quick = 1 - Math.exp(-passed / 26);  // a shape is nine tenths there after 60 ms
    this.mouth = blend(this.mouth, this.target, quick);
    const speaking = this.target !== SHAPES.rest ? 1 : 0;
    this.energy += (speaking - this.energy) * (1 - Math.exp(-passed / 240));
    this.drawMouth();
    this.drawEyes(now, passed);
    this.drawPose(this.still.matches ? 0 : now / 1000);
    requestAnimationFrame(this.frame);
  }

  drawMouth() {
    const { w, up, down, corner, lip, teeth, low, tongue } = this.mouth;
    const left = X - w, right = X + w, side = Y - corner, top = Y - up, bottom = Y + Math.max(down, 0.8);
    const k = w * 0.56;
    const mid = (low) => side + (low - side) * 0.74;
    const inner = `M${f(left)} ${f(side)} C${f(left + w * 0.2)} ${f(top)} ${f(X - k)} ${f(top)} ${X} ${f(top)}`
      + ` C${f(X + k)} ${f(top)} ${f(right - w * 0.2)} ${f(top)} ${f(right)} ${f(side)}`
      + ` C${f(right - w * 0.06)} ${f(mid(bottom))} ${f(X + k)} ${f(bottom)} ${X} ${f(bottom)}`
      + ` C${f(X - k)} ${f(bottom)} ${f(left + w * 0.06)} ${f(mid(bottom))} ${f(left)} ${f(side)}Z`;
    const above = top - lip * 0.72, below = bottom + lip * 1.25, out = lip * 0.55;
    this.refs.lips.setAttribute("d",
      `M${f(left - out)} ${f(side - 0.5)} C${f(X - w * 0.62)} ${f(above + 1)} ${f(X - w * 0.3)} ${f(above - lip * 0.42)} ${X} ${f(above + lip * 0.1)}`
      + ` C${f(X + w * 0.3)} ${f(above - lip * 0.42)} ${f(X + w * 0.62)} ${f(above + 1)} ${f(right + out)} ${f(side - 0.5)}`
      + ` C${f(right - w * 0.02)} ${f(mid(below))} ${f(X + k)} ${f(below)} ${X} ${f(below)}`
      + ` C${f(X - k)} ${f(below)} ${f(left + w * 0.02)} ${f(mid(below))} ${f(left - out)} ${f(side - 0.5)}Z`);
    this.refs.opening.setAttribute("d", inner);
    this.refs.clip.setAttribute("d", inner);
    set(this.refs.teeth, { x: f(X - w * 0.86), width: f(w * 1.72), y: f(top - 12), height: f(12 + teeth), opacity: f(Math.min(1, teeth / 4)) });
    set(this.refs.low, { x: f(X - w * 0.72), width: f(w * 1.44), y: f(bottom - low), opacity: f(Math.min(1, low / 4)) });
    set(this.refs.tongue, { cy: f(bottom + 12 - tongue), rx: f(w * 0.66), ry: f(8 + tongue * 0.5) });
  }

  drawEyes(now, passed) {
    if (now > this.gazeAt) {
      const wander = this.still.matches ? 0 : 1;
      this.gaze.toX = (Math.random() - 0.5) * 8 * wander;
      this.gaze.toY = (Math.random() - 0.5) * 4 * wander;
      this.gazeAt = now + 700 + Math.random() * 2600;
    }
    const quick = 1 - Math.exp(-passed / 45);
    this.gaze.x += (this.gaze.toX - this.gaze.x) * quick;
    this.gaze.y += (this.gaze.toY - this.gaze.y) * quick;
    const eye = `translate(${f(this.gaze.x)} ${f(this.gaze.y)})`;
    for (const each of this.refs.gaze) each.setAttribute("transform", eye);
    let shut = 0;
    if (now > this.blinkAt) {
      const t = (now - this.blinkAt) / 190;
      shut = t >= 1 ? 0 : Math.sin(Math.PI * Math.min(1, t)) ** 0.6;
      if (t >= 1) this.blinkAt = now + (Math.random() < 0.12 ? 180 : 1800 + Math.random() * 3800);
    }
    const lid = f(shut * 44);
    for (const each of this.refs.lids) each.setAttribute("transform", `translate(0 ${lid})`);
    for (const each of this.refs.lashes) each.setAttribute("transform", `translate(0 ${f(shut * 38)})`);
  }

  drawPose(t) {
    const sway = Math.sin(t * 0.71) * 0.9 + Math.sin(t * 0.43 + 1) * 0.6;
    const nod = this.energy * (Math.sin(t * 3.1) * 1.8 + Math.sin(t * 5.3) * 0.9);
    const breath = Math.sin(t * 1.25);
    this.refs.head.setAttribute("transform",
      `translate(${f(sway * 2.2)} ${f(breath * 1.6 + nod * 1.5)}) rotate(${f(sway * 0.62 + nod * 0.22)} 300 500)`);
    this.refs.body.setAttribute("transform", `translate(0 ${f(breath * 2.2)})`);
    this.refs.brows.setAttribute("transform", `translate(0 ${f(-this.energy * (t ? 2.5 + Math.sin(t * 1.9) * 2.5 : 2))})`);
  }
}

function blend(from, to, share) {
  const mixed = {};
  for (const key of KEYS) mixed[key] = from[key] + (to[key] - from[key]) * share;
  return mixed;
}
function set(node, values) { for (const [name, value] of Object.entries(values)) node.setAttribute(name, value); }
function f(number) { return number.toFixed(2); }
