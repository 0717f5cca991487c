// A terminal in a container, in a document of its own: xterm.js makes style elements, which the page doesn't allow.
// The address has "#exec=ID" of an exec with a terminal, or "#container=ID" of a container with one.

import { Terminal } from "/static/vendor/xterm.js";
import { FitAddon } from "/static/vendor/xterm-fit.js";

const chosen = new URLSearchParams(location.hash.slice(1));
const exec = chosen.get("exec");
const id = encodeURIComponent(exec ?? chosen.get("container"));
const dark = parent.document.documentElement.dataset.theme
  ? parent.document.documentElement.dataset.theme === "dark"
  : matchMedia("(prefers-color-scheme: dark)").matches;

const terminal = new Terminal({
  cursorBlink: true,
  fontSize: 13,
  fontFamily: "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace",
  theme: dark ? { background: "#0d1117", foreground: "#dbe2ea" } : { background: "#ffffff", foreground: "#1c2128", cursor: "#1c2128", selectionBackground: "#b6d3fb" },
  scrollback: 5000,
  screenReaderMode: true,
});
const fit = new FitAddon();
terminal.loadAddon(fit);
terminal.open(document.getElementById("terminal"));
fit.fit();

const scheme = location.protocol === "https:" ? "wss" : "ws";
const target = exec ? `wharf/v1/exec/${id}/ws?h=${terminal.rows}&w=${terminal.cols}` : `containers/${id}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1`;
const socket = new WebSocket(`${scheme}://${location.host}/api/${target}`);
socket.binaryType = "arraybuffer";
const encoder = new TextEncoder();

function resize() {
  fit.fit();
  const url = `/api/${exec ? "exec" : "containers"}/${id}/resize?h=${terminal.rows}&w=${terminal.cols}`;
  fetch(url, { method: "POST", headers: { "X-CSRF-Token": parent.document.body.dataset.csrf } });
}

socket.addEventListener("open", () => {
  terminal.onData((text) => socket.send(encoder.encode(text)));
  terminal.onBinary((text) => socket.send(Uint8Array.from(text, (each) => each.charCodeAt(0))));
  let timer = 0;
  new ResizeObserver(() => {
    clearTimeout(timer);
    timer = setTimeout(resize, 100);
  }).observe(document.getElementById("terminal"));
  terminal.focus();
});
socket.addEventListener("message", ({ data }) => terminal.write(typeof data === "string" ? data : new Uint8Array(data)));
socket.addEventListener("close", () => {
  terminal.write("\r\n\x1b[2m[the connection was closed]\x1b[0m\r\n");
  parent.postMessage("closed", location.origin);
});
