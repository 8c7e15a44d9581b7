// Measure in a browser: everything comes from the server of chromium.py, and goes there.

import * as ort from "/package/dist/ort.wasm.min.mjs";
import { measure } from "./measure.mjs";

const address = (path) => `/file${path.split("/").map(encodeURIComponent).join("/")}`;

async function bytes(path) {
  const answer = await fetch(address(path));
  if (!answer.ok) throw new Error(`${answer.status} for ${path}`);
  return new Uint8Array(await answer.arrayBuffer());
}

const host = {
  model: bytes,
  external: async (files) => ({
    externalData: await Promise.all(Object.entries(files).map(async ([path, file]) => ({ path, data: await bytes(file) }))),
  }),
  read: bytes,
  write: async (path, body) => { await fetch(address(path), { method: "POST", body }); },
  memory: async (reset) => (await fetch(`/memory/${reset ? "reset" : "look"}`)).json(),
};

ort.env.wasm.numThreads = 1;
const request = await (await fetch("/request")).json();
const found = await measure(ort, request, "wasm", host);
await fetch("/found", { method: "POST", body: JSON.stringify(found) });
