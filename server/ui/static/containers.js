// All containers, by compose project. The rows of CPU and memory are written without a new rendering of the list.

import { html, Component, useEffect, useRef, useState } from "/static/ui.js";
import { Empty, Icon, IconButton, Skeleton, State, sparkPoints, stateOf, useLive } from "/static/ui.js";
import { on, state } from "/static/live.js";
import { bytes, percent, plural } from "/static/format.js";
import * as actions from "/static/actions.js";

export const PROJECT = "com.docker.compose.project";
export const SERVICE = "com.docker.compose.service";

// Words of the filter: `name:`, `image:`, `state:`, `label:` as of `docker ps --filter`, else any of them.
export function matches(row, words) {
  return words.every((word) => {
    const [, key, value] = /^(name|image|state|status|label|id|network)[:=](.+)$/.exec(word) ?? [null, "", word];
    const fields = {
      name: row.Names.join(" "),
      image: row.Image,
      state: `${row.State} ${stateOf(row)}`,
      status: `${row.State} ${stateOf(row)}`,
      label: Object.entries(row.Labels).map(([name, text]) => `${name}=${text}`).join(" "),
      id: row.Id,
      network: Object.keys(row.NetworkSettings?.Networks ?? {}).join(" "),
    };
    const text = key ? fields[key] : [fields.name, fields.image, row.Id, row.Labels[PROJECT] ?? "", row.State].join(" ");
    return text.toLowerCase().includes(value.toLowerCase());
  });
}

// The ports that are published, each once, as links where a browser can follow.
export function Ports({ row }) {
  const seen = new Set();
  const found = (row.Ports ?? []).filter((port) => {
    const key = port.PublicPort ? `${port.PublicPort}/${port.Type}` : "";
    return key && !seen.has(key) && seen.add(key);
  });
  const host = (ip) => (!ip || ip === "0.0.0.0" || ip === "::" ? location.hostname : ip.includes(":") ? `[${ip}]` : ip);
  return found.map((port) => {
    const text = `${port.PublicPort}→${port.PrivatePort}${port.Type === "tcp" ? "" : `/${port.Type}`}`;
    return port.Type === "tcp"
      ? html`<a class="port" href="http://${host(port.IP)}:${port.PublicPort}/" target="_blank" rel="noreferrer">${text}</a> `
      : html`<span class="port">${text}</span> `;
  });
}

export function Buttons({ row, all = false }) {
  const name = actions.nameOf(row);
  const active = ["running", "restarting"].includes(row.State);
  return html`<span class="actions">
    ${row.State === "paused"
      ? html`<${IconButton} icon="play" label="Unpause ${name}" onClick=${() => actions.unpause(row)} />`
      : active
        ? html`<${IconButton} icon="stop" label="Stop ${name}" onClick=${() => actions.stop(row)} />`
        : html`<${IconButton} icon="play" label="Start ${name}" onClick=${() => actions.start(row)} />`}
    <${IconButton} icon="restart" label="Restart ${name}" onClick=${() => actions.restart(row)} />
    ${active && all && html`<${IconButton} icon="pause" label="Pause ${name}" onClick=${() => actions.pause(row)} />`}
    <${IconButton} icon="bolt" label="Kill ${name}" disabled=${!active && row.State !== "paused"} onClick=${() => actions.kill(row)} />
    <${IconButton} icon="trash" label="Remove ${name}" onClick=${() => actions.remove(row)} />
  </span>`;
}

// The rows on the screen, by their element; only these are written when samples arrive.
const shown = new Map();
const watching = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) {
      shown.set(target, target.dataset.id);
      write(target, target.dataset.id);
    } else {
      shown.delete(target);
    }
  }
});

function write(element, id) {
  const sample = state.samples.containers[id];
  const trend = state.trends.get(id);
  const [cpu, memory] = element.querySelectorAll(".use");
  if (!cpu) return;
  cpu.lastChild.data = sample ? percent(sample[0]) : "";
  memory.lastChild.data = sample ? bytes(sample[1]) : "";
  cpu.querySelector("polyline").setAttribute("points", sample && trend ? sparkPoints(trend.cpu, 0.1) : "");
  memory.querySelector("polyline").setAttribute("points", sample && trend ? sparkPoints(trend.memory, 1 << 20) : "");
}

on("samples", () => {
  if (shown.size) requestAnimationFrame(() => shown.forEach((id, element) => write(element, id)));
});

class Row extends Component {
  shouldComponentUpdate({ row, minute }) {
    return row !== this.props.row || minute !== this.props.minute;
  }

  componentDidMount() {
    watching.observe(this.base);
  }

  componentDidUpdate() {
    write(this.base, this.props.row.Id);
  }

  componentWillUnmount() {
    watching.unobserve(this.base);
    shown.delete(this.base);
  }

