// The operator's page: the state as it changes, and the signals.

import { Link, signal } from "./link.js";

const $ = (id) => document.getElementById(id);
const PHASES = { idle: "Ready", opening: "Opening", waiting: "Waiting", running: "Live", closing: "Closing" };
const VIEWERS = {
  joined: ["joined", "Sees and hears the show."],
  blocked: ["no sound yet", "Its browser wants a click on the page before it plays sound."],
  stalled: ["stalled", "The page is hidden, or its picture or sound stands still."],
};

let state = null, rows = new Map(), pressed = 0;

const link = new Link("/api/operator", () => ({}), {
  open() { document.body.classList.remove("lost"); },
  lost(code) {
    document.body.classList.add("lost");
    $("phase").textContent = code === 4401 ? "No token" : "Offline";
    $("now-text").textContent = code === 4401 ? "Open the whole address that the stage printed: its end is the token." : "The stage is not there. Waiting for it…";
  },
  state(message) { state = message.state; build(); show(); },
  change(message) {
    const steps = new Map(state.steps.map((step) => [step.id, step]));
    for (const step of message.state.steps) steps.set(step.id, step);
    state = { ...message.state, steps: [...steps.values()] };
    show();
  },
});

// --- signals ---

async function send(name, body) {
  try {
    const reason = await signal(name, body);
    if (reason && reason !== "taken for the one before") toast(`${name}: ${reason}`);
  } catch { toast("The stage did not answer."); }
}

function toast(text) {
  $("toast").textContent = text;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { $("toast").textContent = ""; }, 4000);
}

const hold = () => send(state?.held ? "resume" : "hold");
$("go").addEventListener("click", () => send("go"));
$("hold").addEventListener("click", hold);
$("skip").addEventListener("click", () => send("skip"));
$("panic").addEventListener("click", () => send("panic"));
$("end").addEventListener("click", () => {
  const sure = Date.now() - pressed < 3000;
  pressed = sure ? 0 : Date.now();
  if (sure) send("end");
  sureness();
  setTimeout(sureness, 3050);
});
function sureness() {
  const asked = Date.now() - pressed < 3000;
  $("end").classList.toggle("sure", asked);
  $("end-label").textContent = asked ? "Press again to end" : "End";
}

// Space is GO wherever the focus is; Enter presses what has the focus.
const KEYS = { " ": () => send("go"), h: hold, s: () => send("skip"), Escape: () => send("panic") };
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (key === "ArrowDown" || key === "ArrowUp") return move(event, key === "ArrowDown" ? 1 : -1);
  if (!KEYS[key]) return;
  event.preventDefault();
  if (!event.repeat) KEYS[key]();
});
document.addEventListener("keyup", (event) => { if (event.key === " ") event.preventDefault(); });

function move(event, by) {
  const buttons = [...$("cues").querySelectorAll("button")], at = buttons.indexOf(document.activeElement);
  if (at < 0) return;
  event.preventDefault();
  buttons[Math.max(0, Math.min(buttons.length - 1, at + by))].focus();
}

// --- the cue sheet ---

