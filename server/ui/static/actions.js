// What a user does with containers, with confirmation where something is lost.

import { api, path } from "/static/api.js";
import { plural, bytes } from "/static/format.js";
import { ask, attempt, html, toast } from "/static/ui.js";

export const nameOf = (row) => (row.Names?.[0] ?? row.Id.slice(0, 12)).replace(/^\//, "");

const post = (row, action) => api.post(`${path`/containers/${row.Id}`}/${action}`, {}, { again: action === "start" || action === "stop" });

export const start = (row) => attempt(() => post(row, "start"));
export const stop = (row) => attempt(() => post(row, "stop"));
export const restart = (row) => attempt(() => post(row, "restart"));
export const pause = (row) => attempt(() => post(row, "pause"));
export const unpause = (row) => attempt(() => post(row, "unpause"));

export async function kill(row) {
  const sure = await ask({
    title: `Kill ${nameOf(row)}?`,
    text: "Its processes end at once (SIGKILL). They can't save what they have not written.",
    action: "Kill",
    danger: true,
  });
  return sure && attempt(() => post(row, "kill"));
}

export async function remove(row) {
  const running = ["running", "paused", "restarting"].includes(row.State);
  const sure = await ask({
    title: `Remove ${nameOf(row)}?`,
    text: `${running ? "It runs, and is killed. " : ""}Its writable layer and its log are lost.`,
    fields: html`<label class="check"><input type="checkbox" name="volumes" /> Also its anonymous volumes</label>`,
    action: "Remove",
    danger: true,
  });
  if (!sure) return false;
  return attempt(
    () => api.delete(path`/containers/${row.Id}`, { force: running ? 1 : undefined, v: sure.volumes ? 1 : undefined }),
    `${nameOf(row)} was removed.`,
  );
}

export async function removeStopped(rows) {
  const stopped = rows.filter((row) => ["exited", "created", "dead"].includes(row.State));
  const sure = await ask({
    title: `Remove ${plural(stopped.length, "stopped container")}?`,
    fields: html`<ul class="preview">${stopped.map((row) => html`<li>${nameOf(row)} <span class="muted">${row.Status}</span></li>`)}</ul>`,
    action: "Remove",
    danger: true,
  });
  if (sure) await attempt(() => api.post("/containers/prune"), `${plural(stopped.length, "container")} removed.`);
}

// Removes what is not used, and shows how much disk space came back.
export const prune = (url, query) =>
  attempt(async () => {
    const answer = await (await api.post(url, query)).json();
    toast(`${bytes(answer.SpaceReclaimed ?? 0)} of disk space came back.`, "good");
  });
