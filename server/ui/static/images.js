// Images: what they share, what uses them, pulls, prune with a preview; and the builds.

import { html, useState } from "/static/ui.js";
import { Empty, Icon, IconButton, Problem, Skeleton, ask, attempt, useEngine, useLive, useLoaded } from "/static/ui.js";
import { state } from "/static/live.js";
import { api, path } from "/static/api.js";
import { ago, bytes, plural, short } from "/static/format.js";
import * as actions from "/static/actions.js";
import { Builds } from "/static/builds.js";
import { Pulls, pull } from "/static/pull.js";
import { Treemap } from "/static/treemap.js";

const titleOf = (image) => image.RepoTags?.[0] ?? image.RepoDigests?.[0]?.replace(/@.*/, "@…") ?? short(image.Id);

// The layers of all images as tiles. A layer that several images have is drawn once, with the colour of what is shared.
function tiles(images, layers) {
  const users = new Map();
  for (const image of layers) {
    for (const layer of image.Layers) {
      if (!users.has(layer.Id)) users.set(layer.Id, { size: layer.Size, images: [] });
      users.get(layer.Id).images.push(image.Id);
    }
  }
  const names = new Map(images.map((image) => [image.Id, titleOf(image)]));
  return [...users].filter(([, { size }]) => size > 0).map(([id, { size, images: ids }]) => {
    const titles = [...new Set(ids)].map((each) => names.get(each) ?? short(each));
    const shared = titles.length > 1;
    return { key: id, size, tint: shared ? "shared" : "unique", name: shared ? `${titles[0]} +${titles.length - 1}` : titles[0], title: `${shared ? "Shared by" : "Only in"} ${titles.join(", ")}` };
  });
}

async function remove(image) {
  const names = image.RepoTags?.length ? image.RepoTags : [short(image.Id)];
  const sure = await ask({
    title: `Remove ${names[0]}?`,
    text: names.length > 1 ? `All of its names: ${names.join(", ")}.` : "",
    action: "Remove",
    danger: true,
  });
  if (!sure) return;
  await attempt(async () => {
    // By its names one after the other: an id with several names is refused.
    for (const name of image.RepoTags?.length ? image.RepoTags : [image.Id]) await api.delete(path`/images/${name}`);
  }, `${names[0]} was removed.`);
}

// What a prune removes, and about how much comes back: the layers that no other image has. It loads the containers
// anew: those of ``state`` are up to 150 ms older than the engine's events.
async function prune(images, layers) {
  let rows;
  const loaded = await attempt(async () => {
    rows = await api.get("/containers/json", { all: 1 });
  });
  if (!loaded) return;
  const used = new Set(rows.map((row) => row.ImageID));
  const dangling = images.filter((image) => !image.RepoTags?.length && !used.has(image.Id));
  const unused = images.filter((image) => !used.has(image.Id));
  const size = (gone) => {
    const ids = new Set(gone.map((image) => image.Id));
    const kept = new Set(layers.filter((image) => !ids.has(image.Id)).flatMap((image) => image.Layers.map((layer) => layer.Id)));
    const lost = new Map(layers.filter((image) => ids.has(image.Id)).flatMap((image) => image.Layers.map((layer) => [layer.Id, layer.Size])));
    return [...lost].reduce((all, [id, each]) => all + (kept.has(id) ? 0 : each), 0);
  };
  const list = (gone) => html`<details><summary>${plural(gone.length, "image")}, ${bytes(size(gone))}</summary><ul class="preview">${gone.map((image) => html`<li>${titleOf(image)} <span class="muted">${bytes(image.Size)}</span></li>`)}</ul></details>`;
  const answer = await ask({
    title: "Remove images that no container uses",
    fields: html`<div class="options">
      <label class="check"><input type="radio" name="what" value="dangling" checked /> Only those without a name</label>${list(dangling)}
      <label class="check"><input type="radio" name="what" value="all" /> All of them</label>${list(unused)}
    </div>`,
    action: "Remove",
    danger: true,
  });
  if (answer) await actions.prune("/images/prune", { filters: { dangling: [answer.what === "dangling" ? "true" : "false"] } });
}

async function askPull() {
  const answer = await ask({
    title: "Pull an image",
    fields: html`<label>Image <input name="image" required autofocus placeholder="registry.example.org/name:tag" /></label>`,
    action: "Pull",
  });
  if (answer?.image) pull(answer.image);
}

