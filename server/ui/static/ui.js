// Parts of all screens.

import { html, render, Component, useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback } from "/static/vendor/preact.js";
import { on } from "/static/live.js";

export { html, render, Component, useEffect, useLayoutEffect, useMemo, useRef, useState, useCallback };

const PATHS = {
  box: "M3 7l9-4 9 4v10l-9 4-9-4zM3 7l9 4 9-4M12 11v10",
  stack: "M12 3l9 5-9 5-9-5zM3 12l9 5 9-5M3 16l9 5 9-5",
  layers: "M4 5h16v4H4zM4 10.500h16v4H4zM4 16h16v4H4z",
  disk: "M4 6c0-1.700 3.600-3 8-3s8 1.300 8 3-3.600 3-8 3-8-1.300-8-3zM4 6v12c0 1.700 3.600 3 8 3s8-1.300 8-3V6M4 12c0 1.700 3.600 3 8 3s8-1.300 8-3",
  chip: "M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4",
  play: "M8 5l11 7-11 7z",
  stop: "M6 6h12v12H6z",
  restart: "M20 11a8 8 0 1 0-2.300 6.300M20 5v6h-6",
  bolt: "M13 2L5 14h6l-1 8 8-12h-6z",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v6M14 11v6",
  pause: "M8 5v14M16 5v14",
  down: "M12 4v12M6 11l6 6 6-6M4 21h16",
  up: "M12 20V8M6 13l6-6 6 6M4 3h16",
  file: "M6 3h8l4 4v14H6zM14 3v4h4",
  folder: "M3 6h6l2 2h10v11H3z",
  link: "M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1.500 1.500M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1.500-1.500",
  moon: "M20 14a8 8 0 1 1-10-10 7 7 0 0 0 10 10z",
  exit: "M14 4h5v16h-5M10 8l-4 4 4 4M6 12h9",
  eye: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7-10-7-10-7zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16 16l5 5",
  close: "M6 6l12 12M18 6L6 18",
  more: "M5 12h.01M12 12h.01M19 12h.01",
};

export const Icon = ({ name }) =>
  html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;

// A button with an icon only; `label` is its accessible name and tooltip.
export const IconButton = ({ icon, label, ...rest }) =>
  html`<button type="button" class="iconbutton" title=${label} aria-label=${label} ...${rest}><${Icon} name=${icon} /></button>`;

// Draws again after each message of these kinds.
export function useLive(...kinds) {
  const [, draw] = useState(0);
  useEffect(() => {
    let wanted = 0;
    const later = () => {
      if (!wanted) wanted = requestAnimationFrame(() => ((wanted = 0), draw((n) => n + 1)));
    };
    const ends = kinds.map((kind) => on(kind, later));
    return () => (cancelAnimationFrame(wanted), ends.forEach((end) => end()));
  }, []);
}

// The result of `load`, loaded when `keys` change and by `again`: {value, error, again}.
export function useLoaded(load, keys) {
  const [found, set] = useState({});
  const number = useRef(0);
  const again = useCallback(async () => {
    const mine = (number.current += 1);
    try {
      const value = await load();
      if (mine === number.current) set({ value });
    } catch (error) {
      if (mine === number.current) set((before) => ({ value: before.value, error }));
    }
  }, keys);
  useEffect(() => {
    set({});
    again();
    return () => (number.current += 1);
  }, keys);
  return { ...found, again };
}

// Calls `handler` for the engine's events of these types, at most twice a second.
export function useEngine(types, handler, keys = []) {
  useEffect(() => {
    let timer = 0;
    const end = on("engine", (event) => {
      if (types.includes(event.Type) && !timer) timer = setTimeout(() => ((timer = 0), handler()), 500);
    });
    return () => (clearTimeout(timer), end());
  }, keys);
}

const STATES = {
  running: "good", healthy: "good", paused: "warn", restarting: "warn", starting: "warn", removing: "warn",
  unhealthy: "bad", dead: "bad", exited: "off", created: "off",
};

export const State = ({ name }) => html`<span class="state ${STATES[name] ?? "off"}">${name}</span>`;

