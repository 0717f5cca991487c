// A JSON document as a tree that can be opened and searched.

import { html, useState } from "/static/ui.js";

const isNode = (value) => value !== null && typeof value === "object" && Object.keys(value).length > 0;

function Leaf({ value }) {
  if (value === null) return html`<span class="json-null">null</span>`;
  if (typeof value === "object") return html`<span class="json-null">${Array.isArray(value) ? "[ ]" : "{ }"}</span>`;
  return html`<span class="json-${typeof value}">${typeof value === "string" ? `"${value}"` : String(value)}</span>`;
}

const contains = (name, value, text) =>
  name.toLowerCase().includes(text) ||
  (value !== null && typeof value === "object"
    ? Object.entries(value).some(([key, each]) => contains(key, each, text))
    : String(value).toLowerCase().includes(text));

function Node({ name, value, text, depth }) {
  if (text && !contains(name, value, text)) return null;
  if (!isNode(value)) return html`<li><span class="json-key">${name}</span> <${Leaf} value=${value} /></li>`;
  return html`<li><details open=${depth < 1 || Boolean(text)}>
    <summary><span class="json-key">${name}</span> <span class="muted small">${Object.keys(value).length}</span></summary>
    <ul>${Object.entries(value).map(([key, each]) => html`<${Node} key=${key} name=${key} value=${each} text=${text && name.toLowerCase().includes(text) ? "" : text} depth=${depth + 1} />`)}</ul>
  </details></li>`;
}

export function Tree({ value }) {
  const [text, setText] = useState("");
  return html`<section class="tree card" aria-label="Inspect">
    <div class="tools"><input type="search" placeholder="Find a name or a value" aria-label="Find a name or a value" onInput=${(event) => setText(event.target.value.toLowerCase())} /></div>
    <ul>${Object.entries(value).map(([key, each]) => html`<${Node} key=${`${key}${text ? 1 : 0}`} name=${key} value=${each} text=${text} depth=${1} />`)}</ul>
  </section>`;
}
