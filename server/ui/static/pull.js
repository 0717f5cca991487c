// The pull of an image, with the progress of each layer.

import { html, useEffect, useRef, useState } from "/static/ui.js";
import { api, lines } from "/static/api.js";
import { bytes } from "/static/format.js";
import { toast } from "/static/ui.js";

// The parts of a reference for the API: [image, tag or digest].
export function reference(text) {
  const found = text.trim();
  if (found.includes("@")) return [found, ""];
  const at = found.lastIndexOf(":");
  return at > found.lastIndexOf("/") ? [found.slice(0, at), found.slice(at + 1)] : [found, "latest"];
}

// Progress is kept here, not in the dialog: a pull goes on when the dialog is closed.
const pulls = new Map();
let draw = () => {};

export async function pull(text) {
  const [fromImage, tag] = reference(text);
  const progress = { layers: new Map(), state: "running", last: "" };
  pulls.set(text, progress);
  draw();
  try {
    const answer = await api.post("/images/create", { fromImage, tag });
    for await (const found of lines(answer)) {
      for (const line of found) {
        const message = line.trim() ? JSON.parse(line) : {};
        if (message.error) throw new Error(message.error);
        if (message.id && (message.progressDetail || progress.layers.has(message.id))) {
          const { current = 0, total = 0 } = message.progressDetail ?? {};
          progress.layers.set(message.id, { status: message.status, current, total });
        } else if (message.status) {
          progress.last = message.status;
        }
      }
      draw();
    }
    progress.state = "done";
    toast(`${text}: ${progress.last || "pulled"}`, "good");
  } catch (error) {
    progress.state = "failed";
    progress.last = error.message;
    toast(`${text}: ${error.message}`);
  }
  draw();
  setTimeout(() => (pulls.delete(text), draw()), 15000);
}

export function Pulls() {
  const [, set] = useState(0);
  const frame = useRef(0);
  useEffect(() => {
    draw = () => (frame.current ||= requestAnimationFrame(() => ((frame.current = 0), set((n) => n + 1))));
    draw();
    return () => (draw = () => {});
  }, []);
  return [...pulls].map(
    ([text, progress]) => html`<section class="card pull" key=${text} aria-label="Pull of ${text}">
      <h3>${text} <span class="muted" role="status">${progress.last}</span></h3>
      ${[...progress.layers].map(([id, layer]) => html`<div class="layer" key=${id}>
        <code>${id}</code> <progress aria-label="Layer ${id}" max=${layer.total || 1} value=${layer.total ? layer.current : /complete|exists/i.test(layer.status) ? 1 : 0}></progress>
        <span class="muted small">${layer.status} ${layer.total ? `${bytes(layer.current)} of ${bytes(layer.total)}` : ""}</span></div>`)}
    </section>`,
  );
}
