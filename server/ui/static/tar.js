// Tar archives of the archive API (POSIX.1-2001 pax): what is needed to send and to get one file. Contents stay in blobs,
// which a browser keeps on disk when they are large.

const BLOCK = 512;

function field(header, at, length, text) {
  header.set(new TextEncoder().encode(text).subarray(0, length), at);
}

function head(name, size, type, mtime) {
  const header = new Uint8Array(BLOCK);
  field(header, 0, 100, name);
  field(header, 100, 8, "0000644\0");
  field(header, 108, 8, "0000000\0");
  field(header, 116, 8, "0000000\0");
  if (size < 8 ** 11) {
    field(header, 124, 12, `${size.toString(8).padStart(11, "0")}\0`);
  } else {
    // A binary number, as GNU tar writes it.
    header[124] = 0x80;
    for (let at = 135, rest = size; at > 124 && rest > 0; at -= 1, rest = Math.floor(rest / 256)) header[at] = rest % 256;
  }
  field(header, 136, 12, `${Math.floor(mtime / 1000).toString(8).padStart(11, "0")}\0`);
  field(header, 148, 8, "        ");
  field(header, 156, 1, type);
  field(header, 257, 8, "ustar\x0000");
  const sum = header.reduce((total, byte) => total + byte, 0);
  field(header, 148, 8, `${sum.toString(8).padStart(6, "0")}\0 `);
  return header;
}

const padding = (size) => new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);

// An archive with these files (File objects) as a blob.
export function pack(files) {
  const parts = [];
  for (const file of files) {
    const name = new TextEncoder().encode(file.name);
    if (name.length > 100 || name.some((byte) => byte > 127)) {
      // A pax header has the name; its own length is part of the record.
      const body = ` path=${file.name}\n`;
      const size = new TextEncoder().encode(body).length;
      let length = size + 1;
      while (String(length).length + size !== length) length = String(length).length + size;
      const record = new TextEncoder().encode(`${length}${body}`);
      parts.push(head("PaxHeader", record.length, "x", file.lastModified), record, padding(record.length));
    }
    parts.push(head(file.name, file.size, "0", file.lastModified), file, padding(file.size));
  }
  parts.push(new Uint8Array(2 * BLOCK));
  return new Blob(parts, { type: "application/x-tar" });
}

const octal = (header, at, length) => parseInt(new TextDecoder().decode(header.subarray(at, at + length)), 8) || 0;

function sizeOf(header) {
  if (!(header[124] & 0x80)) return octal(header, 124, 12);
  return header.subarray(125, 136).reduce((total, byte) => total * 256 + byte, 0);
}

// The content of the first regular file of an archive; null: it has none.
export async function first(archive) {
  for (let at = 0, known = null; at + BLOCK <= archive.size; ) {
    const header = new Uint8Array(await archive.slice(at, at + BLOCK).arrayBuffer());
    const type = String.fromCharCode(header[156] || 48);
    const size = known ?? sizeOf(header);
    at += BLOCK;
    if (type === "0") return archive.slice(at, at + size);
    known = null;
    if (type === "x") {
      const size = /^\d+ size=(\d+)$/m.exec(await archive.slice(at, at + sizeOf(header)).text());
      if (size) known = Number(size[1]);
    }
    at += Math.ceil(sizeOf(header) / BLOCK) * BLOCK;
  }
  return null;
}
