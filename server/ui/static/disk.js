// Where every byte is, and who is connected with which networks and volumes.

import { html } from "/static/ui.js";
import { Empty, IconButton, Problem, Skeleton, ask, attempt, useEngine, useLive, useLoaded } from "/static/ui.js";
import { state } from "/static/live.js";
import { api, own } from "/static/api.js";
import { bytes, plural, short } from "/static/format.js";
import * as actions from "/static/actions.js";
import { Graph } from "/static/graph.js";
import { Treemap } from "/static/treemap.js";

const sum = (values) => values.reduce((all, value) => all + Math.max(0, value ?? 0), 0);

function parts(usage, logs) {
  const images = usage.Images ?? [];
  const shared = Math.max(0, (usage.LayersSize ?? 0) - sum(images.map((image) => image.Size - Math.max(0, image.SharedSize))));
  return [
    { key: "images", name: "Images", tint: "tint0", items: [
      ...images.map((image) => ({ key: image.Id, name: image.RepoTags?.[0] ?? short(image.Id), size: image.Size - Math.max(0, image.SharedSize), href: "#/images" })),
      { key: "shared", name: "shared layers", size: shared, href: "#/images" },
    ] },
    { key: "containers", name: "Writable layers", tint: "tint1", items: (usage.Containers ?? []).map((row) => ({ key: row.Id, name: actions.nameOf(row), size: row.SizeRw ?? 0, href: `#/containers/${row.Id}/changes` })) },
    { key: "volumes", name: "Volumes", tint: "tint2", items: (usage.Volumes ?? []).map((volume) => ({ key: volume.Name, name: volume.Name, size: volume.UsageData?.Size ?? 0 })) },
    { key: "logs", name: "Logs", tint: "tint3", items: Object.entries(logs).map(([id, size]) => ({ key: id, name: actions.nameOf(state.containers.get(id) ?? { Id: id }), size, href: `#/containers/${id}/logs` })) },
    { key: "cache", name: "Build cache", tint: "tint4", items: (usage.BuildCache ?? []).filter((entry) => !entry.Shared).map((entry) => ({ key: entry.ID, name: entry.Description?.slice(0, 60) || entry.Type, size: entry.Size })) },
  ].map((part) => ({ ...part, size: sum(part.items.map((item) => item.size)) }));
}

async function remove(kind, row) {
  const sure = await ask({ title: `Remove the ${kind} ${row.Name}?`, text: kind === "volume" ? "Its files are lost." : "", action: "Remove", danger: true });
  if (sure) await attempt(() => api.delete(`/${kind}s/${encodeURIComponent(row.Name)}`), `${row.Name} was removed.`);
}

async function prune(title, text, url, query) {
  if (await ask({ title, text, action: "Remove", danger: true })) await actions.prune(url, query);
}

