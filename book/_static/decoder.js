/* The decoders of a model that ships, run in the page: z goes from one test digit to another, each photo is redrawn.
 *
 * <div data-decoder data-still="ID"></div>
 *
 * Weights, pictures and posterior means come from decoder-model.js (studies/pages/decoder.py). The element ID is hidden
 * while this stands in for it; without JavaScript and in print it is seen. All arithmetic is in 64 bits:
 * tests/browser/test_decoder.py compares the property `pixels` of the div with what PyTorch makes of the same z.
 */
(() => {
"use strict";

// the networks --------------------------------------------------------------------------------------------------------

const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));

/* bfloat16 is the upper half of a float32 */
function weights(text) {
  const halves = new Uint16Array(bytes(text).buffer), words = new Uint32Array(halves.length);
  halves.forEach((half, i) => { words[i] = half << 16; });
  return Float64Array.from(new Float32Array(words.buffer));
}

const LAYERS = {
  dense({weight, bias, shape}, {x}) {
    const n = x.length, y = Float64Array.from(bias);
    for (let o = 0; o < y.length; o++) for (let i = 0; i < n; i++) y[o] += weight[o * n + i] * x[i];
    return {x: y, shape};
  },
  relu(_, {x, shape}) { return {x: x.map(value => Math.max(value, 0)), shape}; },
  /* a transposed convolution: each input pixel paints `kernel` x `kernel` of the output; weight (in, out, kernel, kernel) */
  up({weight, bias, kernel, stride, padding, extra}, {x, shape: [n_in, height, width]}) {
    const n_out = bias.length, H = (height - 1) * stride - 2 * padding + kernel + extra;
    const W = (width - 1) * stride - 2 * padding + kernel + extra, y = new Float64Array(n_out * H * W);
    for (let o = 0; o < n_out; o++) {
      y.fill(bias[o], o * H * W, (o + 1) * H * W);
      for (let i = 0; i < n_in; i++) for (let ky = 0; ky < kernel; ky++) for (let kx = 0; kx < kernel; kx++) {
        const w = weight[((i * n_out + o) * kernel + ky) * kernel + kx];
        for (let row = 0; row < height; row++) {
          const Y = row * stride - padding + ky;
          if (Y < 0 || Y >= H) continue;
          const to = (o * H + Y) * W - padding + kx, from = (i * height + row) * width;
          for (let column = 0; column < width; column++) {
            const X = column * stride - padding + kx;
            if (X >= 0 && X < W) y[to + column * stride] += w * x[from + column];
          }
        }
      }
    }
    return {x: y, shape: [n_out, H, W]};
  },
};

/* z (D) -> picture (3 x side x side), red first, then green, then blue */
const decode = (layers, z) => layers.reduce((state, layer) => LAYERS[layer.kind](layer, state), {x: z}).x;

// the page ------------------------------------------------------------------------------------------------------------

const WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
const SWEEP = 2500;  // milliseconds from one digit to the other

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

class Picture {
  constructor(side, caption) {
    this.canvas = element("canvas", {width: side, height: side, role: "img"});
    this.caption = element("span", {}, caption);
    this.root = element("div", {class: "dc-picture"}, this.canvas, this.caption);
    this.image = new ImageData(side, side);
  }
  /* `pixels` (3 x side x side) from 0 to `top` */
  draw(pixels, top, label) {
    const {data} = this.image, n = data.length / 4;
    for (let i = 0; i < n; i++) {
      for (let c = 0; c < 3; c++) data[4 * i + c] = Math.round(pixels[c * n + i] * 255 / top);  // clamped by the array
      data[4 * i + 3] = 255;
    }
    this.canvas.getContext("2d").putImageData(this.image, 0, 0);
    this.canvas.setAttribute("aria-label", label);
  }
}

function radios(name, legend, labels, chosen, changed) {
  const boxes = labels.map((label, i) => {
    const id = `dc-${name}-${i}`, box = element("input", {type: "radio", id, name: `dc-${name}`, value: i});
    box.checked = i === chosen;
    box.addEventListener("change", () => changed(i));
    return element("div", {}, box, element("label", {for: id}, label));
  });
  return element("fieldset", {class: "dc-radios"}, element("legend", {}, legend), ...boxes);
}

