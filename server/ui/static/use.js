// CPU, memory, network and block devices of a container or of the machine, for the last hour and from now on.

import { html, useEffect, useState } from "/static/ui.js";
import { Plot } from "/static/plots.js";
import { on } from "/static/live.js";
import { own, path } from "/static/api.js";
import { bytes, percent, rate } from "/static/format.js";

const FIELDS = ["cpu", "memory", "received", "sent", "read", "written"];
const RANGES = [["5 min", 300], ["15 min", 900], ["1 h", 3600]];
const POINTS = 720;

// The history of `id` ("": the machine), and the samples since then.
function useHistory(id, seconds) {
  const [points, set] = useState(null);
  useEffect(() => {
    let current = null;
    let ended = false;
    set(null);
    own.get(id ? path`/history/${id}` : "/history", { seconds }).then(
      (found) => {
        if (ended) return;
        current = [found.time, ...FIELDS.map((name) => found[name])];
        // The present point, and one before it, may not have been measured yet: that is no gap.
        for (let left = 2; left && current[1].at(-1) === null; left -= 1) current.forEach((column) => column.pop());
        set(current);
      },
      () => !ended && set([[], [], [], [], [], [], []]),
    );
    const end = on("samples", (message) => {
      const sample = id ? message.containers[id] : message.machine;
      if (!current) return;
      const since = message.time - seconds;
      const from = Math.max(0, current[0].findIndex((at) => at >= since), current[0].length - POINTS);
      const row = [message.time, ...(sample ?? FIELDS.map(() => null))];
      current = current.map((column, at) => [...column.slice(from), row[at]]);
      set(current);
    });
    return () => ((ended = true), end());
  }, [id, seconds]);
  return points;
}

export function Use({ id, limit = 0, machine = false }) {
  const [seconds, choose] = useState(300);
  const points = useHistory(id, seconds);
  const [time, cpu, memory, received, sent, read, written] = points ?? [[], [], [], [], [], [], []];
  const key = `${id}-${seconds}-${points ? 1 : 0}`;
  return html`<section aria-label="Use of CPU, memory, network and disk">
    <div class="choices" role="group" aria-label="Time">
      ${RANGES.map(([label, value]) => html`<button type="button" aria-pressed=${value === seconds} onClick=${() => choose(value)}>${label}</button>`)}
    </div>
    <div class="plots">
      <${Plot} key="c${key}" title="CPU" data=${[time, cpu]} series=${[{ label: "CPU", tint: "--cpu", fill: true }]} format=${percent} top=${0.01} />
      <${Plot} key="m${key}" title=${limit ? `Memory, of ${bytes(limit)}` : "Memory"} data=${[time, memory]} series=${[{ label: "Memory", tint: "--memory", fill: true }]} format=${bytes} binary=${true} top=${limit || 1 << 20} />
      ${!machine && html`
        <${Plot} key="n${key}" title="Network" data=${[time, received, sent]} series=${[{ label: "In", tint: "--cpu" }, { label: "Out", tint: "--memory" }]} format=${rate} binary=${true} top=${1024} />
        <${Plot} key="d${key}" title="Disk" data=${[time, read, written]} series=${[{ label: "Read", tint: "--cpu" }, { label: "Written", tint: "--memory" }]} format=${rate} binary=${true} top=${1024} />`}
    </div>
  </section>`;
}
