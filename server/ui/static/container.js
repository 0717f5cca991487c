// One container.

import { html, useEffect, useState } from "/static/ui.js";
import { Empty, IconButton, Problem, Skeleton, State, Tabs, attempt, ask, stateOf, useEngine, useLive, useLoaded } from "/static/ui.js";
import { state } from "/static/live.js";
import { api, path } from "/static/api.js";
import { isSecret, short, time } from "/static/format.js";
import { Buttons, PROJECT, Ports } from "/static/containers.js";
import { nameOf } from "/static/actions.js";
import { Files } from "/static/files.js";
import { Logs } from "/static/logs.js";
import { Shell } from "/static/shell.js";
import { Timelines } from "/static/timeline.js";
import { Tree } from "/static/tree.js";
import { Use } from "/static/use.js";

const TABS = [["", "Overview"], ["logs", "Logs"], ["terminal", "Terminal"], ["files", "Files"], ["processes", "Processes"],
  ["changes", "Changes"], ["timeline", "Timeline"], ["inspect", "Inspect"]];

function Environment({ values }) {
  const [shown, show] = useState(new Set());
  if (!values?.length) return html`<${Empty}>No variables.<//>`;
  return html`<table class="list facts"><tbody>${values.map((text) => {
    const at = text.indexOf("=");
    const [name, value] = at < 0 ? [text, ""] : [text.slice(0, at), text.slice(at + 1)];
    const masked = isSecret(name, value) && !shown.has(name);
    return html`<tr key=${name}><th scope="row">${name}</th><td>${masked
      ? html`<span class="muted">••••••••</span> <${IconButton} icon="eye" label="Show ${name}" onClick=${() => show(new Set([...shown, name]))} />`
      : html`<code>${value}</code>`}</td></tr>`;
  })}</tbody></table>`;
}

function Overview({ row, found }) {
  const config = found.Config;
  const networks = Object.entries(found.NetworkSettings.Networks ?? {});
  return html`${row.State === "running" && html`<${Use} id=${row.Id} limit=${found.HostConfig.Memory} />`}
    <div class="columns">
      <section class="card"><h2>Container</h2><table class="list facts"><tbody>
        <tr><th scope="row">Id</th><td><code>${short(found.Id)}</code></td></tr>
        <tr><th scope="row">Image</th><td>${config.Image} <span class="muted small">${short(found.Image)}</span></td></tr>
        <tr><th scope="row">Command</th><td><code>${[found.Path, ...(found.Args ?? [])].join(" ")}</code></td></tr>
        <tr><th scope="row">Created</th><td>${time(found.Created)}</td></tr>
        ${found.State.Running && html`<tr><th scope="row">Started</th><td>${time(found.State.StartedAt)}, process ${found.State.Pid}</td></tr>`}
        ${!found.State.Running && found.State.FinishedAt > "0002" && html`<tr><th scope="row">Ended</th><td>${time(found.State.FinishedAt)}, code ${found.State.ExitCode}${found.State.OOMKilled ? ", out of memory" : ""}</td></tr>`}
        ${found.State.Error && html`<tr><th scope="row">Error</th><td class="problem">${found.State.Error}</td></tr>`}
        <tr><th scope="row">Restarts</th><td>${found.HostConfig.RestartPolicy.Name || "no"}${found.RestartCount ? `, ${found.RestartCount} so far` : ""}</td></tr>
        ${config.User && html`<tr><th scope="row">User</th><td>${config.User}</td></tr>`}
        <tr><th scope="row">Ports</th><td><${Ports} row=${row} /></td></tr>
      </tbody></table></section>
      ${found.State.Health && html`<section class="card"><h2>Health</h2>
        <p><${State} name=${found.State.Health.Status} /> ${found.State.Health.FailingStreak > 0 && `${found.State.Health.FailingStreak} failures in a row`}</p>
        <table class="list facts"><tbody>${(found.State.Health.Log ?? []).slice(-5).reverse().map((each) => html`<tr><th scope="row">${time(each.Start)}</th><td>code ${each.ExitCode} <code>${each.Output.slice(0, 300)}</code></td></tr>`)}</tbody></table>
      </section>`}
      <section class="card"><h2>Networks</h2>${networks.length
        ? html`<table class="list facts"><tbody>${networks.map(([name, network]) => html`<tr key=${name}><th scope="row">${name}</th><td>${[network.IPAddress, network.GlobalIPv6Address].filter(Boolean).join(", ") || html`<span class="muted">no address</span>`}${network.Aliases?.length ? html` <span class="muted small">${network.Aliases.join(", ")}</span>` : ""}</td></tr>`)}</tbody></table>`
        : html`<${Empty}>No networks.<//>`}</section>
      <section class="card"><h2>Mounts</h2>${found.Mounts.length
        ? html`<table class="list facts"><tbody>${found.Mounts.map((mount) => html`<tr key=${mount.Destination}><th scope="row"><code>${mount.Destination}</code></th><td>${mount.Type} <code>${mount.Name ?? mount.Source}</code>${mount.RW ? "" : ", read-only"}</td></tr>`)}</tbody></table>`
        : html`<${Empty}>No mounts.<//>`}</section>
      <section class="card"><h2>Environment</h2><${Environment} values=${config.Env} /></section>
      <section class="card"><h2>Labels</h2>${Object.keys(config.Labels ?? {}).length
        ? html`<table class="list facts"><tbody>${Object.entries(config.Labels).sort().map(([name, value]) => html`<tr key=${name}><th scope="row">${name}</th><td><code>${value}</code></td></tr>`)}</tbody></table>`
        : html`<${Empty}>No labels.<//>`}</section>
    </div>`;
}

function Processes({ row }) {
  const { value, error, again } = useLoaded(() => api.get(path`/containers/${row.Id}/top`), [row.Id, row.State]);
  useEffect(() => {
    const timer = setInterval(() => !document.hidden && again(), 5000);
    return () => clearInterval(timer);
  }, [row.Id]);
  if (row.State !== "running") return html`<${Empty}>The container does not run.<//>`;
  return html`<section class="card"><${Problem} error=${error} />${!value && !error ? html`<${Skeleton} />` : value && html`<div class="scroll" tabindex="0" role="region" aria-label="Processes"><table class="list">
    <thead><tr>${value.Titles.map((title) => html`<th scope="col">${title}</th>`)}</tr></thead>
    <tbody>${value.Processes.map((words) => html`<tr>${words.map((word) => html`<td>${word}</td>`)}</tr>`)}</tbody>
  </table></div>`}</section>`;
}

