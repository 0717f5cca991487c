// The state that all screens share: containers, the engine's events and the samples, kept current by one stream.
// It is closed while the page is hidden: a browser opens at most six connections to a server.

import { api, own } from "/static/api.js";

const listeners = new Map();

// Calls `handler` for each message of a kind: "containers" (the list has changed), "samples", "engine", "connection".
export function on(kind, handler) {
  if (!listeners.has(kind)) listeners.set(kind, new Set());
  listeners.get(kind).add(handler);
  return () => listeners.get(kind).delete(handler);
}

function tell(kind, value) {
  for (const handler of [...(listeners.get(kind) ?? [])]) handler(value);
}

export const state = {
  containers: new Map(), // by id: the rows of GET /containers/json
  samples: { time: 0, machine: null, containers: {} },
  trends: new Map(), // by id: {cpu: [...], memory: [...]}, the last values
  connected: false,
  loaded: false,
};

const TREND = 40;
let source = null;
let changed = new Set();
let everything = true;
let timer = 0;
let loading = false;

function trend(id) {
  let found = state.trends.get(id);
  if (!found) state.trends.set(id, (found = { cpu: [], memory: [] }));
  return found;
}

function push(values, value) {
  values.push(value);
  if (values.length > TREND) values.splice(0, values.length - TREND);
}

function sampled(message) {
  state.samples = message;
  for (const [id, [cpu, memory]] of Object.entries(message.containers)) {
    const found = trend(id);
    push(found.cpu, cpu);
    push(found.memory, memory);
  }
  tell("samples", message);
}

const QUIET = /^(exec_|top|archive-path|extract-to-dir|export|attach|detach|resize|commit|copy)/;

function happened(event) {
  if (event.Type === "container" && !QUIET.test(event.Action)) {
    changed.add(event.Actor.ID);
    schedule();
  } else if (event.Type === "network" && /connect/.test(event.Action) && event.Actor.Attributes.container) {
    changed.add(event.Actor.Attributes.container);
    schedule();
  }
  tell("engine", event);
}

function schedule() {
  if (!timer && !loading) timer = setTimeout(reload, everything ? 0 : 150);
}

async function reload() {
  timer = 0;
  loading = true;
  const ids = changed;
  const all = everything || ids.size > 60;
  changed = new Set();
  everything = false;
  try {
    const rows = await api.get("/containers/json", { all: 1, filters: all ? undefined : { id: [...ids] } });
    if (all) state.containers.clear();
    else for (const id of ids) state.containers.delete(id);
    for (const row of rows) state.containers.set(row.Id, row);
    for (const id of state.trends.keys()) if (!state.containers.has(id)) state.trends.delete(id);
    state.loaded = true;
    tell("containers", all ? null : ids);
  } catch (error) {
    everything = true;
    console.warn(error.message);
    await new Promise((done) => setTimeout(done, 2000));
  } finally {
    loading = false;
    if (changed.size || everything) schedule();
  }
}

async function past() {
  const found = await own.get("/trends", { seconds: 200 });
  for (const [id, points] of Object.entries(found)) {
    const known = trend(id);
    if (!known.cpu.length) {
      known.cpu = points.cpu.slice(-TREND);
      known.memory = points.memory.slice(-TREND);
    }
  }
}

function open() {
  if (source) return;
  source = new EventSource("/live");
  source.addEventListener("open", () => {
    state.connected = true;
    everything = true;
    schedule();
    tell("connection", true);
  });
  source.addEventListener("error", () => {
    if (state.connected) {
      state.connected = false;
      tell("connection", false);
    }
    // A browser opens a lost stream again, but not one that was refused: its session may have ended.
    if (source?.readyState === EventSource.CLOSED) {
      source = null;
      setTimeout(() => own.get("/trends", { seconds: 5 }).catch(() => {}).then(() => document.hidden || open()), 1000);
    }
  });
  source.addEventListener("engine", (message) => happened(JSON.parse(message.data)));
  source.addEventListener("samples", (message) => sampled(JSON.parse(message.data)));
  source.addEventListener("end", () => location.replace("/login"));
}

function close() {
  source?.close();
  source = null;
}

export function start() {
  // What the rows say of their age ("Up 3 minutes") grows old without an event.
  setInterval(() => source && ((everything = true), schedule()), 60000);
  past().catch(() => {});
  open();
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
}
