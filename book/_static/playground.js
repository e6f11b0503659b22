/* Three Gaussians to play with, without a kernel and without a network.
 *
 * <div data-gaussians="pool"></div>   drag q_1, q_2, q_3: their mixture and other pools, divergences and bounds in nats
 * <div data-gaussians="pull" data-still="ID"></div>   gradient flow of three posteriors under a prior, beta a slider
 *
 * The figure of id ID is hidden while the playground stands in for it; without JavaScript and in print it is seen.
 * Means and standard deviations are arrays of M numbers, everything else is in nats. tests/browser/test_playground.py
 * compares the numbers on the page, attributes data-value, with those of the package.
 */
(() => {
"use strict";
const M = 3, CEILING = M * Math.log(M), LOG_2PI = Math.log(2 * Math.PI);
const NAMES = ["q₁", "q₂", "q₃"];

// the mathematics -----------------------------------------------------------------------------------------------------

const logNormal = (z, mean, sd) => -0.5 * (((z - mean) / sd) ** 2 + LOG_2PI) - Math.log(sd);
const klNormal = (m, s, mean, sd) => Math.log(sd / s) + (s * s + (m - mean) ** 2) / (2 * sd * sd) - 0.5;
const sum = values => values.reduce((a, b) => a + b, 0);

/* log of the equally weighted power mean of exponent t, not normalised; t = 1 is the mixture */
function logMean(z, means, sds, t) {
  const logs = means.map((mean, m) => t * logNormal(z, mean, sds[m])), most = Math.max(...logs);
  return (most + Math.log(sum(logs.map(value => Math.exp(value - most))) / M)) / t;
}

/* log-density of the Hellinger pool, (mean of sqrt q_m)^2 over its closed normaliser, the mean of all affinities */
function hellinger(means, sds) {
  let z = 0;
  for (let m = 0; m < M; m++) for (let n = 0; n < M; n++) {
    const variance = sds[m] ** 2 + sds[n] ** 2;
    z += Math.sqrt(2 * sds[m] * sds[n] / variance) * Math.exp(-((means[m] - means[n]) ** 2) / (4 * variance)) / (M * M);
  }
  return x => logMean(x, means, sds, 0.5) - Math.log(z);
}

/* the normalised product, without N(0, 1) among the experts */
function product(means, sds) {
  const precisions = sds.map(sd => 1 / (sd * sd)), total = sum(precisions);
  return [sum(means.map((mean, m) => mean * precisions[m])) / total, 1 / Math.sqrt(total)];
}

const POOLS = [
  {key: "mixture", label: "mixture h", note: "MMVM’s prior; MoE’s joint posterior", log: (means, sds) => z => logMean(z, means, sds, 1)},
  {key: "hellinger", label: "Hellinger pool", note: "between mixture and product", log: hellinger},
  {key: "product", label: "product", note: "PoE’s joint posterior", log: (means, sds) => {
    const [mean, sd] = product(means, sds);
    return z => logNormal(z, mean, sd);
  }},
  {key: "standard", label: "N(0, 1)", note: "the prior of independent VAEs", log: () => z => logNormal(z, 0, 1)},
];

/* E of f(u, z) under N(mean, sd^2) by the trapezoid rule, u standardised: of a smooth f exact to many digits */
function expectation(mean, sd, f, step) {
  let total = 0;
  for (let u = -9; u <= 9 + 1e-9; u += step) total += Math.exp(-0.5 * u * u) * f(u, mean + sd * u);
  return total * step / Math.sqrt(2 * Math.PI);
}

const klTo = (log, mean, sd, step = 1 / 80) =>
  expectation(mean, sd, (u, z) => logNormal(z, mean, sd) - log(z), step);

function divergences(means, sds) {
  const costs = {}, pairs = means.map((mean, m) => means.map((other, n) => klNormal(mean, sds[m], other, sds[n])));
  for (const pool of POOLS) {
    const log = pool.log(means, sds);
    costs[pool.key] = means.map((mean, m) => klTo(log, mean, sds[m]));
  }
  const R = sum(costs.mixture);
  return {kl: costs.mixture, R, js: R / M, pairwise: sum(pairs.map(sum)) / M,
    variational: -sum(pairs.map(row => Math.log(sum(row.map(kl => Math.exp(-kl))) / M))),
    costs: Object.fromEntries(POOLS.map(({key}) => [key, sum(costs[key])]))};
}

/* The toy of the landing page: sum_m KL(q_m || t_m) + beta times the prior's term, t_m what modality m alone wants.
 * Its slope by means and by logarithms of standard deviations. */
const TARGETS = {means: [-0.7, 1.2, 2.75], sds: [0.6, 0.45, 0.7]};
function slope(state, beta, prior) {
  const {means, sds} = state, log = z => logMean(z, means, sds, 1);
  const of = means.map((mean, m) => {
    const s = sds[m], data = [(mean - TARGETS.means[m]) / TARGETS.sds[m] ** 2, (s / TARGETS.sds[m]) ** 2 - 1];
    if (prior !== "mmvm") {
      const share = prior === "joint" ? beta / M : beta;  // one KL for all, or one each
      return [data[0] + share * mean, data[1] + share * (s * s - 1)];
    }
    // d KL(q_m || h) summed over m: what h moves cancels, because the posteriors' mean is h
    const excess = (u, z) => -0.5 * (u * u + LOG_2PI) - Math.log(s) - log(z);
    return [data[0] + beta * expectation(mean, s, (u, z) => u / s * excess(u, z), 0.1),
      data[1] + beta * expectation(mean, s, (u, z) => (u * u - 1) * excess(u, z), 0.1)];
  });
  if (prior !== "joint") return of;
  const centre = [sum(means) / M, sum(sds.map(Math.log)) / M], all = [0, 1].map(i => sum(of.map(pair => pair[i])) / M);
  return of.map((_, m) => [all[0] + 8 * (means[m] - centre[0]), all[1] + 8 * (Math.log(sds[m]) - centre[1])]);
}

/* one step of descent in place; how far it went */
function flow(state, beta, prior, step) {
  const down = slope(state, beta, prior);
  let far = 0;
  down.forEach(([mean, logsd], m) => {
    state.means[m] -= step * mean;
    state.sds[m] *= Math.exp(-step * logsd);
    far = Math.max(far, Math.abs(mean), Math.abs(logsd));
  });
  return far;
}

// the page ------------------------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";
let ids = 0;

function element(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "circle", "text", "g"].includes(tag);
  const made = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const sub = text => {  // "KL(q_m ‖ h)": what follows _ is set lower
  const made = element("span", {class: "gs-math"});
  text.split(/(_\w)/).forEach(part => made.append(part.startsWith("_") ? element("sub", {}, part.slice(1)) : part));
  return made;
};
const hidden = text => element("span", {class: "gs-hidden"}, text);
const number = name => element("span", {class: "gs-number", "data-name": name});
function say(place, value, digits = 3) {
  place.dataset.value = String(value);
  place.textContent = (Math.abs(value) < 0.5 * 10 ** -digits ? 0 : value).toFixed(digits);
}

function slider(label, name, min, max, step, value) {
  const id = `gs-${++ids}`, input = element("input", {type: "range", id, min, max, step, value, "data-name": name});
  const shown = element("span", {class: "gs-value"});
  return {input, shown, row: element("div", {class: "gs-slider"}, element("label", {for: id}, ...label), input, shown)};
}

/* The plane of z and density, redrawn at the width that it has; layers in the order of painting */
class Stage {
  constructor(height, range, top, label) {
    Object.assign(this, {height, range, top});
    this.svg = element("svg", {role: "img", "aria-label": label, height, width: "100%"});
    this.axis = element("g", {class: "gs-axis"});
    this.curves = element("g");
    this.handles = element("g");
    this.names = element("g", {class: "gs-names"});
    this.svg.append(this.axis, this.curves, this.handles, this.names);
    this.paths = {};
  }
  measure() {
    const width = Math.max(this.svg.getBoundingClientRect().width, 240);
    if (width === this.width) return;
    this.width = width;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.axis.replaceChildren(element("line", {x1: 0, x2: width, y1: this.floor, y2: this.floor}));
    for (let z = Math.ceil(this.range[0]); z <= this.range[1]; z++) if (z % 2 === 0) this.axis.append(
      element("line", {x1: this.x(z), x2: this.x(z), y1: this.floor, y2: this.floor + 4}),
      element("text", {x: this.x(z), y: this.floor + 17, "text-anchor": "middle"}, `${z}`.replace("-", "−")));
    this.axis.append(element("text", {x: width - 4, y: this.floor - 6, "text-anchor": "end", class: "gs-z"}, "z"));
  }
  get floor() { return this.height - 22; }
  x(z) { return (z - this.range[0]) / (this.range[1] - this.range[0]) * this.width; }
  y(density) { return this.floor - density / this.top * (this.floor - 10); }
  z(x) { return this.range[0] + x / this.width * (this.range[1] - this.range[0]); }
  density(y) { return (this.floor - y) / (this.floor - 10) * this.top; }
  highest(log) {
    let found = 0;
    for (let i = 0; i <= 500; i++) found = Math.max(found, Math.exp(log(this.range[0] + (this.range[1] - this.range[0]) * i / 500)));
    return found;
  }
  curve(key, classes, log, closed = false) {
    const path = this.paths[key] ??= this.curves.appendChild(element("path"));
    path.setAttribute("class", classes);
    const [low, high] = this.range, n = 240, points = [];
    for (let i = 0; i <= n; i++) {
      const z = low + (high - low) * i / n;
      points.push(`${this.x(z).toFixed(1)} ${this.y(Math.exp(log(z))).toFixed(1)}`);
    }
    path.setAttribute("d", `M${points.join("L")}${closed ? `L${this.width} ${this.floor}L0 ${this.floor}Z` : ""}`);
    path.style.display = "";
  }
  hide(key) { this.paths[key].style.display = "none"; }
  /* names of curves, [text, class, x, y in pixels]: those beside each other moved apart */
  name(names) {
    const width = 24, placed = names.toSorted((one, other) => one[2] - other[2]);
    for (let round = 0; round < 20; round++) for (let i = 1; i < placed.length; i++) {
      const near = width - (placed[i][2] - placed[i - 1][2]);
      if (near > 0 && Math.abs(placed[i][3] - placed[i - 1][3]) < 18) { placed[i - 1][2] -= near / 2; placed[i][2] += near / 2; }
    }
    this.names.replaceChildren(...placed.map(([text, kind, x, y]) => element("text",
      {class: kind, x: Math.min(Math.max(x, 12), this.width - 12), y, "text-anchor": "middle"}, text)));
  }
}

function place(root, body, caption) {
  const still = document.getElementById(root.dataset.still ?? ""), number = still?.querySelector(".caption-number");
  root.replaceChildren(element("figure", {class: "gaussians"}, ...body,
    element("figcaption", {}, ...(number ? [number.cloneNode(true)] : []), ...caption)));
  (still?.closest(".cell") ?? still)?.classList.add("gs-still");
}

const watch = (stage, draw) => new ResizeObserver(() => { stage.measure(); draw(); }).observe(stage.svg);

/* what a reader of screens hears, once nothing has moved for a moment */
function announcer() {
  const line = element("p", {class: "gs-hidden", role: "status"});
  let waiting = 0;
  return {line, tell: text => { clearTimeout(waiting); waiting = setTimeout(() => { line.textContent = text; }, 700); }};
}

const PRESETS = {
  "agree": [[0, 0, 0], [0.8, 0.8, 0.8]],
  "two against one": [[-1.5, -1.1, 2.4], [0.6, 0.8, 0.6]],
  "far apart": [[-4, 0, 4], [0.5, 0.5, 0.5]],
};
const TOP = 1.02, SHARE = 1.1;  // densities at the upper edge: what Gaussians of the least width need, or SHARE of the highest
const START = [[-1.4, 0.2, 1.8], [0.8, 0.6, 1]];

function pool(root) {
  const state = {means: [...START[0]], sds: [...START[1]]}, shown = new Set(["mixture"]);
  const stage = new Stage(290, [-6.3, 6.3], TOP, "");
  let dragged = false;
  const {line, tell} = announcer();
  const controls = NAMES.map((name, m) => ({
    mean: slider(["mean", hidden(` of ${name}`)], `mean-${m}`, -5, 5, 0.05, state.means[m]),
    sd: slider(["width", hidden(` of ${name}, a standard deviation`)], `sd-${m}`, 0.45, 2, 0.05, state.sds[m]),
    kl: number(`kl-${m}`)}));
  const bars = [["R", "exact R = Σ KL(q_m ‖ h)"], ["variational", "variational bound"], ["pairwise", "pairwise bound"]].map(
    ([key, label]) => ({key, value: number(key), fill: element("span"), label}));
  const js = number("js"), costs = Object.fromEntries(POOLS.map(({key}) => [key, number(`cost-${key}`)]));

  const handles = NAMES.map((name, m) => {
    const handle = element("g", {class: `gs-handle gs-q${m}`}, element("circle", {r: 20, class: "gs-touch"}),
      element("circle", {r: 8}));
    stage.handles.append(handle);
    handle.addEventListener("pointerdown", event => {
      handle.setPointerCapture(event.pointerId);
      event.preventDefault();
      dragged = true;  // the scale stays
    });
    handle.addEventListener("lostpointercapture", () => { dragged = false; draw(); });
    handle.addEventListener("pointermove", event => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const box = stage.svg.getBoundingClientRect();
      set(m, stage.z(event.clientX - box.left),
        1 / (Math.sqrt(2 * Math.PI) * Math.max(stage.density(event.clientY - box.top), 1e-3)));
    });
    return handle;
  });

  function set(m, mean, sd) {  // through the sliders, which know their limits and steps
    controls[m].mean.input.value = mean;
    controls[m].sd.input.value = sd;
    read();
  }
  function read() {
    state.means = controls.map(control => Number(control.mean.input.value));
    state.sds = controls.map(control => Number(control.sd.input.value));
    draw();
  }
  function draw() {
    if (!stage.width) return;
    const {means, sds} = state, found = divergences(means, sds);
    const logs = Object.fromEntries(POOLS.map(({key, log}) => [key, log(means, sds)]));
    if (!dragged) stage.top = Math.max(TOP, ...[...shown].map(key => SHARE * stage.highest(logs[key])));
    for (const key of ["hellinger", "mixture", "product", "standard"]) {  // from below
      stage.curve(key, `gs-pool gs-${key}`, logs[key], key === "mixture");
      if (!shown.has(key)) stage.hide(key);
    }
    stage.name(NAMES.map((name, m) => [name, `gs-q${m}`, stage.x(means[m]),
      stage.y(1 / (sds[m] * Math.sqrt(2 * Math.PI))) - 13]));
    NAMES.forEach((_, m) => {
      stage.curve(`q${m}`, `gs-line gs-q${m}`, z => logNormal(z, means[m], sds[m]));
      const peak = 1 / (sds[m] * Math.sqrt(2 * Math.PI));
      handles[m].setAttribute("transform", `translate(${stage.x(means[m])} ${stage.y(peak)})`);
      controls[m].mean.shown.textContent = means[m].toFixed(2).replace("-", "−");
      controls[m].sd.shown.textContent = sds[m].toFixed(2);
      say(controls[m].kl, found.kl[m]);
    });
    for (const {key, value, fill} of bars) {
      say(value, found[key]);
      fill.style.width = `${Math.min(100, 100 * Math.max(found[key], 0) / (2 * CEILING))}%`;
      fill.classList.toggle("gs-over", found[key] > 2 * CEILING);
    }
    say(js, found.js);
    for (const {key} of POOLS) say(costs[key], found.costs[key]);
    const text = `KL to the mixture: ${NAMES.map((name, m) => `${name} ${found.kl[m].toFixed(2)}`).join(", ")}; `
      + `sum ${Math.abs(found.R).toFixed(2)} of at most ${CEILING.toFixed(2)} nats.`;
    stage.svg.setAttribute("aria-label", `Densities of three Gaussians over z, means ${means.map(v => v.toFixed(1)).join(", ")}, `
      + `widths ${sds.map(v => v.toFixed(1)).join(", ")}, with ${POOLS.filter(({key}) => shown.has(key)).map(({label}) => label).join(", ") || "no pool"}.`);
    tell(text);
  }

  const presets = Object.entries(PRESETS).map(([name, [means, sds]]) => {
    const button = element("button", {type: "button"}, name);
    button.addEventListener("click", () => {
      means.forEach((mean, m) => { controls[m].mean.input.value = mean; controls[m].sd.input.value = sds[m]; });
      read();
    });
    return button;
  });
  for (const {mean, sd} of controls) for (const {input} of [mean, sd]) input.addEventListener("input", read);
  const choices = POOLS.map(({key, label, note}) => {
    const id = `gs-${++ids}`, box = element("input", {type: "checkbox", id, "data-name": `show-${key}`});
    box.checked = shown.has(key);
    box.addEventListener("change", () => { shown[box.checked ? "add" : "delete"](key); draw(); });
    return element("div", {class: "gs-choice"}, box, element("label", {for: id},
      element("svg", {class: "gs-key", viewBox: "0 0 30 8", width: 30, height: 8, "aria-hidden": "true"},
        element("path", {class: `gs-pool gs-${key}`, d: "M0 4H30"})), label, element("small", {}, note)), costs[key]);
  });
  place(root, [element("p", {}, element("b", {class: "gs-title"}, "Drag the three Gaussians"), ": sideways moves one, down widens it."),
    stage.svg, line,
    element("div", {class: "gs-buttons"}, ...presets),
    element("div", {class: "gs-columns"}, ...controls.map(({mean, sd, kl}, m) => element("div", {class: `gs-card gs-q${m}`},
      mean.row, sd.row, element("p", {}, sub(`KL(q_${m + 1} ‖ h) = `), kl, " nats")))),
    element("div", {class: "gs-columns gs-two"},
      element("div", {class: "gs-bars"}, element("p", {class: "gs-title"}, "R and what is trained for it (nats)"),
        ...bars.map(({label, value, fill}) => element("div", {class: "gs-bar"}, sub(label), value,
          element("div", {class: "gs-track"}, fill, element("i")))),
        element("p", {}, "R = 3 JS, JS = ", js, `; the mark is at 3\u00a0log\u00a03\u00a0=\u00a0${CEILING.toFixed(3)}`)),
      element("div", {class: "gs-pools"}, element("p", {class: "gs-title"}, "Pools, and their cost as a prior (nats)"),
        ...choices))],
  ["Exact R levels off at its ceiling, the pairwise bound grows with the square of the distance. The cost of a pool is the sum of "
    + "the three KLs to it; none is below that of the mixture. KLs without a closed form are integrated numerically."]);
  watch(stage, draw);
}

const PRIORS = {
  mmvm: {label: "MMVM: their mixture", ceiling: CEILING, text: "Σ KL(q_m ‖ h)", prior: "h", title: "Pulled together, not made one.",
    said: "Turn up β: three posteriors (solid) leave what their own modality wants (dashed) for their mixture h (shaded), which "
      + "moves with them."},
  independent: {label: "Independent VAEs: N(0, 1)", text: "Σ KL(q_m ‖ N(0, 1))", prior: "N(0, 1)",
    title: "Each for itself.", said: "Turn up β: three posteriors (solid) leave what their own modality wants (dashed) for one "
      + "fixed prior (shaded), wherever the others are."},
  joint: {label: "Joint VAE: one for all", text: "KL(q ‖ N(0, 1))", prior: "N(0, 1)", title: "Made one.",
    said: "One posterior q (solid) stands for all three modalities, between what each of them wants (dashed). Turn up β: it goes "
      + "to the fixed prior (shaded)."},
};
const SWEEP = 3500, END = 66;  // milliseconds from beta 0 to the slider's place END
const betaAt = place => place === 0 ? 0 : 2 ** ((place - 50) / 12.5);

function pull(root) {
  const state = {means: [...TARGETS.means], sds: [...TARGETS.sds]}, still = matchMedia("(prefers-reduced-motion: reduce)");
  const stage = new Stage(240, [-3.2, 5.2], 1, ""), name = `gs-${++ids}`;
  let prior = "mmvm", frame = 0, sweep = null, settled = false;
  const {line, tell} = announcer();
  const beta = slider(["β"], "beta", 0, 100, 1, 0), cost = number("cost"), term = element("span"), most = element("span");
  const gauge = element("span"), button = element("button", {type: "button", class: "gs-play"});

  function draw() {
    if (!stage.width) return;
    const {means, sds} = state, b = betaAt(Number(beta.input.value));
    if (prior === "mmvm") stage.curve("prior", "gs-prior gs-mixture", z => logMean(z, means, sds, 1), true);
    else stage.curve("prior", "gs-prior gs-standard", z => logNormal(z, 0, 1), true);
    NAMES.forEach((_, m) => stage.curve(`t${m}`, `gs-target gs-q${m}`, z => logNormal(z, TARGETS.means[m], TARGETS.sds[m])));
    NAMES.forEach((_, m) => stage.curve(`q${m}`, `gs-line gs-${prior === "joint" ? "product" : `q${m}`}`,
      z => logNormal(z, means[m], sds[m])));
    const peaks = means.map((mean, m) => [stage.x(mean), stage.y(1 / (sds[m] * Math.sqrt(2 * Math.PI))) - 7]);
    stage.name([[PRIORS[prior].prior, prior === "mmvm" ? "gs-mixture" : "gs-standard",
      stage.x(prior === "mmvm" ? sum(means) / M : 0), stage.floor - 8],
    ...(prior === "joint" ? [["q", "gs-product", ...peaks[0]]] : NAMES.map((one, m) => [one, `gs-q${m}`, ...peaks[m]]))]);
    const kl = prior === "mmvm" ? means.map((mean, m) => klTo(z => logMean(z, means, sds, 1), mean, sds[m]))
      : means.map((mean, m) => klNormal(mean, sds[m], 0, 1));
    const total = prior === "joint" ? sum(kl) / M : sum(kl);
    say(cost, total, 2);
    gauge.style.width = `${Math.min(100, 100 * Math.max(total, 0) / CEILING)}%`;
    beta.shown.textContent = b === 0 ? "0" : b < 1 ? b.toFixed(2) : b.toFixed(1);
    beta.input.setAttribute("aria-valuetext", `beta ${beta.shown.textContent}`);
    stage.svg.dataset.means = means.join(" ");
    stage.svg.dataset.sds = sds.join(" ");
    stage.svg.setAttribute("aria-label", `${prior === "joint" ? "One posterior over z with mean "
      + means[0].toFixed(1) : `Three posteriors over z with means ${means.map(v => v.toFixed(1)).join(", ")}`} and, `
      + `shaded, ${prior === "mmvm" ? "their mixture, which is the prior of each" : "the fixed prior N(0, 1)"}.`);
  }
  function advance() {
    const b = betaAt(Number(beta.input.value));
    let far = 0;
    for (let i = 0; i < 5; i++) far = flow(state, b, prior, 0.012 / (1 + 0.25 * b));
    return far;
  }
  function settle() {  // at once, where nothing should move
    for (let i = 0; i < 4000 && advance() > 1e-4; i++);
    draw();
    quiet();
  }
  function quiet() {
    settled = true;
    tell(`beta ${beta.shown.textContent}: ${PRIORS[prior].text.replace("_m", "")} is ${Number(cost.dataset.value).toFixed(2)} nats`);
  }
  function tick(time) {
    frame = 0;
    if (sweep) {
      sweep.from ??= time - sweep.done * SWEEP;
      sweep.done = Math.min(1, (time - sweep.from) / SWEEP);
      beta.input.value = Math.round(sweep.done * END);
      if (sweep.done === 1) stop();
    }
    const far = advance();
    draw();
    if (sweep || far > 2e-3) run();
    else quiet();
  }
  function run() {
    settled = false;
    if (still.matches) settle();
    else frame ||= requestAnimationFrame(tick);
  }
  function stop() { sweep = null; button.textContent = "Play β"; }
  function play() {
    if (sweep) return stop();
    sweep = {done: 0};
    button.textContent = "Stop";
    if (still.matches) { beta.input.value = END; stop(); }
    run();
  }

  const radios = Object.entries(PRIORS).map(([key, {label}]) => {
    const id = `gs-${++ids}`, box = element("input", {type: "radio", id, name, value: key});
    box.checked = key === prior;
    box.addEventListener("change", () => { prior = key; head(); run(); });
    return element("div", {class: "gs-radio"}, box, element("label", {for: id}, label));
  });
  const caption = element("span");
  function head() {
    caption.replaceChildren(element("b", {}, PRIORS[prior].title), ` ${PRIORS[prior].said} A toy: each likelihood is replaced by a `
      + "pull towards a Gaussian, and mean and width follow the gradient of Σ ", sub(prior === "joint" ? "KL(q" : "KL(q_m"),
    " ‖ dashed) + β · the term above.");
    term.replaceChildren(sub(`${PRIORS[prior].text} = `));
    most.textContent = PRIORS[prior].ceiling ? ` nats, at most 3\u00a0log\u00a03\u00a0=\u00a0${CEILING.toFixed(2)}` : " nats, without a ceiling";
  }
  beta.input.addEventListener("input", () => { stop(); run(); });
  button.addEventListener("click", play);
  still.addEventListener("change", run);
  head();
  stop();
  place(root, [
    element("fieldset", {class: "gs-radios"}, element("legend", {class: "gs-hidden"}, "prior"), ...radios),
    stage.svg, line,
    element("div", {class: "gs-controls"}, button, beta.row),
    element("p", {class: "gs-said"}, term, cost, most), element("div", {class: "gs-track gs-wide"}, gauge)],
  [caption]);
  watch(stage, draw);
  new IntersectionObserver((entries, observer) => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    observer.disconnect();
    if (!settled && !frame) play();
  }, {threshold: 0.4}).observe(stage.svg);
}

function start() {
  for (const root of document.querySelectorAll("[data-gaussians]")) (root.dataset.gaussians === "pull" ? pull : pool)(root);
}
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
else start();
})();
