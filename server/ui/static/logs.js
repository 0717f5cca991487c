// The logs of containers: live, with search, colours and times.

import { html, useEffect, useRef, useState } from "/static/ui.js";
import { Icon, download } from "/static/ui.js";
import { request, lines } from "/static/api.js";
import { on } from "/static/live.js";
import { spans } from "/static/ansi.js";

// Lines that are kept and drawn, and those that are loaded first.
const KEPT = 5000;
const TAIL = 1000;

// One viewer of the lines: an element that is filled without rendering, batch by batch.
class Viewer {
  constructor(element, sources) {
    this.element = element;
    this.sources = sources;
    this.pending = [];
    this.follows = true;
    this.search = "";
    this.frame = 0;
    element.addEventListener("scroll", () => {
      this.follows = element.scrollTop + element.clientHeight >= element.scrollHeight - 24;
    });
  }

  add(entries) {
    this.pending.push(...entries);
    if (this.pending.length > KEPT) this.pending.splice(0, this.pending.length - KEPT);
    this.frame ||= requestAnimationFrame(() => this.flush());
  }

  flush() {
    this.frame = 0;
    const block = document.createDocumentFragment();
    for (const entry of this.pending) block.append(this.line(entry));
    this.pending = [];
    this.element.append(block);
    const surplus = this.element.childElementCount - KEPT;
    if (surplus > 0) {
      const range = document.createRange();
      range.setStartBefore(this.element.firstChild);
      range.setEndAfter(this.element.children[surplus - 1]);
      range.deleteContents();
    }
    if (this.follows) this.element.scrollTop = this.element.scrollHeight;
  }

  line({ number, record }) {
    const line = document.createElement("div");
    line.className = record.Error ? "line problem" : `line ${record.Source}`;
    const time = document.createElement("time");
    time.textContent = record.Timestamp ? `${record.Timestamp.slice(0, 10)} ${record.Timestamp.slice(11, 23).replace("Z", "")} ` : "";
    line.append(time);
    if (this.sources.length > 1) {
      const source = document.createElement("b");
      source.className = `source tint${number % 6}`;
      source.textContent = `${this.sources[number].name} `;
      line.append(source);
    }
    const text = (record.Error ?? record.Line ?? "").replace(/\r?\n$/, "");
    for (const [style, part] of spans(text)) {
      if (!style) {
        line.append(part);
        continue;
      }
      const span = document.createElement("span");
      span.className = style;
      span.textContent = part;
      line.append(span);
    }
    line.hidden = this.excluded(line);
    return line;
  }

  excluded(line) {
    return this.search !== "" && !line.textContent.toLowerCase().includes(this.search);
  }

  find(text) {
    this.search = text.toLowerCase();
    for (const line of this.element.children) line.hidden = this.excluded(line);
    this.element.scrollTop = this.element.scrollHeight;
  }
}

function parse(found) {
  const entries = [];
  for (const line of found) {
    const at = line.indexOf("\t");
    if (at > 0) entries.push({ number: Number(line.slice(0, at)), record: JSON.parse(line.slice(at + 1)) });
  }
  return entries;
}

// A time whose text can be compared: the engine leaves out zeros at the end.
const comparable = (time) => (time ? `${time.slice(0, 19)}.${time.slice(20, -1).padEnd(9, "0")}` : "");

// The entries that are later than the last ones of their containers.
function unseen(entries, last) {
  return entries.filter(({ number, record }) => {
    const time = comparable(record.Timestamp);
    if (time && time <= (last[number] ?? "")) return false;
    if (time) last[number] = time;
    return true;
  });
}

// Follows the logs until `signal`; goes on after a lost connection, and when one of the containers starts.
async function follow(ids, viewer, signal, setStatus) {
  const last = [];
  let since;
  while (!signal.aborted) {
    const ended = new AbortController();
    const starts = on("engine", (event) => {
      if (event.Type === "container" && event.Action === "start" && ids.includes(event.Actor.ID)) ended.abort();
    });
    const stop = () => ended.abort();
    signal.addEventListener("abort", stop);
    try {
      const answer = await request("GET", "/logs", { query: { container: ids, tail: TAIL, since }, signal: ended.signal });
      setStatus("live");
      let first = ids.length > 1;
      for await (const found of lines(answer)) {
        const entries = since ? unseen(parse(found), last) : parse(found);
        if (first) entries.sort((a, b) => ((a.record.Timestamp ?? "") < (b.record.Timestamp ?? "") ? -1 : 1));
        first = false;
        if (!since) unseen(entries, last);
        viewer.add(entries);
      }
      setStatus("ended");
      await new Promise((resolve) => ended.signal.addEventListener("abort", resolve));
    } catch (error) {
      if (error.status) {
        setStatus(error.message);
        return;
      }
      if (error.name !== "AbortError") {
        setStatus("interrupted");
        await new Promise((resolve) => setTimeout(resolve, 500));
      }
    } finally {
      starts();
      signal.removeEventListener("abort", stop);
    }
    const [first] = last.filter(Boolean).sort();
    // Seconds and nanoseconds since the epoch: a Date has only milliseconds.
    since = first && `${Date.parse(`${first.slice(0, 19)}Z`) / 1000}.${first.slice(20)}`;
  }
}

// `containers`: [{id, name}].
export function Logs({ containers }) {
  const box = useRef();
  const viewer = useRef();
  const [times, showTimes] = useState(false);
  const [wrap, setWrap] = useState(true);
  const [status, setStatus] = useState("loading");
  const ids = containers.map((each) => each.id);
  useEffect(() => {
    const ending = new AbortController();
    box.current.replaceChildren();
    viewer.current = new Viewer(box.current, containers);
    if (ids.length) follow(ids, viewer.current, ending.signal, setStatus);
    return () => ending.abort();
  }, [ids.join()]);
  const save = async () => {
    const answer = await request("GET", "/logs", { query: { container: ids, tail: 100000, follow: 0 } });
    const parts = [];
    for await (const found of lines(answer)) {
      for (const { number, record } of parse(found)) {
        parts.push(`${record.Timestamp ?? ""} ${containers.length > 1 ? `${containers[number].name} ` : ""}${record.Line ?? record.Error ?? "\n"}`);
      }
    }
    download(`${containers.length > 1 ? "project" : containers[0].name}.log`, new Blob(parts, { type: "text/plain" }));
  };
  return html`<section class="logs card" aria-label="Logs">
    <div class="tools">
      <label class="search"><${Icon} name="search" /><input type="search" placeholder="Search the log" aria-label="Search the log" onInput=${(event) => viewer.current.find(event.target.value)} /></label>
      <label class="check"><input type="checkbox" checked=${times} onChange=${() => showTimes(!times)} /> Times</label>
      <label class="check"><input type="checkbox" checked=${wrap} onChange=${() => setWrap(!wrap)} /> Wrap</label>
      <span class="muted status" role="status">${status}</span>
      <button type="button" onClick=${save}><${Icon} name="down" /> Download</button>
    </div>
    <div ref=${box} class="lines ${times ? "" : "notimes"} ${wrap ? "" : "nowrap"}" role="log" aria-live="off" tabindex="0" aria-label="Lines of the log"></div>
  </section>`;
}

