// Open pages in Chromium, draw on them and say what they show:  node drive.mjs CHROMIUM BASE VISITS
//
// VISITS is JSON: [{path, drawings, samples, ink}], and so is what is printed: for each visit what the page shows at
// last, and after each drawing and sample. Exit status 3: the browser does not start.

import { chromium } from "playwright-core";

const [executablePath, base, visits] = process.argv.slice(2);
let browser;
try {
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
} catch (error) {
  console.error(error.message.split("\n")[0]);
  process.exit(3);
}
const context = await browser.newContext({ viewport: { width: 1000, height: 900 } });

/** Draw polylines, [[x, y], ...] from 0 to 1 in an element, with the mouse. */
async function draw(page, selector, lines) {
  const { x, y, width, height } = await page.locator(selector).boundingBox();
  for (const line of lines) {
    const [first, ...rest] = line.map(([u, v]) => [x + u * width, y + v * height]);
    await page.mouse.move(...first);
    await page.mouse.down();
    for (const point of rest) await page.mouse.move(...point, { steps: 2 });
    await page.mouse.up();
  }
}

/** What the page shows once its networks have answered. */
async function shown(page) {
  await page.waitForSelector("#cards:not([aria-busy=true])", { state: "attached" });
  return page.evaluate(() => {
    const picture = document.getElementById("picture");
    const { data } = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height);
    return {
      problem: document.getElementById("problem").innerText,
      status: document.getElementById("status").innerText,
      digits: [...document.querySelectorAll(".digit")].map((digit) => digit.innerText),
      picture: [...data.filter((_, index) => index % 4 === 3)],
      costs: Object.fromEntries(
        [...document.querySelectorAll("#costs tbody tr")].map((row) => [
          row.dataset.row,
          [...row.querySelectorAll("td")].map((cell) => cell.innerText),
        ]),
      ),
    };
  });
}

async function visit({ path, drawings = [], samples = [], ink = [] }) {
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(base + path);
  await page.waitForSelector("html[data-ready]", { state: "attached" });
  const after = [];
  for (const lines of drawings) {
    await draw(page, "#board", lines);
    after.push(await shown(page));
    await page.click("#clear");
  }
  for (const sample of samples) {
    await page.click(`#samples button:nth-child(${sample + 1})`);
    after.push(await shown(page));
  }
  if (after.length) await page.click("#clear");
  const last = await shown(page);
  const pictures = [];
  for (const { lines, size, box } of ink) {
    await page.evaluate(async () => {
      const { Ink } = await import(new URL("ink.js", location.href).href);
      const canvas = Object.assign(document.createElement("canvas"), { id: "tried" });
      canvas.style = "position: fixed; inset: 0 auto auto 0; width: 400px; height: 400px; background: gray";
      document.body.append(canvas);
      globalThis.tried = new Ink(canvas);
    });
    await draw(page, "#tried", lines);
    pictures.push(await page.evaluate(([size, box]) => [...tried.picture(size, box)], [size, box]));
    await page.evaluate(() => document.getElementById("tried").remove());
  }
  await page.close();
  return { ...last, errors, after, pictures };
}

const results = [];
for (const each of JSON.parse(visits)) results.push(await visit(each));
await browser.close();
console.log(JSON.stringify(results));