// The word for a row of the list: the health tells more than "running".
export function stateOf(row) {
  const health = row.Health?.Status ?? /\((healthy|unhealthy|health: starting)\)/.exec(row.Status)?.[1];
  if (row.State === "running" && health === "unhealthy") return "unhealthy";
  if (row.State === "running" && health === "healthy") return "healthy";
  if (row.State === "running" && /starting/.test(health ?? "")) return "starting";
  return row.State;
}

const WIDTH = 80;
const HEIGHT = 20;

// The points of a sparkline. `top`: the smallest value that fills the height.
export function sparkPoints(values, top) {
  if (!values || values.length < 2) return "";
  const most = Math.max(top, ...values.map((value) => value ?? 0));
  const step = WIDTH / (values.length - 1);
  return values
    .map((value, at) => (value === null ? "" : `${(at * step).toFixed(1)},${(HEIGHT - 1 - (value / most) * (HEIGHT - 2)).toFixed(1)}`))
    .join(" ");
}

export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

export const Skeleton = ({ rows = 4 }) =>
  html`<div class="skeleton" role="status" aria-label="Loading">${Array.from({ length: rows }, () => html`<div></div>`)}</div>`;

export const Problem = ({ error }) => (error ? html`<p class="problem" role="alert">${error.message}</p>` : null);

// messages

let toasts = [];
let drawToasts = () => {};

export function toast(text, kind = "bad") {
  const entry = { text, kind, key: Math.random() };
  toasts = [...toasts.slice(-3), entry];
  drawToasts();
  setTimeout(() => dismiss(entry), kind === "bad" ? 12000 : 4000);
}

function dismiss(entry) {
  toasts = toasts.filter((each) => each !== entry);
  drawToasts();
}

export function Toasts() {
  const [, draw] = useState(0);
  drawToasts = () => draw((n) => n + 1);
  return html`<div class="toasts" role="status" aria-live="polite">
    ${toasts.map(
      (entry) => html`<div key=${entry.key} class="toast ${entry.kind}">
        <span>${entry.text}</span><${IconButton} icon="close" label="Dismiss" onClick=${() => dismiss(entry)} />
      </div>`,
    )}
  </div>`;
}

// Runs an action of the user; a refusal is shown as a message. Returns whether it was done.
export async function attempt(action, done) {
  try {
    await action();
    if (done) toast(done, "good");
    return true;
  } catch (error) {
    if (error.name !== "AbortError") toast(error.message);
    return false;
  }
}

// dialogs

let asked = null;
let drawAsked = () => {};

// Asks; resolves to the values of its form, or to null. `fields`: content with named inputs. `danger`: of the button.
export function ask({ title, text, fields, action = "OK", danger = false }) {
  return new Promise((resolve) => {
    asked = { title, text, fields, action, danger, resolve };
    drawAsked();
  });
}

export function Asked() {
  const [, draw] = useState(0);
  const dialog = useRef();
  drawAsked = () => draw((n) => n + 1);
  useLayoutEffect(() => {
    if (asked && !dialog.current.open) dialog.current.showModal();
  });
  if (!asked) return null;
  const finish = (value) => {
    const { resolve } = asked;
    asked = null;
    resolve(value);
    draw((n) => n + 1);
  };
  return html`<dialog ref=${dialog} class="dialog" aria-labelledby="asked" onClose=${() => asked && finish(null)}>
    <form method="dialog" onSubmit=${(event) => (event.preventDefault(), finish(Object.fromEntries(new FormData(event.target))))}>
      <h2 id="asked">${asked.title}</h2>
      ${asked.text && html`<p>${asked.text}</p>`} ${asked.fields}
      <div class="buttons">
        <button type="button" onClick=${() => finish(null)}>Cancel</button>
        <button type="submit" class=${asked.danger ? "danger" : "primary"}>${asked.action}</button>
      </div>
    </form>
  </dialog>`;
}

// Tabs by the hash: `items` are [name, title, href].
export const Tabs = ({ items, chosen, label }) =>
  html`<nav class="tabs" aria-label=${label}>
    ${items.map(
      ([name, title, href]) => html`<a href=${href} aria-current=${name === chosen ? "page" : undefined}>${title}</a>`,
    )}
  </nav>`;

export function download(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
