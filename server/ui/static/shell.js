// The tab with a terminal.

import { html, useEffect, useRef, useState } from "/static/ui.js";
import { Empty, attempt } from "/static/ui.js";
import { api, path } from "/static/api.js";

// A shell that exists in most images: bash if there is one.
const SHELL = ["/bin/sh", "-c", "command -v bash >/dev/null && exec bash || exec sh"];

export function Shell({ row, tty }) {
  const [frame, setFrame] = useState("");
  const [user, setUser] = useState("");
  const [command, setCommand] = useState("");
  const element = useRef();
  useEffect(() => {
    const heard = ({ source, data }) => {
      if (source === element.current?.contentWindow && data === "closed") element.current.dataset.ended = "";
    };
    addEventListener("message", heard);
    return () => removeEventListener("message", heard);
  }, []);
  const open = () =>
    attempt(async () => {
      const body = {
        AttachStdin: true, AttachStdout: true, AttachStderr: true, Tty: true, User: user,
        Env: ["TERM=xterm-256color"],
        Cmd: command ? ["/bin/sh", "-c", command] : SHELL,
      };
      const answer = await (await api.post(path`/containers/${row.Id}/exec`, {}, { json: body })).json();
      setFrame(`/terminal?${answer.Id.slice(0, 8)}#exec=${answer.Id}`);
    });
  if (row.State !== "running") return html`<${Empty}>The container does not run.<//>`;
  return html`<section class="shell card" aria-label="Terminal">
    <form class="tools" onSubmit=${(event) => (event.preventDefault(), open())}>
      <input value=${command} onInput=${(event) => setCommand(event.target.value)} placeholder="Command: a shell" aria-label="Command" />
      <input value=${user} class="short" onInput=${(event) => setUser(event.target.value)} placeholder="User" aria-label="User" />
      <button class="primary">${frame ? "Open a new one" : "Open a terminal"}</button>
      ${tty && html`<button type="button" onClick=${() => setFrame(`/terminal?attach#container=${row.Id}`)}>Attach to the main process</button>`}
    </form>
    ${frame
      ? html`<iframe ref=${element} key=${frame} src=${frame} title="Terminal in ${row.Names[0].slice(1)}"></iframe>`
      : html`<${Empty}>A terminal runs a new process in the container.<//>`}
  </section>`;
}