function History({ image }) {
  const { value, error } = useLoaded(() => api.get(path`/images/${image.Id}/history`), [image.Id]);
  if (error) return html`<${Problem} error=${error} />`;
  if (!value) return html`<${Skeleton} rows=${2} />`;
  return html`<table class="list steps"><tbody>${value.map((step) => html`<tr><td class="number">${step.Size ? bytes(step.Size) : ""}</td><td class="name"><code>${step.CreatedBy.replace(/^\/bin\/sh -c (#\(nop\) +)?/, "")}</code></td><td class="muted">${step.Created > 0 ? ago(step.Created) : ""}</td></tr>`)}</tbody></table>`;
}

export function Images() {
  useLive("containers");
  const [open, setOpen] = useState("");
  const [text, setText] = useState("");
  const images = useLoaded(() => api.get("/images/json", { "shared-size": 1 }), []);
  const layers = useLoaded(() => api.get("/wharf/v1/images/layers"), []);
  useEngine(["image", "builder"], () => (images.again(), layers.again()));
  const users = new Map();
  for (const row of state.containers.values()) users.set(row.ImageID, [...(users.get(row.ImageID) ?? []), row]);
  const all = images.value ?? [];
  const shown = all.filter((image) => [titleOf(image), ...(image.RepoTags ?? []), image.Id].join(" ").toLowerCase().includes(text.toLowerCase()));
  return html`<header class="head"><h1>Images</h1><p class="muted">${images.value && plural(all.length, "image")}</p>
      <div class="tools">
        <label class="search"><${Icon} name="search" /><input type="search" placeholder="Filter" aria-label="Filter images" value=${text} onInput=${(event) => setText(event.target.value)} /></label>
        <button type="button" onClick=${() => prune(all, layers.value ?? [])} disabled=${!all.length}>Remove unused …</button>
        <button type="button" class="primary" onClick=${askPull}>Pull …</button>
      </div></header>
    <${Pulls} /><${Problem} error=${images.error} />
    ${layers.value?.length > 0 && html`<section class="card"><h2>Layers <span class="legend"><i class="tile unique"></i> of one image <i class="tile shared"></i> shared</span></h2>
      <${Treemap} label="Layers by size" items=${tiles(all, layers.value)} /></section>`}
    ${!images.value && !images.error ? html`<${Skeleton} /> ` : !shown.length ? html`<${Empty}>${all.length ? "No image matches." : "No images. A pull, a build or a load brings one."}<//>` : html`<section class="card"><table class="list images">
      <thead><tr><th scope="col">Image</th><th scope="col" class="number">Size</th><th scope="col" class="number optional">Shared</th><th scope="col" class="optional">Created</th><th scope="col">Used by</th><th><span class="hidden">Actions</span></th></tr></thead>
      <tbody>${shown.map((image) => [html`<tr key=${image.Id}>
        <td class="name"><button type="button" class="plain" aria-expanded=${open === image.Id} onClick=${() => setOpen(open === image.Id ? "" : image.Id)}>${titleOf(image)}</button>
          <span class="muted small block">${short(image.Id)}${image.RepoTags?.length > 1 ? `, also ${image.RepoTags.slice(1).join(", ")}` : ""}</span></td>
        <td class="number">${bytes(image.Size)}</td><td class="number optional">${image.SharedSize > 0 ? bytes(image.SharedSize) : ""}</td><td class="optional">${ago(image.Created)}</td>
        <td>${(users.get(image.Id) ?? []).slice(0, 4).map((row) => html`<a href="#/containers/${row.Id}">${actions.nameOf(row)}</a> `)}${(users.get(image.Id)?.length ?? 0) > 4 ? `and ${users.get(image.Id).length - 4} more` : ""}</td>
        <td class="actions"><${IconButton} icon="down" label="Download ${titleOf(image)} as a tar" onClick=${() => { location.href = `/api${path`/images/${image.RepoTags?.[0] ?? image.Id}/get`}`; }} /><${IconButton} icon="trash" label="Remove ${titleOf(image)}" onClick=${() => remove(image)} /></td>
      </tr>`, open === image.Id && html`<tr key="${image.Id}-history"><td colspan="6"><${History} image=${image} /></td></tr>`])}</tbody>
    </table></section>`}
    <${Builds} />`;
}
