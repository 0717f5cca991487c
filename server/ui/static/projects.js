// Compose projects, as the labels of their containers describe them.

import { html, useRef, useState } from "/static/ui.js";
import { Empty, Skeleton, State, ask, stateOf, toast, useLive } from "/static/ui.js";
import { state } from "/static/live.js";
import { lines, own, session } from "/static/api.js";
import { plural } from "/static/format.js";
import { Buttons, PROJECT, Ports, SERVICE } from "/static/containers.js";
import { Logs } from "/static/logs.js";
import { nameOf } from "/static/actions.js";

const FILES = "com.docker.compose.project.config_files";

function projects() {
  const found = new Map();
  for (const row of state.containers.values()) {
    const name = row.Labels[PROJECT];
    if (!name) continue;
    if (!found.has(name)) found.set(name, []);
    found.get(name).push(row);
  }
  return [...found].sort(([a], [b]) => a.localeCompare(b));
}

const servicesOf = (rows) => [...new Set(rows.map((row) => row.Labels[SERVICE] ?? ""))].sort();

const filesOf = (rows) => rows.map((row) => row.Labels[FILES]).find(Boolean) ?? "";

function Summary({ rows }) {
  const counts = new Map();
  for (const row of rows) counts.set(stateOf(row), (counts.get(stateOf(row)) ?? 0) + 1);
  return [...counts].map(([name, count]) => html`<span class="count"><${State} name=${name} /> ${count}</span> `);
}

export function Projects() {
  useLive("containers");
  const found = projects();
  return html`<header class="head"><h1>Projects</h1><p class="muted">${plural(found.length, "compose project")}</p></header>
    ${!state.loaded ? html`<${Skeleton} />` : !found.length
      ? html`<${Empty}>No compose project. <code>docker compose up</code> makes one.<//>`
      : html`<div class="cards">${found.map(([name, rows]) => html`<a class="card project" key=${name} href="#/projects/${encodeURIComponent(name)}">
          <h2>${name}</h2><p>${servicesOf(rows).join(", ")}</p><p><${Summary} rows=${rows} /></p><p class="muted small">${filesOf(rows)}</p>
        </a>`)}</div>`}`;
}

const ASKED = {
  down: ["Stop and remove the project's containers and networks?", "Named volumes stay.", "Down"],
  restart: ["Restart all containers of the project?", "", "Restart"],
};

function Compose({ name, files }) {
  const [output, setOutput] = useState(null);
  const [running, setRunning] = useState("");
  const box = useRef();
  if (!session.administrator) return null;
  const run = async (action) => {
    const [title, text, word] = ASKED[action] ?? [];
    if (title && !(await ask({ title, text: `${text} ${files}`, action: word, danger: action === "down" }))) return;
    setRunning(action);
    setOutput("");
    let all = "";
    try {
      const answer = await own.post("/compose", {}, { json: { project: name, action } });
      for await (const found of lines(answer)) {
        for (const line of found) {
          const message = JSON.parse(line);
          if ("output" in message) all += message.output;
          else if (message.status) toast(`compose ${action}: exit status ${message.status}`);
          else toast(`compose ${action}: done`, "good");
        }
        setOutput(all.slice(-100000));
        if (box.current) box.current.scrollTop = box.current.scrollHeight;
      }
    } catch (error) {
      toast(error.message);
      setOutput(all || null);
    }
    setRunning("");
  };
  return html`<div class="tools">
      ${["up", "pull", "restart", "down"].map((action) => html`<button type="button" disabled=${running !== ""} class=${action === "down" ? "danger" : ""} onClick=${() => run(action)}>${running === action ? `${action} …` : action}</button>`)}
      <span class="muted small">${files}</span>
    </div>
    ${output !== null && html`<pre ref=${box} class="output card" role="log" tabindex="0" aria-label="Output of compose">${output || "…"}</pre>`}`;
}

export function Project({ name }) {
  useLive("containers");
  const rows = [...state.containers.values()].filter((row) => row.Labels[PROJECT] === name);
  if (!state.loaded) return html`<${Skeleton} />`;
  rows.sort((a, b) => nameOf(a).localeCompare(nameOf(b)));
  return html`<header class="head"><p class="above"><a href="#/projects">Projects</a></p><h1>${name}</h1><${Summary} rows=${rows} /></header>
    ${!rows.length ? html`<${Empty}>The project has no containers (any more).<//>` : html`
      <${Compose} name=${name} files=${filesOf(rows)} />
      <section class="card"><h2>Services</h2><table class="list"><thead><tr><th scope="col">Service</th><th scope="col">Container</th><th scope="col">State</th><th scope="col">Ports</th><th><span class="hidden">Actions</span></th></tr></thead>
        <tbody>${rows.map((row) => html`<tr key=${row.Id}><td>${row.Labels[SERVICE]}</td><td><a href="#/containers/${row.Id}">${nameOf(row)}</a></td><td><${State} name=${stateOf(row)} /> <span class="muted small">${row.Status}</span></td><td class="ports"><${Ports} row=${row} /></td><td><${Buttons} row=${row} /></td></tr>`)}</tbody>
      </table></section>
      <${Logs} containers=${rows.slice(0, 50).map((row) => ({ id: row.Id, name: row.Labels[SERVICE] ?? nameOf(row) }))} />`}`;
}