function play(root, model) {
  const {side, latent, names, labels} = model;
  const decoders = model.decoders.map(layers => layers.map(layer => layer.kind === "relu" ? layer
    : {...layer, weight: weights(layer.weight), bias: weights(layer.bias)}));
  const means = new Float64Array(bytes(model.means).buffer);  // (M, digits, D)
  const given = bytes(model.pictures);  // (M, digits, 3, side, side)
  const mean = digit => {
    const at = (state.source * labels.length + digit) * latent;
    return means.subarray(at, at + latent);
  };
  const state = {source: 0, from: 3, to: 8};
  const line = element("p", {class: "gs-hidden", role: "status"});
  const slider = element("input", {type: "range", min: 0, max: 1000, step: 1, value: 0,
    "aria-label": "way of z from the first digit to the second, in thousandths"});
  const button = element("button", {type: "button", class: "gs-play"}, "Play");
  const ends = ["from", "to"].map(() => new Picture(side, "")), drawn = names.map(name => new Picture(side, `draws ${name}`));
  let frame = 0, started = 0, asked = 0, waiting = 0;

  function decodeAll() {
    asked = 0;
    const t = slider.value / slider.max, a = mean(state.from), b = mean(state.to);
    const z = a.map((value, d) => (1 - t) * value + t * b[d]);
    const percent = Math.round(100 * t), words = [state.from, state.to].map(i => WORDS[labels[i]]);
    const where = percent === 0 ? `at the ${words[0]}` : percent === 100 ? `at the ${words[1]}`
      : `${percent} percent of the way from ${words[0]} to ${words[1]}`;
    root.pixels = decoders.map(layers => decode(layers, z));
    drawn.forEach((picture, m) => picture.draw(root.pixels[m], 1, `What decoder ${names[m]} draws ${where}.`));
    slider.setAttribute("aria-valuetext", where);
    clearTimeout(waiting);
    waiting = setTimeout(() => { line.textContent = `z is ${where}.`; }, 700);
  }
  const redraw = () => { asked ||= requestAnimationFrame(decodeAll); };  // once a frame, however often the slider moves
  function show() {
    const size = 3 * side * side;
    ends.forEach((picture, end) => {
      const digit = end ? state.to : state.from, at = (state.source * labels.length + digit) * size;
      picture.draw(given.subarray(at, at + size), 255, `The test picture of a ${WORDS[labels[digit]]} that z ${end ? "goes to" : "comes from"}.`);
      picture.caption.textContent = end ? "to" : "from";
    });
    decodeAll();
  }
  function stop() {
    cancelAnimationFrame(frame);
    frame = 0;
    button.textContent = "Play";
  }
  function step(now) {
    const t = ((now - started) / SWEEP) % 2;
    slider.value = slider.max * (t < 1 ? t : 2 - t);
    decodeAll();
    frame = requestAnimationFrame(step);
  }
  button.addEventListener("click", () => {
    if (frame) return stop();
    button.textContent = "Stop";
    started = performance.now() - SWEEP * slider.value / slider.max;
    frame = requestAnimationFrame(step);
  });
  slider.addEventListener("input", () => { stop(); redraw(); });

  const choose = key => value => { state[key] = value; show(); };
  const still = document.getElementById(root.dataset.still ?? "");
  root.replaceChildren(element("figure", {class: "gaussians decoder"},
    element("div", {class: "dc-row"}, ends[0].root, ...drawn.map(picture => picture.root), ends[1].root),
    element("div", {class: "gs-controls"}, button, slider), line,
    element("div", {class: "dc-choices"}, radios("from", "From", labels.map(String), state.from, choose("from")),
      radios("to", "To", labels.map(String), state.to, choose("to")),
      radios("source", "z is read from", names, state.source, choose("source"))),
    element("figcaption", {}, element("b", {}, "Move z from one digit to another. "), model.caption)));
  (still?.closest(".cell") ?? still)?.classList.add("gs-still");
  show();
}

function start() {
  for (const root of document.querySelectorAll("[data-decoder]")) if (window.mmvmDecoder) play(root, window.mmvmDecoder);
}
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
else start();
})();
