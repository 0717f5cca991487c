// The frame of the page: navigation, theme, and the screen that the address names.

import { html, render, useEffect, useState } from "/static/ui.js";
import { Asked, Icon, IconButton, Toasts, attempt, useLive } from "/static/ui.js";
import { own, session } from "/static/api.js";
import { start, state } from "/static/live.js";
import { Containers } from "/static/containers.js";
import { Container } from "/static/container.js";
import { Projects, Project } from "/static/projects.js";
import { Images } from "/static/images.js";
import { Disk } from "/static/disk.js";
import { Machine } from "/static/machine.js";

const SCREENS = [
  ["containers", "Containers", "box"],
  ["projects", "Projects", "stack"],
  ["images", "Images", "layers"],
  ["disk", "Disk", "disk"],
  ["machine", "Machine", "chip"],
];

function screen([name, id, tab]) {
  if (name === "containers" && id) return html`<${Container} key=${id} id=${id} tab=${tab} />`;
  if (name === "projects" && id) return html`<${Project} key=${id} name=${id} />`;
  if (name === "projects") return html`<${Projects} />`;
  if (name === "images") return html`<${Images} />`;
  if (name === "disk") return html`<${Disk} />`;
  if (name === "machine") return html`<${Machine} />`;
  return html`<${Containers} />`;
}

const route = () => location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);

function toggleTheme() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("wharf.theme", document.documentElement.dataset.theme);
  document.dispatchEvent(new Event("themechange"));
}

async function leave() {
  if (await attempt(() => own.post("/logout"))) location.replace("/login");
}

function App() {
  const [parts, set] = useState(route);
  useLive("connection");
  useEffect(() => {
    const changed = () => {
      if (location.hash === "#main") return;
      set(route());
      scrollTo(0, 0);
    };
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const chosen = SCREENS.some(([name]) => name === parts[0]) ? parts[0] : "containers";
  useEffect(() => {
    document.title = `${SCREENS.find(([name]) => name === chosen)[1]} – Wharf`;
  }, [chosen]);
  return html`<nav class="side" aria-label="Screens">
      <a class="brand" href="#/containers"><img src="/static/icon.svg" alt="" width="22" height="22" /> Wharf</a>
      <ul>${SCREENS.map(([name, title, icon]) => html`<li><a href="#/${name}" aria-current=${name === chosen ? "page" : undefined}><${Icon} name=${icon} /><span>${title}</span></a></li>`)}</ul>
      <div class="foot">
        <span class="muted small">${session.user || (session.administrator ? "administrator" : "")}<br />Wharf ${session.version}</span>
        <${IconButton} icon="moon" label="Light or dark" onClick=${toggleTheme} />
        <${IconButton} icon="exit" label="Log out" onClick=${leave} />
      </div>
    </nav>
    <main id="main" tabindex="-1">
      ${!state.connected && state.loaded && html`<p class="problem warn" role="status">The connection to the engine was lost. The page shows what it knew, and tries again.</p>`}
      ${screen([chosen, ...parts.slice(1)])}
    </main>
    <${Toasts} /><${Asked} />`;
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
start();
