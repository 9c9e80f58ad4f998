// A series' voxels, from the script file that holds them: figures/viewer/packing.py says how they are packed.
"use strict";

let handOver = null; // resolves with what the script of a series hands over
globalThis.sliceStream = (voxels) => handOver?.(voxels);

function script(id) {
  return new Promise((resolve, reject) => {
    const element = document.createElement("script");
    let found = null;
    handOver = (voxels) => { found = voxels; };
    element.src = `${id}.js`;
    element.onload = () => { element.remove(); found?.id === id ? resolve(found) : reject(new Error(`${id}.js holds another series.`)); };
    element.onerror = () => { element.remove(); reject(new Error(`${id}.js cannot be read. It must lie beside index.html.`)); };
    document.head.append(element);
  });
}

function bytes(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64), found = new Uint8Array(text.length);
  for (let n = 0; n < text.length; n++) found[n] = text.charCodeAt(n);
  return found;
}

// Decompress base64 pieces and hand on blocks of `size` bytes; a piece's text is dropped once it is read.
async function inflate(pieces, size, take) {
  const source = new ReadableStream({ pull(to) { pieces.length ? to.enqueue(bytes(pieces.shift())) : to.close(); } });
  const reader = source.pipeThrough(new DecompressionStream("deflate")).getReader();
  const block = new Uint8Array(size);
  let filled = 0, number = 0;
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    for (let at = 0; at < read.value.length;) {
      const part = read.value.subarray(at, at + size - filled);
      block.set(part, filled);
      filled += part.length;
      at += part.length;
      if (filled === size) { take(block, number++); filled = 0; }
    }
  }
  if (filled) throw new Error("The file is cut short.");
  return number;
}

// The inverse of figures/viewer/packing.py: high bytes before low bytes, sign in the lowest bit, steps along x.
function unfold(block, hu, start, columns) {
  const count = block.length / 2;
  for (let n = 0; n < count; n += columns) {
    let value = 0;
    for (let at = n; at < n + columns; at++) {
      const folded = (block[at] << 8) | block[count + at];
      value += (folded >>> 1) ^ -(folded & 1);
      hu[start + at] = value;
      value = hu[start + at]; // wrapped to 16 bits
    }
  }
}

async function unpack(voxels, progress) {
  const header = bytes(voxels.header), view = new DataView(header.buffer);
  const [columns, rows, slices] = [42, 44, 46].map((at) => view.getInt16(at, true));
  const plane = columns * rows, file = new ArrayBuffer(header.length + 2 * plane * slices);
  new Uint8Array(file).set(header);
  const hu = new Int16Array(file, header.length);
  const read = await inflate(voxels.hu, 2 * plane, (block, z) => { unfold(block, hu, z * plane, columns); progress((z + 1) / slices); });
  const labels = new Uint8Array(plane * slices);
  const marked = await inflate(voxels.labels, plane, (block, z) => labels.set(block, z * plane));
  if (read !== slices || marked !== slices) throw new Error("The file is cut short.");
  return { file, labels };
}