  render({ row }) {
    const name = actions.nameOf(row);
    return html`<tr role="row" data-id=${row.Id} data-name=${name}>
      <td role="cell" class="name">
        <a href="#/containers/${row.Id}">${name}</a>
        <span class="muted small image" title=${row.Image}>${row.Image}</span>
      </td>
      <td role="cell"><${State} name=${stateOf(row)} /><span class="muted small since">${statusText(row)}</span></td>
      <td role="cell" class="use" aria-label="CPU"><svg class="spark cpu" viewBox="0 0 80 20" preserveAspectRatio="none" aria-hidden="true"><polyline /></svg>${" "}</td>
      <td role="cell" class="use" aria-label="Memory"><svg class="spark memory" viewBox="0 0 80 20" preserveAspectRatio="none" aria-hidden="true"><polyline /></svg>${" "}</td>
      <td role="cell" class="ports"><${Ports} row=${row} /></td>
      <td role="cell"><${Buttons} row=${row} /></td>
    </tr>`;
  }
}

// "Up 3 minutes (healthy)" without what the state says already.
const statusText = (row) => row.Status.replace(/ \((healthy|unhealthy|health: starting)\)/, "").replace(/^Exited \((\d+)\) /, "code $1, ");

function groups(rows) {
  const found = new Map();
  for (const row of rows) {
    const project = row.Labels[PROJECT] ?? "";
    if (!found.has(project)) found.set(project, []);
    found.get(project).push(row);
  }
  for (const members of found.values()) members.sort((a, b) => actions.nameOf(a).localeCompare(actions.nameOf(b), undefined, { numeric: true }));
  return [...found].sort(([a], [b]) => (a === "" ? 1 : b === "" ? -1 : a.localeCompare(b)));
}

export function Containers() {
  useLive("containers");
  const [text, setText] = useState(() => sessionStorage.getItem("wharf.filter") ?? "");
  const [minute, setMinute] = useState(0);
  const field = useRef();
  useEffect(() => {
    const timer = setInterval(() => setMinute((n) => n + 1), 60000);
    const key = (event) => {
      if (event.key === "/" && !/INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) {
        event.preventDefault();
        field.current.focus();
      }
    };
    document.addEventListener("keydown", key);
    return () => (clearInterval(timer), document.removeEventListener("keydown", key));
  }, []);
  const all = [...state.containers.values()];
  const words = text.trim().split(/\s+/).filter(Boolean);
  const rows = words.length ? all.filter((row) => matches(row, words)) : all;
  const running = all.filter((row) => row.State === "running").length;
  const grouped = groups(rows);
  return html`<header class="head">
      <h1>Containers</h1>
      <p class="muted">${plural(running, "container")} running, ${all.length - running} not</p>
      <div class="tools">
        <label class="search"><${Icon} name="search" />
          <input ref=${field} type="search" value=${text} placeholder="Filter: web state:running label:env=prod" aria-label="Filter containers"
            onInput=${(event) => (setText(event.target.value), sessionStorage.setItem("wharf.filter", event.target.value))} />
        </label>
        <button type="button" disabled=${running === all.length} onClick=${() => actions.removeStopped(all)}>Remove stopped …</button>
      </div>
    </header>
    ${!state.loaded
      ? html`<${Skeleton} rows=${8} />`
      : !rows.length
        ? html`<${Empty}>${all.length ? "No container matches." : html`No containers yet. <code>docker run</code> starts one, and it appears here.`}<//>`
        : html`<table role="table" class="list containers">
            <thead role="rowgroup"><tr role="row">
              <th role="columnheader" scope="col">Name</th><th role="columnheader" scope="col">State</th>
              <th role="columnheader" scope="col">CPU</th><th role="columnheader" scope="col">Memory</th>
              <th role="columnheader" scope="col">Ports</th><th role="columnheader" scope="col"><span class="hidden">Actions</span></th>
            </tr></thead>
            ${grouped.map(
              ([project, members]) => html`<tbody role="rowgroup" key=${project} class="group" style=${{ containIntrinsicSize: `auto ${(members.length + 1) * 49}px` }}>
                ${(project || grouped.length > 1) && html`<tr role="row" class="grouphead"><th role="rowheader" colspan="6" scope="rowgroup">
                  ${project ? html`<a href="#/projects/${encodeURIComponent(project)}">${project}</a>` : "Without a project"}
                  <span class="muted">${summary(members)}</span></th></tr>`}
                ${members.map((row) => html`<${Row} key=${row.Id} row=${row} minute=${minute} />`)}
              </tbody>`,
            )}
          </table>`}`;
}

function summary(members) {
  const running = members.filter((row) => row.State === "running").length;
  return running === members.length ? `${members.length} running` : `${running} of ${members.length} running`;
}