const KINDS = ["changed", "added", "deleted"];

function Changes({ row }) {
  const { value, error } = useLoaded(() => api.get(path`/containers/${row.Id}/changes`), [row.Id]);
  if (error) return html`<${Problem} error=${error} />`;
  if (value === undefined) return html`<${Skeleton} />`;
  if (!value?.length) return html`<${Empty}>No file differs from the image.<//>`;
  return html`<section class="card"><table class="list"><tbody>${value.slice(0, 2000).map(({ Kind, Path }) => html`<tr><td><span class="change ${KINDS[Kind]}">${KINDS[Kind]}</span></td><td class="name"><code>${Path}</code></td></tr>`)}</tbody></table>
    ${value.length > 2000 && html`<p class="muted">${value.length - 2000} more</p>`}</section>`;
}

function Timeline({ row }) {
  const { value, error } = useLoaded(() => api.get(path`/wharf/v1/containers/${row.Id}/timeline`), [row.Id, row.State]);
  if (error) return html`<${Problem} error=${error} />`;
  return value ? html`<${Timelines} records=${value} />` : html`<${Skeleton} />`;
}

async function rename(row) {
  const answer = await ask({
    title: `Rename ${nameOf(row)}`,
    fields: html`<label>New name <input name="name" required value=${nameOf(row)} autofocus /></label>`,
    action: "Rename",
  });
  if (answer) await attempt(() => api.post(path`/containers/${row.Id}/rename`, { name: answer.name }));
}

export function Container({ id, tab = "" }) {
  useLive("containers");
  const row = state.containers.get(id) ?? [...state.containers.values()].find((each) => each.Id.startsWith(id) || nameOf(each) === id);
  const key = row?.Id ?? "";
  const { value, error, again } = useLoaded(() => (key ? api.get(path`/containers/${key}/json`) : null), [key]);
  useEngine(["container", "network"], again, [key]);
  if (!state.loaded) return html`<${Skeleton} />`;
  if (!row) return html`<header class="head"><h1>Container</h1></header><${Empty}>There is no container ${short(id)} (any more). <a href="#/containers">All containers</a><//>`;
  const name = nameOf(row);
  const project = row.Labels[PROJECT];
  const base = `#/containers/${row.Id}`;
  return html`<header class="head">
      <p class="above"><a href="#/containers">Containers</a>${project && html` / <a href="#/projects/${encodeURIComponent(project)}">${project}</a>`}</p>
      <h1>${name}</h1> <${State} name=${stateOf(row)} /> <span class="muted">${row.Status}</span>
      <div class="tools"><${Buttons} row=${row} all=${true} /><button type="button" onClick=${() => rename(row)}>Rename …</button></div>
    </header>
    <${Tabs} label="Of this container" chosen=${tab} items=${TABS.map(([word, title]) => [word, title, word ? `${base}/${word}` : base])} />
    <${Problem} error=${error} />
    ${tab === "logs"
      ? html`<${Logs} containers=${[{ id: row.Id, name }]} />`
      : tab === "files"
        ? html`<${Files} row=${row} />`
        : tab === "processes"
          ? html`<${Processes} row=${row} />`
          : tab === "changes"
            ? html`<${Changes} row=${row} />`
            : tab === "timeline"
              ? html`<${Timeline} row=${row} />`
              : !value
                ? html`<${Skeleton} rows=${8} />`
                : tab === "terminal"
                  ? html`<${Shell} row=${row} tty=${value.Config.Tty} />`
                  : tab === "inspect"
                    ? html`<${Tree} value=${value} />`
                    : html`<${Overview} row=${row} found=${value} />`}`;
}

