// Who is connected with what: containers in the middle, networks at the left, volumes at the right.

import { html } from "/static/ui.js";
import { Empty } from "/static/ui.js";
import { nameOf } from "/static/actions.js";

const ROW = 30;
const WIDTH = 900;
const COLUMNS = { network: [0, 210], container: [330, 240], volume: [690, 210] };
const MOST = 60;

const cut = (text, width) => (text.length * 7.200 > width - 20 ? `${text.slice(0, Math.floor((width - 30) / 7.200))}…` : text);

export function Graph({ rows, networks, volumes }) {
  const active = rows.filter((row) => row.State === "running" || row.Mounts?.some((mount) => mount.Type === "volume")).slice(0, MOST);
  if (!active.length) return html`<${Empty}>No running container is connected with a network or a volume.<//>`;
  const used = new Set(active.flatMap((row) => Object.keys(row.NetworkSettings?.Networks ?? {})));
  const kept = new Set(active.flatMap((row) => (row.Mounts ?? []).filter((mount) => mount.Type === "volume").map((mount) => mount.Name)));
  const columns = {
    network: networks.filter((network) => used.has(network.Name)).map((network) => network.Name),
    container: active.map(nameOf),
    volume: volumes.filter((volume) => kept.has(volume.Name)).map((volume) => volume.Name),
  };
  const height = Math.max(...Object.values(columns).map((names) => names.length)) * ROW + 34;
  const y = (kind, at) => 30 + (at + 0.5) * ((height - 34) / columns[kind].length);
  const edges = active.flatMap((row, at) => [
    ...Object.keys(row.NetworkSettings?.Networks ?? {}).map((name) => ["network", columns.network.indexOf(name), at]),
    ...(row.Mounts ?? []).filter((mount) => mount.Type === "volume").map((mount) => ["volume", columns.volume.indexOf(mount.Name), at]),
  ]).filter(([, other]) => other >= 0);
  const path = ([kind, other, at]) => {
    const [from, to] = kind === "network" ? [COLUMNS.network[0] + COLUMNS.network[1], COLUMNS.container[0]] : [COLUMNS.volume[0], COLUMNS.container[0] + COLUMNS.container[1]];
    const middle = (from + to) / 2;
    return `M${from} ${y(kind, other)}C${middle} ${y(kind, other)} ${middle} ${y("container", at)} ${to} ${y("container", at)}`;
  };
  return html`<div class="scroll" tabindex="0" role="region" aria-label="Networks, containers and volumes"><svg class="graph" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="${edges.length} connections of ${active.length} containers">
    ${edges.map((edge) => html`<path class="edge ${edge[0]}" d=${path(edge)} />`)}
    ${Object.entries(columns).map(([kind, names]) => html`<text class="muted" x=${COLUMNS[kind][0]} y="14">${kind === "container" ? "Containers" : kind === "network" ? "Networks" : "Volumes"}</text>
      ${names.map((name, at) => html`<g><rect class="node ${kind}" x=${COLUMNS[kind][0]} y=${y(kind, at) - 11} width=${COLUMNS[kind][1]} height="22" rx="5" /><text x=${COLUMNS[kind][0] + 10} y=${y(kind, at) + 4}>${cut(name, COLUMNS[kind][1])}<title>${name}</title></text></g>`)}`)}
  </svg></div>
  ${active.length === MOST && html`<p class="muted small">The first ${MOST} containers are shown.</p>`}`;
}
