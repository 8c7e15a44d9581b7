// The page: fetch the networks, one after the other, and show what each reads in the picture on the board.

import { bitmap, Ink } from "./ink.js";
import { fetchWhole, Network, Problem, startRuntime } from "./network.js";

const FOLDER = new URL("../networks/", import.meta.url);
const TURNS = 9; // answers of each network that are timed at first, so that one slow one does not count
const find = (id) => document.getElementById(id);
const opened = []; // networks, each with the view that shows it
const problems = new Set(); // lines of what went wrong

/** Do something that may fail without taking the rest of the page with it. */
async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    problems.add(error instanceof Problem ? error.message : `This page failed: ${error}`);
    find("problem").textContent = [...problems].join("\n");
    return undefined;
  }
}

/** A card for a network's answers, and a column of the table for what it costs. */
class View {
  #bars;
  #digit;
  #cells = {};

  constructor({ name, accuracy }) {
    this.name = name;
    const card = find("card").content.cloneNode(true);
    card.querySelector("h2").textContent = name;
    this.#digit = card.querySelector(".digit");
    this.#bars = Array.from({ length: 10 }, (_, digit) => {
      return Object.assign(document.createElement("li"), { textContent: digit });
    });
    card.querySelector(".bars").append(...this.#bars);
    find("cards").append(card);
    const heading = Object.assign(document.createElement("th"), { scope: "col", textContent: name });
    find("costs").tHead.rows[0].append(heading);
    for (const row of find("costs").tBodies[0].rows) {
      this.#cells[row.dataset.row] = Object.assign(row.insertCell(), { textContent: "-" });
    }
    this.showCosts({ accuracy: `${(100 * accuracy).toFixed(2)} %` });
  }

  showCosts(texts) {
    for (const [row, text] of Object.entries(texts)) this.#cells[row].textContent = text;
  }

  /** Show the probability of each digit, or, for null, that nothing was read; returns that in words. */
  showAnswer(shares) {
    this.#bars.forEach((bar, digit) => bar.style.setProperty("--share", `${100 * (shares?.[digit] ?? 0)}%`));
    const largest = Math.max(...(shares ?? []));
    this.#digit.textContent = shares ? shares.indexOf(largest) : "-";
    return shares ? `${this.name}: ${this.#digit.textContent} (${(100 * largest).toFixed(1)} %).` : "";
  }
}

/** Let all networks read the board; returns their answers in words. */
async function read(ink, { size, box }) {
  const pixels = ink.empty ? null : ink.picture(size, box);
  bitmap(pixels ?? new Uint8Array(size * size), find("picture"));
  const words = [];
  for (const { network, view } of opened) {
    words.push(view.showAnswer(pixels && (await network.read(pixels))));
    if (pixels) view.showCosts({ answer: network.milliseconds.toFixed(1) });
  }
  return pixels ? words.join(" ") : opened.length ? "Draw a digit." : "";
}

/** A function that reads the board, for every change of it; of those that come meanwhile only the last counts. */
function reader(ink, plan) {
  let asked = false;
  let running = false;
  return async () => {
    asked = true;
    if (running) return;
    running = true;
    find("cards").ariaBusy = "true";
    for (; asked; await new Promise(requestAnimationFrame)) {
      asked = false;
      const words = await attempt(() => read(ink, plan));
      if (!ink.drawing) find("status").textContent = words ?? ""; // so a screen reader hears each digit once
    }
    running = false;
    find("cards").ariaBusy = "false";
  };
}

/** A button for each of the test images, which stand one under the other in a binary PGM file. */
async function addSamples(ink) {
  const url = new URL("digits.pgm", FOLDER);
  const { bytes } = await fetchWhole(url);
  const header = /^P5\s+(\d+)\s+(\d+)\s+255\s/.exec(String.fromCharCode(...bytes.subarray(0, 32)));
  const [size, height] = [Number(header?.[1]), Number(header?.[2])];
  if (header?.[0].length + size * height !== bytes.length) throw new Problem("digits.pgm did not come whole.");
  for (let digit = 0; digit < height / size; digit++) {
    const start = header[0].length + digit * size * size;
    const pixels = bytes.slice(start, start + size * size);
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.setAttribute("aria-label", `a test image of ${digit}`);
    button.append(bitmap(pixels));
    button.addEventListener("click", () => ink.give(pixels));
    find("samples").append(button);
  }
}

async function fetchPlan() {
  const { bytes } = await fetchWhole(new URL("networks.json", FOLDER));
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw new Problem("networks.json did not come whole.");
  }
}

async function main() {
  const plan = await fetchPlan();
  const views = plan.networks.map((network) => new View(network));
  const ink = new Ink(find("board"));
  const answer = reader(ink, plan);
  ink.onChange = answer;
  find("clear").addEventListener("click", () => ink.clear());
  await attempt(() => addSamples(ink));
  const ort = await startRuntime();
  const parts = performance.getEntriesByType("resource").filter(({ name }) => name.includes("/node_modules/"));
  const size = parts.reduce((sum, part) => sum + part.encodedBodySize, 0);
  find("runtime").textContent =
    `onnxruntime-web ${ort.env.versions.web} itself, which starts before: ${size.toLocaleString("en")} bytes.`;
  for (const [index, { file, bytes }] of plan.networks.entries()) {
    find("status").textContent = `Fetching ${file}.`;
    await attempt(async () => {
      const network = await Network.open(ort, new URL(file, FOLDER), bytes);
      const view = views[index];
      const [download, opening] = [network.download.toFixed(3), network.opening.toFixed(3)];
      view.showCosts({ wire: network.wire.toLocaleString("en"), download, opening });
      opened.push({ network, view });
    });
    await answer();
  }
  for (const { network, view } of opened) view.showCosts({ again: (await network.openAgain()).toFixed(3) });
  for (let turn = 0; turn < TURNS; turn++) {
    for (const { network, view } of opened) {
      await network.read(new Uint8Array(plan.size ** 2));
      view.showCosts({ answer: network.milliseconds.toFixed(1) });
    }
  }
}

await attempt(main);
if (!opened.length) find("status").textContent = "";
document.documentElement.dataset.ready = ""; // nothing more is loaded
