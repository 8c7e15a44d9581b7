// node node.mjs PACKAGE PROVIDER: read a request, measure, and print what was found as a line of JSON.

import fs from "node:fs";
import { createRequire } from "node:module";
import { measure } from "./measure.mjs";

const [name, provider] = process.argv.slice(2);

const host = {
  model: async (path) => path,
  external: async (files) => (provider !== "wasm" ? {} : {
    externalData: Object.entries(files).map(([path, file]) => ({ path, data: fs.readFileSync(file) })),
  }),
  read: async (path) => new Uint8Array(fs.readFileSync(path)),
  write: async (path, bytes) => fs.writeFileSync(path, bytes),
  memory: async (reset) => {
    globalThis.gc?.();
    if (reset) try { fs.writeFileSync("/proc/self/clear_refs", "5"); } catch { /* not on this system */ }
    const { rss } = process.memoryUsage();
    let peak = rss;
    try {
      const mark = /VmHWM:\s+(\d+) kB/.exec(fs.readFileSync("/proc/self/status", "utf8"));
      peak = Math.max(rss, 1024 * Number(mark[1]));
    } catch { /* likewise */ }
    return { resident: rss, peak };
  },
};

const ort = createRequire(import.meta.url)(name);
if (provider === "wasm") ort.env.wasm.numThreads = 1;
console.log(JSON.stringify(await measure(ort, JSON.parse(fs.readFileSync(0, "utf8")), provider, host)));
process.exit(0);
