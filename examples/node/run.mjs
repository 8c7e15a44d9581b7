// Run digits through an ONNX file of muquant, by onnxruntime-node as it comes:
//
//     npm ci && node run.mjs [FILE.onnx]

import { readFile, stat } from "node:fs/promises";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";

const networks = fileURLToPath(new URL("../networks/", import.meta.url));

/** Square pictures, one under the other in a binary PGM file, as float32 [N, 1, size, size] in [0, 1]. */
async function readDigits(path) {
  const data = await readFile(path);
  const [, width, height] = data.toString("latin1", 0, 32).split(/\s+/).map(Number);
  const pixels = Float32Array.from(data.subarray(-width * height), (byte) => byte / 255);
  return [pixels, [height / width, 1, width, width]];
}

/** The index of the largest of each `classes` numbers. */
function largest(logits, classes) {
  const rows = Array.from({ length: logits.length / classes }, (_, n) => logits.slice(n * classes, (n + 1) * classes));
  return rows.map((row) => row.indexOf(Math.max(...row)));
}

try {
  const { InferenceSession, Tensor } = await import("onnxruntime-node");
  const path = process.argv[2] ?? `${networks}3bit.onnx`;
  const { size } = await stat(path);
  const digits = new Tensor("float32", ...(await readDigits(`${networks}digits.pgm`)));
  const start = performance.now();
  const session = await InferenceSession.create(path);
  const opened = performance.now();
  const results = await session.run({ [session.inputNames[0]]: digits });
  const answered = performance.now();
  const logits = results[session.outputNames[0]];
  console.log(`${basename(path)}: ${size.toLocaleString("en")} bytes, opened in ${(opened - start).toFixed(1)} ms`);
  console.log(
    `${digits.dims[0]} digits in ${(answered - opened).toFixed(1)} ms:`,
    largest([...logits.data], logits.dims[1]).join(" "),
  );
} catch (error) {
  console.error(`${error.message.split("\n")[0]}\nexamples/make_networks.py makes the networks; npm ci installs onnxruntime.`);
  process.exitCode = 1;
}
