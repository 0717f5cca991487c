// The machine: its use, GPUs and who holds them, users and their shares, the health of the engine.

import { html } from "/static/ui.js";
import { Empty, Problem, Skeleton, useEngine, useLive, useLoaded } from "/static/ui.js";
import { state } from "/static/live.js";
import { api, own, session } from "/static/api.js";
import { ago, bytes, percent, plural, time } from "/static/format.js";
import { Timelines } from "/static/timeline.js";
import { Use } from "/static/use.js";

// Endpoints of an engine with a policy; without one they are refused, and nothing is shown.
const optional = (url, query) => (session.policy ? api.get(url, query) : Promise.resolve(null));

const who = (name) => name || "administrators";

function Gpus() {
  const { value } = useLoaded(() => optional("/wharf/v1/gpus"), []);
  const queue = useLoaded(() => optional("/wharf/v1/queue"), []);
  if (!value?.length) return null;
  return html`<section class="card"><h2>GPUs</h2><table class="list"><thead><tr><th scope="col">Device</th><th scope="col">Held by</th></tr></thead><tbody>${value.map((gpu) => html`<tr key=${gpu.Name}><td>${gpu.Name}</td><td>${(gpu.Holders ?? []).length ? gpu.Holders.map((holder) => html`<span>${who(holder.User)} <a href="#/containers/${holder.Container}">${holder.ContainerName}</a> <span class="muted">since ${time(holder.Since)}</span> </span>`) : html`<span class="muted">free</span>`}</td></tr>`)}</tbody></table>
    ${queue.value?.length > 0 && html`<h3>Waiting</h3><table class="list"><tbody>${queue.value.map((entry) => html`<tr><td class="number">${entry.Place}</td><td>${who(entry.User)}</td><td><a href="#/containers/${entry.Container}">${entry.ContainerName}</a></td><td class="muted">${entry.Reason}</td></tr>`)}</tbody></table>`}</section>`;
}

// Without a policy nobody's GPUs are counted: the devices that CDI names.
function Devices({ found }) {
  if (session.policy || !found?.length) return null;
  return html`<section class="card"><h2>Devices</h2><table class="list"><tbody>${found.map((device) => html`<tr key=${device.ID}><td><code>${device.ID}</code></td><td class="muted">${device.Source}</td></tr>`)}</tbody></table></section>`;
}

function Users() {
  const { value } = useLoaded(() => optional("/wharf/v1/users"), []);
  const usage = useLoaded(() => optional("/wharf/v1/usage", { days: 1 }), []);
  if (!value?.length) return null;
  const today = new Map((usage.value ?? []).map((row) => [row.User, row]));
  return html`<section class="card"><h2>Users</h2><table class="list"><thead><tr><th scope="col">User</th><th scope="col">Role</th><th scope="col" class="number">Running</th><th scope="col" class="number">CPU hours today</th><th scope="col" class="number">Disk</th></tr></thead><tbody>${value.map((user) => html`<tr key=${user.User}><td>${who(user.User)}</td><td>${user.Administrator ? "administrator" : user.Role}</td><td class="number">${user.Running} of ${user.Containers}</td><td class="number">${(today.get(user.User)?.CpuSeconds / 3600 || 0).toFixed(2)}</td><td class="number">${bytes(today.get(user.User)?.Disk ?? 0)}</td></tr>`)}</tbody></table></section>`;
}

function Top() {
  useLive("samples");
  const rows = Object.entries(state.samples.containers).map(([id, sample]) => [state.containers.get(id), sample]).filter(([row]) => row);
  const list = (title, at, format) => html`<section class="card"><h2>${title}</h2><table class="list"><tbody>${rows.slice().sort((a, b) => b[1][at] - a[1][at]).slice(0, 8).map(([row, sample]) => html`<tr key=${row.Id}><td class="name"><a href="#/containers/${row.Id}">${row.Names[0].slice(1)}</a></td><td class="number">${format(sample[at])}</td></tr>`)}</tbody></table></section>`;
  if (!rows.length) return null;
  return html`<div class="columns">${list("Most CPU", 0, percent)}${list("Most memory", 1, bytes)}</div>`;
}

export function Machine() {
  const { value, error, again } = useLoaded(() => api.get("/info"), []);
  const version = useLoaded(() => api.get("/version"), []);
  const problems = useLoaded(() => (session.administrator ? own.get("/problems") : Promise.resolve(null)), []);
  const timelines = useLoaded(() => api.get("/wharf/v1/timelines"), []);
  useEngine(["daemon"], again);
  if (error) return html`<${Problem} error=${error} />`;
  if (!value) return html`<${Skeleton} rows=${8} />`;
  return html`<header class="head"><h1>${value.Name}</h1><p class="muted">${plural(value.NCPU, "CPU")}, ${bytes(value.MemTotal)}, ${value.OperatingSystem}</p></header>
    <${Use} id="" machine=${true} limit=${value.MemTotal} />
    <${Top} />
    <${Gpus} /><${Devices} found=${value.DiscoveredDevices} /><${Users} />
    <div class="columns">
      <section class="card"><h2>Engine</h2><table class="list facts"><tbody>
        <tr><th scope="row">Version</th><td>${value.ServerVersion}${version.value ? `, API ${version.value.ApiVersion}` : ""}</td></tr>
        <tr><th scope="row">Kernel</th><td>${value.KernelVersion}, ${value.Architecture}</td></tr>
        <tr><th scope="row">Storage</th><td>${value.Driver}, ${value.DockerRootDir}</td></tr>
        <tr><th scope="row">Cgroups</th><td>v${value.CgroupVersion}, ${value.CgroupDriver}</td></tr>
        <tr><th scope="row">Runtime</th><td>${value.DefaultRuntime}</td></tr>
        <tr><th scope="row">Log driver</th><td>${value.LoggingDriver}</td></tr>
        ${value.Swarm?.LocalNodeState && value.Swarm.LocalNodeState !== "inactive" && html`<tr><th scope="row">Swarm</th><td>${value.Swarm.LocalNodeState}, ${plural(value.Swarm.Nodes ?? 0, "node")}</td></tr>`}
        <tr><th scope="row">Connection</th><td>${state.connected ? "live" : "lost"}</td></tr>
      </tbody></table>
      ${(value.Warnings ?? []).map((text) => html`<p class="problem warn">${text}</p>`)}</section>
      ${problems.value && html`<section class="card"><h2>Warnings and errors of the engine</h2>${problems.value.length
        ? html`<table class="list facts"><tbody>${problems.value.slice(-30).reverse().map((each) => html`<tr><th scope="row"><span class="state ${each.level === "warning" ? "warn" : "bad"}">${each.level}</span> <span class="muted small">${ago(each.time)}</span></th><td>${each.message}</td></tr>`)}</tbody></table>`
        : html`<${Empty}>None since the start.<//>`}</section>`}
    </div>
    ${timelines.value?.length > 0 && html`<h2>Last pulls and builds</h2><${Timelines} records=${timelines.value.slice(-6)} />`}`;
}
