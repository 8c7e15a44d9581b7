// Networks that are fetched whole or not at all, and run by onnxruntime-web.

/** What a page says instead of a network's answer: one line, for people. */
export class Problem extends Error {}

/**
 * Fetch a file.
 *
 * @param {URL} url
 * @param {number} [expected] its size in bytes, where that is known
 * @returns {{bytes: Uint8Array, wire: number, seconds: number}} `wire` is less than `bytes.length` where the server compresses
 * @throws {Problem} it is not there, or does not come whole
 */
export async function fetchWhole(url, expected) {
  const name = nameOf(url);
  const start = performance.now();
  let response;
  try {
    response = await fetch(url, { cache: "no-store" });
  } catch {
    throw new Problem(`${name} cannot be fetched: the server does not answer.`);
  }
  if (!response.ok) {
    throw new Problem(`${name} cannot be fetched (${response.status}): examples/make_networks.py makes the networks.`);
  }
  const parts = [];
  let length = 0;
  let broken = false;
  try {
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      length += value.length;
    }
  } catch {
    broken = true;
  }
  expected ??= broken ? Number(response.headers.get("content-length")) || NaN : length;
  if (length !== expected) {
    const whole = Number.isNaN(expected) ? "more" : expected.toLocaleString("en");
    throw new Problem(
      `${name} did not come whole: ${length.toLocaleString("en")} bytes of ${whole}. ` +
        "Load the page again; if that does not help, the file on the server is damaged.",
    );
  }
  const seconds = (performance.now() - start) / 1000;
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  const entry = performance.getEntriesByName(url.href).at(-1);
  return { bytes, wire: entry?.encodedBodySize || length, seconds };
}

// a graph of one Identity: with it the runtime starts, so that no network's time has that in it
const NOTHING = "CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0=";

/** Load and start onnxruntime-web, on one thread: more would need headers that plain servers do not send. */
export async function startRuntime() {
  let ort;
  try {
    ort = await import("./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs");
  } catch {
    throw new Problem("onnxruntime-web cannot be loaded: run `npm ci` in examples/web.");
  }
  ort.env.wasm.numThreads = 1;
  try {
    await ort.InferenceSession.create(Uint8Array.from(atob(NOTHING), (byte) => byte.charCodeAt(0)));
  } catch (error) {
    throw new Problem(`onnxruntime-web does not start: ${firstLine(error)}`);
  }
  return ort;
}

/** A classifier of pictures, which was fetched and opened. */
export class Network {
  #ort;
  #bytes;
  #session;
  #milliseconds = [];

  /**
   * @param ort onnxruntime-web
   * @param {URL} url of an ONNX file
   * @param {number} expected its size in bytes
   * @returns {Network} with `wire` in bytes, and `download` and `opening` in seconds
   * @throws {Problem} it does not come whole, or the runtime cannot open it
   */
  static async open(ort, url, expected) {
    const { bytes, wire, seconds: download } = await fetchWhole(url, expected);
    const network = Object.assign(new Network(), { wire, download });
    network.#ort = ort;
    network.#bytes = bytes;
    try {
      [network.#session, network.opening] = await network.#opened();
    } catch (error) {
      throw new Problem(`${nameOf(url)} cannot be opened: ${firstLine(error)}`);
    }
    return network;
  }

  /** Open it once more, for the time alone, in seconds. */
  async openAgain() {
    const [session, seconds] = await this.#opened();
    await session.release();
    return seconds;
  }

  async #opened() {
    const start = performance.now();
    const session = await this.#ort.InferenceSession.create(this.#bytes);
    return [session, (performance.now() - start) / 1000];
  }

  /** The probability of each class, 0..1, of a picture of [size * size] bytes. */
  async read(pixels) {
    const size = Math.sqrt(pixels.length);
    const input = Float32Array.from(pixels, (value) => value / 255);
    const feeds = { [this.#session.inputNames[0]]: new this.#ort.Tensor("float32", input, [1, 1, size, size]) };
    const start = performance.now();
    const results = await this.#session.run(feeds);
    this.#milliseconds.push(performance.now() - start);
    const logits = results[this.#session.outputNames[0]].data;
    const largest = Math.max(...logits);
    const powers = Array.from(logits, (value) => Math.exp(value - largest));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((value) => value / sum);
  }

  /** The median of the last answers' times. */
  get milliseconds() {
    const last = this.#milliseconds.slice(-25).sort((a, b) => a - b);
    return last[Math.floor(last.length / 2)];
  }
}

function nameOf(url) {
  return url.pathname.split("/").pop();
}

function firstLine(error) {
  return String(error?.message ?? error).split("\n")[0];
}
