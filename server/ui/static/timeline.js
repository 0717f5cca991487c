// What took how long in an operation, as a bar chart.

import { html } from "/static/ui.js";
import { Empty } from "/static/ui.js";
import { duration, time } from "/static/format.js";

function Bars({ record }) {
  const whole = record.Seconds || 0.001;
  const phases = [...record.Phases].sort((a, b) => a.Begin - b.Begin || b.End - a.End);
  const inside = new Map(phases.map((phase) => [phase.Name, phase.Within]));
  const depth = (name, most = 4) => (name && most ? 1 + depth(inside.get(name), most - 1) : 0);
  return html`<table class="bars">
    <thead class="hidden"><tr><th scope="col">Phase</th><th scope="col">When</th><th scope="col">Duration</th></tr></thead>
    <tbody>${phases.map((phase) => {
      const from = (phase.Begin / whole) * 100;
      const width = Math.max(0.4, ((phase.End - phase.Begin) / whole) * 100);
      return html`<tr class=${phase.Within ? `within depth${depth(phase.Within)}` : ""}>
        <th scope="row">${phase.Name}${phase.WaitsFor && html`<span class="muted small"> waits for ${phase.WaitsFor}</span>`}</th>
        <td class="track"><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect x=${from} y="1" width=${width} height="8" class=${phase.WaitsFor ? "wait" : "work"} /></svg></td>
        <td class="number">${duration(phase.End - phase.Begin)}</td>
      </tr>`;
    })}</tbody>
  </table>`;
}

export function Timelines({ records }) {
  if (!records.length) return html`<${Empty}>This daemon has made no operation of it yet; a restart of the daemon forgets them.<//>`;
  return records
    .slice()
    .reverse()
    .map(
      (record) => html`<section class="card timeline" key=${record.Began + record.Operation}>
        <h3>${record.Operation} <b>${duration(record.Seconds)}</b> <span class="muted">${time(record.Began)}</span>
          ${record.Result !== "done" && html` <span class="state bad">${record.Result}</span>`}</h3>
        ${record.Error && html`<p class="problem">${record.Error}</p>`}
        <${Bars} record=${record} />
      </section>`,
    );
}
