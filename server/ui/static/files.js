// The files of a container: list, download, upload.

import { html, useRef, useState } from "/static/ui.js";
import { Empty, Icon, IconButton, Problem, Skeleton, attempt, download, toast, useLoaded } from "/static/ui.js";
import { api, path } from "/static/api.js";
import { bytes, plural, time } from "/static/format.js";
import { first, pack } from "/static/tar.js";

const join = (folder, name) => `${folder.replace(/\/$/, "")}/${name}`;

const KINDS = { directory: "folder", symlink: "link" };

export function Files({ row }) {
  const [folder, open] = useState("/");
  const [over, setOver] = useState(false);
  const input = useRef();
  const { value, error, again } = useLoaded(() => api.get(path`/wharf/v1/containers/${row.Id}/files`, { path: folder }), [row.Id, folder]);
  const save = (entry) =>
    attempt(async () => {
      const answer = await api.raw(path`/containers/${row.Id}/archive`, { path: join(folder, entry.Name) });
      const archive = await answer.blob();
      const content = entry.Type === "file" ? await first(archive) : null;
      download(content ? entry.Name : `${entry.Name}.tar`, content ?? archive);
    });
  const send = async (files) => {
    if (!files.length) return;
    const done = await attempt(
      () => api.put(path`/containers/${row.Id}/archive`, { path: folder }, { body: pack(files), headers: { "Content-Type": "application/x-tar" } }),
      `${plural(files.length, "file")} copied to ${folder}`,
    );
    if (done) again();
  };
  const dropped = (event) => {
    event.preventDefault();
    setOver(false);
    const items = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.());
    if (items.some((item) => item?.isDirectory)) toast("Only files can be dropped here, no folders.");
    else send([...event.dataTransfer.files]);
  };
  const parts = folder.split("/").filter(Boolean);
  return html`<section class="files card ${over ? "over" : ""}" aria-label="Files" onDragOver=${(event) => (event.preventDefault(), setOver(true))} onDragLeave=${() => setOver(false)} onDrop=${dropped}>
    <div class="tools">
      <nav class="crumbs" aria-label="Folder">
        <button type="button" onClick=${() => open("/")}>/</button>
        ${parts.map((part, at) => html`<button type="button" onClick=${() => open(`/${parts.slice(0, at + 1).join("/")}`)}>${part}</button>`)}
      </nav>
      <input ref=${input} type="file" multiple hidden aria-label="Files to upload" onChange=${(event) => (send([...event.target.files]), (event.target.value = ""))} />
      <button type="button" onClick=${() => input.current.click()}><${Icon} name="up" /> Upload …</button>
    </div>
    <${Problem} error=${error} />
    ${!value && !error
      ? html`<${Skeleton} />`
      : value && html`<table class="list">
          <thead><tr><th scope="col">Name</th><th scope="col" class="number">Size</th><th scope="col" class="optional">Mode</th><th scope="col" class="optional">Owner</th><th scope="col" class="optional">Changed</th><th><span class="hidden">Actions</span></th></tr></thead>
          <tbody>
            ${folder !== "/" && html`<tr><td colspan="6"><button type="button" class="plain" onClick=${() => open(`/${parts.slice(0, -1).join("/")}`)}><${Icon} name="folder" /> ..</button></td></tr>`}
            ${value.Entries.map(
              (entry) => html`<tr key=${entry.Name}>
                <td class="name">${entry.Type === "directory" || (entry.Type === "symlink" && entry.Target)
                  ? html`<button type="button" class="plain" onClick=${() => open(join(folder, entry.Name))}><${Icon} name=${KINDS[entry.Type]} /> ${entry.Name}</button>`
                  : html`<span><${Icon} name="file" /> ${entry.Name}</span>`}
                  ${entry.Target && html`<span class="muted small">→ ${entry.Target}</span>`}</td>
                <td class="number">${entry.Type === "file" ? bytes(entry.Size) : ""}</td>
                <td class="optional"><code>${entry.Mode}</code></td>
                <td class="optional">${entry.Uid}:${entry.Gid}</td>
                <td class="optional">${time(entry.Modified)}</td>
                <td><${IconButton} icon="down" label="Download ${entry.Name}" onClick=${() => save(entry)} /></td>
              </tr>`,
            )}
          </tbody>
        </table>
        ${value.Truncated && html`<p class="muted">There are more entries than are shown.</p>`}
        ${!value.Entries.length && html`<${Empty}>This folder is empty.<//>`}`}
  </section>`;
}