function make(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function build() {
  rows = new Map();
  const items = state.steps.map((step) => {
    const item = make("li"), button = make("button");
    button.type = "button";
    const parts = { item, button, when: make("span", "when"), what: make("span", "what"), tag: make("span", "tag"), why: make("span", "why") };
    button.append(parts.when, parts.what, parts.tag, parts.why);
    button.addEventListener("click", () => send("goto", { step: step.id }));
    item.append(button);
    rows.set(step.id, parts);
    return item;
  });
  $("cues").replaceChildren(...items);
}

function show() {
  document.body.dataset.phase = state.phase;
  document.body.classList.toggle("held", state.held);
  const broken = state.problems.some((problem) => problem.severity === "error");
  $("phase").textContent = state.held ? "Held" : PHASES[state.phase];
  $("playbook").textContent = state.playbook;
  document.title = `${state.phase === "running" ? "● " : ""}${state.playbook} · operator`;
  $("provider").textContent = `performed by ${state.provider}`;
  for (const step of state.steps) row(step);
  now();
  problems(broken);
  audience();
  session();
  result();
  const idle = state.phase === "idle";
  able("go", idle ? !broken : Boolean(state.awaits));
  able("hold", !idle && state.phase !== "closing");
  able("skip", state.phase === "running");
  able("end", !idle);
  $("go-label").textContent = state.awaits && state.awaits !== "go" ? `GO · ${state.awaits}` : "GO";
  $("hold").setAttribute("aria-pressed", state.held);
  $("hold-label").textContent = state.held ? "Resume" : "Hold";
}

function able(id, yes) { $(id).setAttribute("aria-disabled", !yes); }

function row(step) {
  const { item, button, when, what, tag, why } = rows.get(step.id);
  const says = step.verb === "say";
  item.className = `step ${step.state}${says ? " says" : ""}`;
  const current = step.state === "running";
  if (current && !button.hasAttribute("aria-current")) item.scrollIntoView({ block: "nearest" });
  current ? button.setAttribute("aria-current", "step") : button.removeAttribute("aria-current");
  const [time, doubt] = due(step);
  when.replaceChildren(time, ...(doubt ? [make("small", "", doubt)] : []));
  what.replaceChildren(step.text, make("small", "", step.name || step.id));
  what.firstChild && (what.lang = says ? document.querySelector("#now-text").lang : "en");
  tag.className = `tag${step.evidence ? ` grade ${step.evidence}` : ""}`;
  tag.textContent = step.speaking ? "speaking" : step.evidence ?? { standby: "standing by", running: "now", skipped: "skipped", failed: "failed", done: "" }[step.state] ?? "";
  const told = [step.late_ms ? `${step.late_ms} ms late` : "", step.reason ?? ""].filter(Boolean).join("; ");
  why.textContent = told;
  why.hidden = !told;
}

// When a step comes: by the clock while the show goes on, else from its beginning; and how sure that is.
function due(step) {
  const started = step.started_ms !== null && step.state !== "pending" && step.state !== "standby";
  const at = started ? step.started_ms : step.due_ms;
  if (at === null || step.state === "skipped") return ["", ""];
  const text = state.at_ms === null ? clock(at) : wall(at - state.at_ms + state.clock_ms - link.now());
  if (started || step.band_ms === 0) return [text, ""];
  return step.band_ms === null ? [text, "or later"] : [text, `± ${Math.max(1, Math.round(step.band_ms / 1000))} s`];
}

function clock(ms) {
  const s = Math.max(0, Math.floor(ms / 1000)), h = Math.floor(s / 3600), two = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
}
function wall(fromNow) { return new Date(Date.now() + fromNow).toLocaleTimeString("en-GB"); }

function now() {
  const current = state.steps.find((step) => step.id === state.step), next = following();
  const waits = state.awaits ? `Waits for ${state.awaits === "go" ? "GO" : `“${state.awaits}”`}` : null;
  const text = waits ?? current?.text ?? { idle: state.result ? "The show is over." : "Nothing is being performed.", opening: "The session is being opened…", waiting: "The session is open.", closing: "The session is being closed…" }[state.phase] ?? "";
  if ($("now-text").textContent !== text) {
    $("now-text").textContent = text;
    $("spoken").textContent = `${$("phase").textContent}: ${text}`;
  }
  document.body.classList.toggle("speaking", Boolean(current?.speaking));
  $("next").hidden = !next;
  if (next) {
    $("next-text").textContent = next.text;
    $("next-due").textContent = due(next).join(" ");
  }
}

// What somebody who listens will notice next: the line that comes, or what is waited for.
function following() {
  const from = state.steps.findIndex((step) => step.id === state.next);
  if (from < 0) return null;
  const coming = state.steps.slice(from).filter((step) => step.state !== "skipped");
  return coming.find((step) => step.verb === "say" || step.verb === "audio-echo" || step.band_ms === null) ?? coming[0];
}

function problems(broken) {
  $("problems").hidden = !state.problems.length;
  $("problems").className = broken ? "" : "warnings";
  $("problems-label").textContent = broken ? "Problems" : "Warnings";
  $("problems-hint").textContent = broken ? "The file cannot be performed as it is now. What is being performed goes on." : "";
  const text = state.problems.map((problem) => problem.text);
  if (problems.shown !== text.join("\n\n")) {
    problems.shown = text.join("\n\n");
    $("problem-list").replaceChildren(...text.map((each) => make("pre", "", each)));
  }
}

function audience() {
  const items = state.viewers.length ? state.viewers.map(({ state: of }) => {
    const [word, hint] = VIEWERS[of], item = make("li");
    item.append(make("span", of, word), make("span", "hint", hint));
    return item;
  }) : [make("li", "soft", "Nobody watches yet.")];
  $("viewers").replaceChildren(...items);
}

function session() {
  const facts = [];
  if (state.session) {
    facts.push(["Id", state.session.id], ["Open for", clock(state.session.age_ms)]);
    if (state.session.cost !== null) facts.push(["Cost so far", state.session.cost.toFixed(2)]);
    if (state.session.left_ms !== null) facts.push(["Time left", clock(state.session.left_ms)]);
    if (state.session.reason) facts.push(["Note", state.session.reason]);
  } else facts.push(["State", "none is open"]);
  for (const { source, evidence } of state.sources) facts.push([`Evidence: ${source}`, evidence]);
  $("session").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", value)]));
}

function result() {
  $("result-box").hidden = !state.result;
  if (!state.result) return;
  $("result").textContent = state.result.end + (state.result.reason ? `: ${state.result.reason}` : "");
  $("result").className = state.result.end === "passed" ? "good" : state.result.end === "stopped" ? "" : "bad";
  $("folder").textContent = state.result.folder ?? "";
}

// --- what moves by itself ---

function tick() {
  requestAnimationFrame(tick);
  if (document.body.classList.contains("lost") || !state) return;
  $("clock").textContent = new Date().toLocaleTimeString("en-GB");
  const at = state.at_ms === null || state.held ? state.at_ms : state.at_ms + link.now() - state.clock_ms;
  $("at").textContent = at === null ? "–:––" : clock(at);
  const last = state.steps[state.steps.length - 1], ends = last && state.at_ms !== null ? due(last) : null;
  $("ends").textContent = ends ? ends[0] : last ? clock(last.due_ms ?? 0) : "";
  $("ends-box").firstElementChild.textContent = ends ? "Ends" : "Lasts";
  const current = state.steps.find((step) => step.id === state.step);
  const share = current?.length_ms && at !== null ? Math.min(1, Math.max(0, (at - current.started_ms) / current.length_ms)) : 0;
  $("bar").firstElementChild.style.transform = `scaleX(${share})`;
}
tick();
