// Numbers, times and names as text.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(value, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "";
  let unit = 0;
  let number = Math.abs(value);
  while (number >= 1024 && unit < UNITS.length - 1) {
    number /= 1024;
    unit += 1;
  }
  const shown = digits ?? (unit === 0 || number >= 100 ? 0 : 1);
  return `${value < 0 ? "−" : ""}${number.toFixed(shown)} ${UNITS[unit]}`;
}

export const rate = (value) => (value === null || value === undefined ? "" : `${bytes(value)}/s`);

// Of CPUs: 1.0 is one of them.
export function percent(cpus) {
  if (cpus === null || cpus === undefined) return "";
  const value = cpus * 100;
  return `${value < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
}

export function age(seconds) {
  if (seconds < 1) return "now";
  for (const [name, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${name}`;
  }
  return `${Math.floor(seconds)} s`;
}

export const ago = (seconds) => age(Math.max(0, Date.now() / 1000 - seconds)).replace(/^(?!now)(.*)$/, "$1 ago");

export function duration(seconds) {
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export const time = (date) => new Date(date).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });

export const short = (id) => (id || "").replace(/^sha256:/, "").slice(0, 12);

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

const SECRET = /pass|secret|token|key|credential|auth|private|dsn|connection_?string/i;

// Whether the value of an environment variable is probably a secret.
export const isSecret = (name, value) => SECRET.test(name) || /:\/\/[^/\s:]+:[^@\s]+@/.test(value);
