// Plots over time by uPlot, which is loaded with the first of them.

import { html, useEffect, useRef } from "/static/ui.js";

let loading;

function load() {
  loading ??= new Promise((resolve, reject) => {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = "/static/vendor/uplot.css";
    const script = document.createElement("script");
    script.src = "/static/vendor/uplot.js";
    script.onload = () => resolve(window.uPlot);
    script.onerror = () => reject(new Error("uPlot could not be loaded"));
    document.head.append(style, script);
  });
  return loading;
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const clock = (at, seconds) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: seconds ? "2-digit" : undefined, hour12: false });

// Steps of an axis of bytes: powers of two.
const BINARY = Array.from({ length: 45 }, (_, power) => 2 ** power);

function options(width, series, format, top, binary) {
  const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
  return {
    width,
    height: 150,
    cursor: { y: false, sync: { key: "wharf" } },
    legend: { live: true },
    scales: { y: { range: (plot, low, high) => [0, Math.max(high * 1.1 || 0, top)] } },
    axes: [
      { ...axis, size: 28, space: 60, values: (plot, found) => found.map((at) => clock(at, found[1] - found[0] < 60)) },
      { ...axis, size: 66, ...(binary ? { incrs: BINARY } : {}), values: (plot, found) => found.map((value) => format(value)) },
    ],
    series: [
      { label: "Time", value: (plot, at) => (at ? new Date(at * 1000).toLocaleTimeString() : "") },
      ...series.map(({ label, tint, fill }) => ({
        label,
        stroke: color(tint),
        fill: fill ? `${color(tint)}22` : undefined,
        width: 1.5,
        points: { show: false },
        value: (plot, value) => (value === null || value === undefined ? "no value" : format(value)),
      })),
    ],
  };
}

// `binary`: the values are bytes. `data`: [times, values of each series]. `format`: of a value. `top`: the smallest upper end of the axis.
export function Plot({ title, data, series, format, top = 0.001, binary = false }) {
  const box = useRef();
  const plot = useRef();
  const latest = useRef(data);
  latest.current = data;
  useEffect(() => {
    let ended = false;
    const draw = (uPlot) => {
      if (ended || !box.current) return;
      plot.current?.destroy();
      plot.current = new uPlot(options(box.current.clientWidth, series, format, top, binary), latest.current, box.current);
    };
    load().then(draw);
    const resized = new ResizeObserver(() => plot.current?.setSize({ width: box.current.clientWidth, height: 150 }));
    resized.observe(box.current);
    const themed = () => load().then(draw);
    document.addEventListener("themechange", themed);
    return () => {
      ended = true;
      resized.disconnect();
      document.removeEventListener("themechange", themed);
      plot.current?.destroy();
      plot.current = null;
    };
  }, []);
  useEffect(() => plot.current?.setData(data), [data]);
  const last = series.map(({ label }, at) => [label, lastOf(data[at + 1])]);
  return html`<figure class="plot card">
    <figcaption><h3>${title}</h3>
      <span class="now">${last.map(([label, value]) => html`<span>${series.length > 1 ? `${label} ` : ""}<b>${value === null ? "–" : format(value)}</b></span>`)}</span>
    </figcaption>
    <div ref=${box} role="img" aria-label="${title}: ${last.map(([label, value]) => `${label} ${value === null ? "no value" : format(value)}`).join(", ")}"></div>
  </figure>`;
}

const lastOf = (values) => (values?.length ? (values.at(-1) ?? values.at(-2) ?? null) : null);
