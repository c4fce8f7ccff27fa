// The audience's page: joins, shows the viewer that the session offers, and its captions.

import { Captions } from "./captions.js";
import { Face } from "./face.js";
import { Link, parameters, signal } from "./link.js";
import { LocalRenderer } from "./local.js";
import { Sound } from "./sound.js";

const $ = (id) => document.getElementById(id);
const face = new Face(document.querySelector(".face"));
const captions = new Captions($("captions"), $("spoken"));
const page = sessionStorage.page ??= crypto.randomUUID?.() ?? String(Math.random()).slice(2);
const RENDERERS = { local: async () => LocalRenderer, none: async () => Card, captions: async () => Card, whep: async () => (await import("./whep.js")).WhepRenderer,
  daily: async () => (await import("./daily.js")).DailyRenderer };

let renderer = null, viewer = null, told = null, turn = 0;

const link = new Link("/api/audience", () => ({ page }), {
  open() { told = null; notice(""); report(); },
  lost(code) {
    sound.silence();
    drop();
    notice(code === 4401 ? "This page needs the whole address that the stage printed." : code === 4429 ? "Too many pages are open." : "The stage is not there. Waiting for it…");
  },
  stage({ title, colours }) { document.title = title; if (viewer?.kind === "none") $("card").textContent = title; face.colour({ ...colours, ...Object.fromEntries(parameters) }); },
  viewer({ viewer: offered }) { show(offered); },
  caption: (message) => captions.take(message),
  clear: () => captions.clear(),
  extend: (message) => sound.extend(message),
  cut: (message) => sound.cut(message),
  silence() { sound.silence(); renderer?.silence?.(); captions.clear(); },
  voice() { renderer?.voice?.(); },
  answer: (message) => renderer?.answer?.(message),
  reload: () => location.reload(),
  binary: ({ data }) => sound.take(data),
});
const sound = new Sound(link, (kind, ago_ms) => link.send({ type: "edge", kind, ago_ms }));

captions.follow(() => sound.position(), () => link.now());
document.body.classList.add(`captions-${parameters.get("captions") === "off" ? "off" : parameters.get("size") ?? "medium"}`);
face.colour(Object.fromEntries(parameters));

// --- whether sound is allowed ---

function report() {
  const state = sound.running ? (document.hidden ? "hidden" : "ready") : "blocked";
  const stalled = renderer?.stalled?.() ?? false;
  const now = stalled ? "stalled" : state;
  if (now !== told && link.send({ type: "status", status: now })) told = now;
  $("veil").hidden = sound.running;
}

const begins = parameters.has("begin");
if (begins) {
  $("start-label").textContent = "Begin the show";
  $("start-hint").textContent = "The browser plays sound after a click.";
}
let begun = false;
async function start() {
  await sound.wake();
  report();
  if (!begins || begun) return;
  begun = true;
  history.replaceState(null, "", location.pathname + location.hash);
  await signal("go");
}
$("start").addEventListener("click", start);
document.addEventListener("keydown", (event) => { if (!sound.running && (event.key === " " || event.key === "Enter")) start(); });
sound.context.addEventListener("statechange", report);
document.addEventListener("visibilitychange", report);
sound.ready.then(() => setTimeout(() => { report(); if (begins && sound.running) start(); else if (!sound.running) $("start").focus(); }, 150));
setInterval(report, 1000);

// --- what is shown ---

// A show that somebody else's face performs, while there is none: its title. On a page that a stream has no room for, its captions.
class Card {
  constructor({ viewer }) { this.title = viewer.kind === "none" ? document.title : ""; }

  open() {
    face.svg.setAttribute("hidden", "");
    $("card").textContent = this.title;
    $("card").hidden = false;
  }

  close() {
    $("card").hidden = true;
    face.svg.removeAttribute("hidden");
  }
}

async function show(offered) {
  const mine = ++turn;
  drop();
  told = null;
  viewer = offered;
  const Renderer = await RENDERERS[offered?.kind ?? "local"]();
  if (mine !== turn) return;
  renderer = new Renderer({ stage: $("stage"), face, sound, link, viewer: offered, notice, report, captions });
  renderer.open?.();
  report();
}

function drop() {
  renderer?.close?.();
  renderer = null;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

Object.assign(globalThis, { stage: { sound, face, link, captions, get renderer() { return renderer; } } });