export function Disk() {
  useLive("containers");
  const usage = useLoaded(() => api.get("/system/df"), []);
  const logs = useLoaded(() => own.get("/logsizes"), []);
  const networks = useLoaded(() => api.get("/networks"), []);
  const volumes = useLoaded(() => api.get("/volumes"), []);
  useEngine(["network"], networks.again);
  useEngine(["volume"], () => (volumes.again(), usage.again()));
  useEngine(["image"], usage.again);
  const found = usage.value ? parts(usage.value, logs.value ?? {}) : [];
  const whole = sum(found.map((part) => part.size)) || 1;
  const cache = (usage.value?.BuildCache ?? []).filter((entry) => !entry.InUse);
  const loose = (usage.value?.Volumes ?? []).filter((volume) => volume.UsageData?.RefCount === 0);
  const users = (name) => [...state.containers.values()].filter((row) => row.Mounts?.some((mount) => mount.Name === name));
  return html`<header class="head"><h1>Disk</h1><p class="muted">${usage.value && `${bytes(whole)} in all`}</p>
      <div class="tools"><button type="button" onClick=${() => (usage.again(), logs.again())}>Measure again</button></div></header>
    <${Problem} error=${usage.error} />
    ${!usage.value && !usage.error ? html`<${Skeleton} />` : html`
      <section class="card"><div class="sharebar" role="img" aria-label=${found.map((part) => `${part.name} ${bytes(part.size)}`).join(", ")}>${found.map((part) => html`<span key=${part.key} class=${part.tint} style=${{ width: `${(part.size / whole) * 100}%` }}></span>`)}</div>
        <ul class="sharelist">${found.map((part) => html`<li key=${part.key}><i class="swatch ${part.tint}"></i> ${part.name} <b>${bytes(part.size)}</b> <span class="muted">${part.items.length}</span></li>`)}</ul>
        <${Treemap} label="Disk use" items=${found.flatMap((part) => part.items.map((item) => ({ ...item, key: `${part.key}-${item.key}`, tint: part.tint, title: `${part.name}: ${item.name}` })))} />
        <div class="tools">
          <button type="button" disabled=${!cache.length} onClick=${() => prune("Remove the build cache?", `${plural(cache.length, "entry").replace("entrys", "entries")} that no build uses now: ${bytes(sum(cache.map((entry) => entry.Size)))}. Later builds run their steps again.`, "/build/prune", { all: 1 })}>Remove build cache …</button>
          <button type="button" disabled=${!loose.length} onClick=${() => prune("Remove unused volumes?", `${loose.map((volume) => volume.Name.slice(0, 30)).join(", ")}: ${bytes(sum(loose.map((volume) => volume.UsageData.Size)))}. Their files are lost.`, "/volumes/prune", { filters: { all: ["true"] } })}>Remove unused volumes …</button>
        </div></section>`}
    <section class="card"><h2>Who is connected</h2>${networks.value && volumes.value ? html`<${Graph} rows=${[...state.containers.values()]} networks=${networks.value} volumes=${volumes.value.Volumes ?? []} />` : html`<${Skeleton} />`}</section>
    <div class="columns">
      <section class="card"><h2>Volumes</h2>${!volumes.value?.Volumes?.length ? html`<${Empty}>No volumes.<//>` : html`<table class="list"><thead><tr><th scope="col">Name</th><th scope="col" class="number">Size</th><th scope="col">Used by</th><th><span class="hidden">Actions</span></th></tr></thead><tbody>${volumes.value.Volumes.map((volume) => html`<tr key=${volume.Name}><td class="name">${volume.Name.length === 64 ? short(volume.Name) : volume.Name}</td><td class="number">${bytes((usage.value?.Volumes ?? []).find((each) => each.Name === volume.Name)?.UsageData?.Size)}</td><td>${users(volume.Name).map((row) => html`<a href="#/containers/${row.Id}">${actions.nameOf(row)}</a> `)}</td><td><${IconButton} icon="trash" label="Remove ${volume.Name}" onClick=${() => remove("volume", volume)} /></td></tr>`)}</tbody></table>`}</section>
      <section class="card"><h2>Networks</h2>${!networks.value ? html`<${Skeleton} />` : html`<table class="list"><thead><tr><th scope="col">Name</th><th scope="col">Driver</th><th scope="col">Subnet</th><th scope="col" class="number">Containers</th><th><span class="hidden">Actions</span></th></tr></thead><tbody>${networks.value.map((network) => html`<tr key=${network.Id}><td class="name">${network.Name}</td><td>${network.Driver}</td><td>${(network.IPAM?.Config ?? []).map((each) => each.Subnet).join(", ")}</td><td class="number">${[...state.containers.values()].filter((row) => row.State === "running" && network.Name in (row.NetworkSettings?.Networks ?? {})).length}</td><td>${!["bridge", "host", "none", "ingress"].includes(network.Name) && html`<${IconButton} icon="trash" label="Remove ${network.Name}" onClick=${() => remove("network", network)} />`}</td></tr>`)}</tbody></table>`}</section>
    </div>`;
}

