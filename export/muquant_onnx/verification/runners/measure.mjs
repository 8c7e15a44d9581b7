// What a runtime of JavaScript takes to open and run a file; the same under Node.js and in a browser.

const TYPES = {
  F16: ["float16", Uint16Array], F32: ["float32", Float32Array], F64: ["float64", Float64Array],
  I8: ["int8", Int8Array], I16: ["int16", Int16Array], I32: ["int32", Int32Array], I64: ["int64", BigInt64Array],
  U8: ["uint8", Uint8Array], U16: ["uint16", Uint16Array], U32: ["uint32", Uint32Array],
  U64: ["uint64", BigUint64Array], BOOL: ["bool", Uint8Array],
};
const NAMES = Object.fromEntries(Object.entries(TYPES).map(([name, [type]]) => [type, name]));
const RUNS = 50;

// Tensors by name of the bytes of a safetensors file.
export function decode(ort, bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const start = 8 + Number(view.getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
  delete header.__metadata__;
  return Object.fromEntries(Object.entries(header).map(([name, { dtype, shape, data_offsets: [from, to] }]) => {
    const [type, Values] = TYPES[dtype];
    return [name, new ort.Tensor(type, new Values(bytes.slice(start + from, start + to).buffer), shape)];
  }));
}

// The bytes of a safetensors file that holds tensors by name.
export function encode(tensors) {
  const header = {}, parts = [];
  let end = 0;
  for (const [name, { type, dims, data }] of Object.entries(tensors)) {
    parts.push(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    header[name] = { dtype: NAMES[type], shape: dims, data_offsets: [end, end += data.byteLength] };
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + text.length + end);
  new DataView(file.buffer).setBigUint64(0, BigInt(text.length), true);
  file.set(text, 8);
  let place = 8 + text.length;
  for (const part of parts) file.set(part, place), place += part.length;
  return file;
}

// Do what `request` asks for; the same as child.py, and `host` is where it happens:
//   model(path)         what a session is made of
//   external(files)     options of a session whose tensors lie in these files, by the names that the model has for them
//   read(path)          the bytes of a file
//   write(path, bytes)  writes a file
//   memory(reset)       bytes that the process has, and had at most since the last reset; null where not known
export async function measure(ort, request, provider, host) {
  try {
    const options = { executionProviders: [provider], logSeverityLevel: 3 };
    const open = async (path, external) => ort.InferenceSession.create(
      await host.model(path), { ...options, ...await host.external(external) });
    const empty = await open(request.empty, {});
    await empty.run({ x: new ort.Tensor("float32", new Float32Array(1), [1]) });
    const before = await host.memory(true), start = performance.now();
    const session = await open(request.path, request.external);
    const seconds = (performance.now() - start) / 1e3, after = await host.memory(false);
    const more = (found, key) => found && before ? found[key] - before.resident : null;
    const latency = {};
    let settled = after;
    for (const [count, file] of Object.entries(request.timed)) {
      try {
        const feed = decode(ort, await host.read(file));
        latency[count] = await median(() => session.run(feed), request.seconds);
        if (Object.keys(latency).length === 1) settled = await host.memory(false);
      } catch { /* a number of inputs that it does not take */ }
    }
    for (const [number, file] of request.feeds.entries()) {
      const found = await session.run(decode(ort, await host.read(file)));
      const numbers = session.outputNames.map((name, place) => [place, found[name]]).filter(([, each]) => each.type in NAMES);
      await host.write(`${request.outputs}/${number}.safetensors`, encode(Object.fromEntries(numbers)));
    }
    return {
      outputs: session.outputNames.length, seconds, latency,
      peak: more(after, "peak"), loaded: more(after, "resident"), settled: more(settled, "resident"),
    };
  } catch (error) {
    return { failed: String(error?.message ?? error).split("\n")[0] };
  }
}

// Call once for nothing, then for about so many seconds, and return the median in seconds.
async function median(run, seconds) {
  await run();
  const times = [];
  for (let sum = 0; !times.length || (times.length < RUNS && sum < seconds); sum += times.at(-1)) {
    const start = performance.now();
    await run();
    times.push((performance.now() - start) / 1e3);
  }
  return times.sort((one, other) => one - other)[times.length >> 1];
}
