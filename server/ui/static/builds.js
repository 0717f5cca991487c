// The history of builds, with their logs and timelines.

import { html, useState } from "/static/ui.js";
import { Empty, Problem, Skeleton, useEngine, useLoaded } from "/static/ui.js";
import { api, path } from "/static/api.js";
import { duration, short, time } from "/static/format.js";
import { Timelines } from "/static/timeline.js";
import { spans } from "/static/ansi.js";

function Details({ build }) {
  const { value, error } = useLoaded(
    async () => ({
      log: await (await api.raw(path`/wharf/v1/builds/${build.Ref}/log`)).text(),
      timelines: await api.get("/wharf/v1/timelines", { operation: "build", subject: build.Ref }),
    }),
    [build.Ref],
  );
  if (error) return html`<${Problem} error=${error} />`;
  if (!value) return html`<${Skeleton} rows=${2} />`;
  return html`<pre class="output" tabindex="0" aria-label="Log of the build">${spans(value.log.replaceAll("\r", "\n")).map(([style, part]) => (style ? html`<span class=${style}>${part}</span>` : part))}</pre>
    ${value.timelines.length > 0 && html`<${Timelines} records=${value.timelines} />`}`;
}

const WORDS = { completed: "good", running: "warn", failed: "bad", cancelled: "off" };

export function Builds() {
  const [open, setOpen] = useState("");
  const { value, error, again } = useLoaded(() => api.get("/wharf/v1/builds"), []);
  useEngine(["builder", "image"], again);
  if (error) return html`<${Problem} error=${error} />`;
  return html`<section class="card builds"><h2>Builds</h2>
    ${!value ? html`<${Skeleton} rows=${2} />` : !value.length ? html`<${Empty}>No builds in the last two days.<//>` : html`<table class="list">
      <thead><tr><th scope="col">Build</th><th scope="col">State</th><th scope="col">Began</th><th scope="col" class="number">Duration</th><th scope="col" class="number">Steps</th></tr></thead>
      <tbody>${value.map((build) => [html`<tr key=${build.Ref}><td class="name"><button type="button" class="plain" aria-expanded=${open === build.Ref} onClick=${() => setOpen(open === build.Ref ? "" : build.Ref)}>${build.Name || short(build.Ref)}</button></td>
        <td><span class="state ${WORDS[build.State]}">${build.State}</span>${build.Error && html`<span class="muted small"> ${build.Error.slice(0, 200)}</span>`}</td><td>${time(build.Began)}</td><td class="number">${build.Ended ? duration((Date.parse(build.Ended) - Date.parse(build.Began)) / 1000) : ""}</td><td class="number">${build.Steps}${build.CachedSteps ? `, ${build.CachedSteps} cached` : ""}</td></tr>`,
        open === build.Ref && html`<tr key="${build.Ref}-log"><td colspan="5"><${Details} build=${build} /></td></tr>`])}</tbody></table>`}
  </section>`;
}
