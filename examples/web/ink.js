// A board to draw on, and the small picture that a network gets of it.

const WIDTH = 0.06; // of a line, beside the board's side
const PICTURE_WIDTH = 0.12; // of a line, beside the side of the box that a digit fills in its picture
const DOT = 0.1; // the smallest extent that is enlarged to fill the box, beside the board's side

/** Lines drawn with a pointer, or a picture that was given; calls `onChange` as it changes. */
export class Ink {
  onChange = () => {};
  #lines = []; // of points [x, y], 0..1
  #given = null;
  #canvas;
  #pointer = null;

  constructor(canvas) {
    this.#canvas = canvas;
    canvas.addEventListener("pointerdown", (event) => {
      if (this.drawing || event.button) return;
      this.#pointer = event.pointerId;
      canvas.setPointerCapture(event.pointerId);
      if (this.#given) this.clear();
      this.#lines.push([this.#place(event)]);
      this.#changed();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== this.#pointer) return;
      const moves = event.getCoalescedEvents?.() ?? [];
      this.#lines.at(-1).push(...(moves.length ? moves : [event]).map((move) => this.#place(move)));
      this.#changed();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => {
        if (event.pointerId !== this.#pointer) return;
        this.#pointer = null;
        this.#changed();
      });
    }
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  get drawing() {
    return this.#pointer !== null;
  }

  get empty() {
    return !this.#given && !this.#lines.length;
  }

  clear() {
    this.give(null);
  }

  /** Show a picture instead, [size * size] bytes; null for nothing. */
  give(pixels) {
    this.#lines = [];
    this.#given = pixels;
    this.#changed();
  }

  /** The board as [size * size] bytes, made as MNIST was: a digit fills a box, its centre of mass is in the middle. */
  picture(size, box) {
    if (this.#given) return this.#given;
    const points = this.#lines.flat();
    const range = (axis) => {
      const values = points.map((point) => point[axis]);
      return [Math.min(...values), Math.max(...values)];
    };
    const [[left, right], [top, bottom]] = [range(0), range(1)];
    const width = PICTURE_WIDTH * box;
    const scale = (box - width) / Math.max(right - left, bottom - top, DOT);
    const room = (size - box) / 2;
    const draw = (dx, dy) => {
      const context = new OffscreenCanvas(size, size).getContext("2d", { willReadFrequently: true });
      context.translate(size / 2 + dx, size / 2 + dy);
      context.scale(scale, scale);
      context.translate(-(left + right) / 2, -(top + bottom) / 2);
      trace(context, this.#lines, width / scale);
      return context.getImageData(0, 0, size, size).data.filter((_, index) => index % 4 === 3);
    };
    const centred = draw(0, 0);
    let [mass, x, y] = [0, 0, 0];
    centred.forEach((value, index) => {
      mass += value;
      x += value * ((index % size) + 0.5);
      y += value * (Math.floor(index / size) + 0.5);
    });
    const shift = (sum) => Math.max(-room, Math.min(room, size / 2 - sum / mass));
    return draw(shift(x), shift(y));
  }

  #place(event) {
    const { left, top, width, height } = this.#canvas.getBoundingClientRect();
    return [(event.clientX - left) / width, (event.clientY - top) / height];
  }

  #changed() {
    this.#draw();
    this.onChange();
  }

  #draw() {
    const side = Math.round(this.#canvas.clientWidth * devicePixelRatio);
    this.#canvas.width = this.#canvas.height = side; // which clears it
    const context = this.#canvas.getContext("2d");
    if (this.#given) {
      context.imageSmoothingEnabled = false;
      context.drawImage(bitmap(this.#given), 0, 0, side, side);
    } else {
      context.scale(side, side);
      trace(context, this.#lines, WIDTH);
    }
  }
}

/** A square picture, [size * size] bytes, as white ink on a canvas of its own, or on the one given. */
export function bitmap(pixels, canvas = document.createElement("canvas")) {
  const size = (canvas.width = canvas.height = Math.sqrt(pixels.length));
  const image = new ImageData(size, size);
  pixels.forEach((value, index) => image.data.set([255, 255, 255, value], 4 * index));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function trace(context, lines, width) {
  Object.assign(context, { strokeStyle: "#fff", lineWidth: width, lineCap: "round", lineJoin: "round" });
  for (const line of lines) {
    context.beginPath();
    context.moveTo(...line[0]);
    for (const point of line) context.lineTo(...point); // the first one too: a line of no length is a dot
    context.stroke();
  }
}
