// Requests to the engine's API (below /api) and to the page's own endpoints.

export const session = {
  csrf: document.body.dataset.csrf,
  user: document.body.dataset.user,
  version: document.body.dataset.version,
  administrator: "administrator" in document.body.dataset,
  policy: "policy" in document.body.dataset,
};

export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// A path with its parameters encoded: path`/containers/${id}/json`.
export function path(parts, ...values) {
  return String.raw({ raw: parts }, ...values.map(encodeURIComponent));
}

// `query`: parameters; undefined ones are left out, arrays are repeated, objects become JSON.
export function withQuery(url, query = {}) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined || value === "") continue;
    if (Array.isArray(value)) value.forEach((each) => found.append(name, each));
    else found.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  }
  const text = found.toString();
  return text ? `${url}?${text}` : url;
}

// A browser aborts all requests when an address of its machine changes, as for a new network. `again`: what was asked
// may be asked twice.
async function send(url, options, again) {
  for (let left = again ? 4 : 0; ; left -= 1) {
    try {
      return await fetch(url, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (!left) throw new Refusal(0, again ? "The engine can't be reached." : "The connection was interrupted: look whether it was done.");
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  }
}

export async function request(method, url, { query, body, json, headers = {}, signal, again = method === "GET" } = {}) {
  const options = { method, signal, headers: { ...headers } };
  if (method !== "GET" && method !== "HEAD") options.headers["X-CSRF-Token"] = session.csrf;
  if (json !== undefined) {
    options.body = JSON.stringify(json);
    options.headers["Content-Type"] = "application/json";
  } else if (body !== undefined) {
    options.body = body;
  }
  const answer = await send(withQuery(url, query), options, again);
  if (answer.status === 401) {
    location.replace("/login");
    throw new Refusal(401, "The session has ended.");
  }
  if (!answer.ok && answer.status !== 304) {
    const text = await answer.text();
    let message = text.trim();
    try {
      message = JSON.parse(text).message || message;
    } catch {
      // plain text
    }
    throw new Refusal(answer.status, message || `status ${answer.status}`);
  }
  return answer;
}

export const api = {
  get: async (url, query, options) => (await request("GET", `/api${url}`, { query, ...options })).json(),
  post: (url, query, options) => request("POST", `/api${url}`, { query, ...options }),
  put: (url, query, options) => request("PUT", `/api${url}`, { query, ...options }),
  delete: (url, query, options) => request("DELETE", `/api${url}`, { query, ...options }),
  raw: (url, query, options) => request("GET", `/api${url}`, { query, ...options }),
};

export const own = {
  get: async (url, query, options) => (await request("GET", url, { query, ...options })).json(),
  post: (url, query, options) => request("POST", url, { query, ...options }),
};

// The lines of an answer, as they arrive, several at a time.
export async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const found = (rest + value).split("\n");
      rest = found.pop();
      if (found.length) yield found;
    }
    if (rest) yield [rest];
  } finally {
    reader.cancel().catch(() => {});
  }
}
