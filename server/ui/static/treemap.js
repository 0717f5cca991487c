// Sizes as areas: a squarified treemap (Bruls, Huizing, van Wijk, 2000).

import { html, useLayoutEffect, useRef, useState } from "/static/ui.js";
import { bytes } from "/static/format.js";

function worst(row, side, total) {
  const sum = row.reduce((all, item) => all + item.area, 0);
  const most = Math.max(...row.map((item) => item.area));
  const least = Math.min(...row.map((item) => item.area));
  return total && Math.max((side * side * most) / (sum * sum), (sum * sum) / (side * side * least));
}

// `items`: {size, …}. Returns them with x, y, w and h within a box.
export function layout(items, width, height) {
  const total = items.reduce((all, item) => all + item.size, 0);
  if (!total) return [];
  const scale = (width * height) / total;
  const rest = items.filter((item) => item.size > 0).map((item) => ({ ...item, area: item.size * scale })).sort((a, b) => b.area - a.area);
  const done = [];
  let box = { x: 0, y: 0, w: width, h: height };
  while (rest.length) {
    const side = Math.min(box.w, box.h);
    const row = [rest.shift()];
    while (rest.length && worst([...row, rest[0]], side, total) <= worst(row, side, total)) row.push(rest.shift());
    const sum = row.reduce((all, item) => all + item.area, 0);
    const thick = side ? sum / side : 0;
    let at = 0;
    for (const item of row) {
      const length = thick ? item.area / thick : 0;
      done.push(box.w >= box.h
        ? { ...item, x: box.x, y: box.y + at, w: thick, h: length }
        : { ...item, x: box.x + at, y: box.y, w: length, h: thick });
      at += length;
    }
    box = box.w >= box.h ? { x: box.x + thick, y: box.y, w: box.w - thick, h: box.h } : { x: box.x, y: box.y + thick, w: box.w, h: box.h - thick };
  }
  return done;
}

// `items`: {key, name, size, tint, href, title}.
export function Treemap({ items, label, height = 260 }) {
  const box = useRef();
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(() => box.current && setWidth(box.current.clientWidth));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  const tiles = width ? layout(items, width, height) : [];
  return html`<div ref=${box} class="treemap" role="list" aria-label=${label} style=${{ height: `${height}px` }}>
    ${tiles.map((tile) => html`<${tile.href ? "a" : "div"} role="listitem" key=${tile.key} href=${tile.href} class="tile ${tile.tint}" title="${tile.title ?? tile.name}: ${bytes(tile.size)}"
      style=${{ left: `${tile.x}px`, top: `${tile.y}px`, width: `${Math.max(0, tile.w - 2)}px`, height: `${Math.max(0, tile.h - 2)}px` }}>
      ${tile.w > 60 && tile.h > 28 ? html`<span>${tile.name}</span><small>${bytes(tile.size)}</small>` : html`<span class="hidden">${tile.name}, ${bytes(tile.size)}</span>`}
    <//>`)}
  </div>`;
}
