// Colours and styles of terminals (ECMA-48, "select graphic rendition") as classes. Other sequences are dropped.

const SEQUENCE = /\x1b\[([0-9;:]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x1a\x1c-\x1f]/g;

function apply(style, codes) {
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at];
    if (code === 0) style.clear();
    else if (code === 1) style.set("weight", "bold");
    else if (code === 2) style.set("weight", "faint");
    else if (code === 22) style.delete("weight");
    else if (code === 3) style.set("slant", "italic");
    else if (code === 23) style.delete("slant");
    else if (code === 4) style.set("line", "underline");
    else if (code === 24) style.delete("line");
    else if (code >= 30 && code <= 37) style.set("color", `fg${code - 30}`);
    else if (code >= 90 && code <= 97) style.set("color", `fg${code - 90}`);
    else if (code === 39) style.delete("color");
    else if (code === 38 || code === 48) {
      // 256 colours: the first sixteen have classes; others, and direct colours, have none.
      const index = codes[at + 1] === 5 ? codes[at + 2] : -1;
      if (code === 38 && index >= 0 && index < 16) style.set("color", `fg${index % 8}`);
      at += codes[at + 1] === 5 ? 2 : 4;
    }
  }
}

// The parts of a line: [classes, text].
export function spans(text) {
  if (!/[\x00-\x08\x0b-\x1f]/.test(text)) return [["", text]];
  const style = new Map();
  const found = [];
  let end = 0;
  const add = (part) => part && found.push([[...style.values()].join(" "), part]);
  for (const match of text.matchAll(SEQUENCE)) {
    add(text.slice(end, match.index));
    end = match.index + match[0].length;
    if (match[2] === "m") apply(style, match[1].split(/[;:]/).map(Number));
  }
  add(text.slice(end));
  return found;
}
