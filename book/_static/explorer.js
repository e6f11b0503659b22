// The results explorer: native controls, an SVG plot and tables, from the rows in explorer-rows.js. No request is made,
// and every text goes into the page as text.
(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const INK = "#333333", GRID = "#dddddd", FONT = 13;
  const PLAIN = (name) => `${name}`.replaceAll("_", " ").replace(/\bauroc\b/, "AUROC");
  // what the files of rows are about; another one by its own name
  const ABOUT = {
    polymnist: "PolyMNIST", polymnist_grid: "PolyMNIST, translated: all methods", polymnist_search: "PolyMNIST, translated: the search",
    cub: "CUB", hippocampus: "Hippocampus", hippocampus_long: "Hippocampus, long runs",
    hippocampus_information: "Hippocampus, what a latent holds", "mimic-cxr": "MIMIC-CXR", ablations: "Ablations",
    ablations_translated: "Ablations, translated", information: "Information", information_translated: "Information, translated",
    errata: "Errata, digits", errata_birds: "Errata, birds", pools: "Other pools, rats", pools_birds: "Other pools, birds",
    generation: "Generation",
  };
  // matplotlib's markers as corners on the unit circle's square; "o" is a circle
  const star = (corners, inner, turn = -90) => Array.from({length: 2 * corners}, (_, i) => {
    const radius = i % 2 ? inner : 1.15, angle = (turn + 180 * i / corners) * Math.PI / 180;
    return [radius * Math.cos(angle), radius * Math.sin(angle)];
  });
  const polygon = (corners, turn = -90) => Array.from({length: corners}, (_, i) => {
    const angle = (turn + 360 * i / corners) * Math.PI / 180;
    return [1.15 * Math.cos(angle), 1.15 * Math.sin(angle)];
  });
  const MARKERS = {
    s: [[-.9, -.9], [.9, -.9], [.9, .9], [-.9, .9]], D: polygon(4), d: polygon(4).map(([x, y]) => [.6 * x, y]),
    "^": polygon(3), v: polygon(3, 90), "<": polygon(3, 180), ">": polygon(3, 0), p: polygon(5), h: polygon(6),
    H: polygon(6, 0), "8": polygon(8), "*": star(5, .5),
    P: [[-.4, -1.1], [.4, -1.1], [.4, -.4], [1.1, -.4], [1.1, .4], [.4, .4], [.4, 1.1], [-.4, 1.1], [-.4, .4],
      [-1.1, .4], [-1.1, -.4], [-.4, -.4]],
    X: [[-1.1, -.6], [-.6, -1.1], [0, -.5], [.6, -1.1], [1.1, -.6], [.5, 0], [1.1, .6], [.6, 1.1], [0, .5], [-.6, 1.1],
      [-1.1, .6], [-.5, 0]],
  };

  // variants of a method have its colour, and hollow marks of these shapes beside each other
  const HOLLOW = ["o", "s", "^", "D", "v", "p", "P", "*", "X", "h"], BESIDE = 5;
  const dress = (names, looks) => {
    const seen = {};
    return Object.fromEntries(names.map((name) => {
      const look = looks[name], k = seen[look.colour] = (seen[look.colour] ?? -1) + 1;
      const place = (k % 2 ? 1 : -1) * Math.min(Math.ceil(k / 2), 3) * BESIDE;
      return [name, k ? {...look, hollow: true, marker: HOLLOW.filter((kind) => kind !== look.marker)[(k - 1) % (HOLLOW.length - 1)],
        beside: place} : {...look, beside: 0}];
    }));
  };

  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const draw = (name, attributes = {}, ...children) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const write = (value) => {
    const size = Math.abs(value);
    return size >= 1000 ? value.toLocaleString("en", {maximumFractionDigits: 0})
      : size >= 100 ? value.toFixed(1) : size >= 1 || size === 0 ? value.toFixed(3) : value.toPrecision(3);
  };
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const deviation = (values) => {
    if (values.length < 2) return null;
    const middle = mean(values);
    return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
  };
  // about `count` round numbers within [low, high]
  const ticks = (low, high, count) => {
    const rough = (high - low) / Math.max(count, 1), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
    return found;
  };

  const start = () => {
    let looks = {};
    const root = document.getElementById("explorer"), rows = window.mmvmRows;
    if (!root || !rows) return;
    const at = Object.fromEntries(rows.run.map((name, i) => [name, i]));
    const files = Object.fromEntries(Object.entries(rows.files).map(([name, file]) => [name, {...file,
      runs: file.runs.map((line) => ({
        ...Object.fromEntries(rows.run.map((column) => [column, line[at[column]]])),
        values: Object.fromEntries(file.measures.map((measure, i) => [measure, line[rows.run.length + i]])),
      }))}]));
    const state = {file: files.polymnist ? "polymnist" : Object.keys(files)[0], profile: "laptop", measure: "probe",
      axis: "beta", off: new Set()};

    const select = (key, label) => {
      const box = make("select", {id: `explorer-${key}`});
      box.addEventListener("change", () => { state[key] = box.value; refresh(); });
      controls.append(make("div", {class: "explorer-field"}, make("label", {for: box.id}, label), box));
      return box;
    };
    const controls = make("div", {class: "explorer-controls"});
    const boxes = {file: select("file", "Data set"), profile: select("profile", "Profile"),
      measure: select("measure", "Measure"), axis: select("axis", "Against")};
    const methods = make("fieldset", {class: "explorer-methods"}, make("legend", {}, "Methods"));
    const plot = make("div", {class: "explorer-plot"});
    const said = make("p", {class: "explorer-said", "aria-live": "polite"});
    const means = make("div", {class: "explorer-table", tabindex: "0", role: "region", "aria-label": "Means"});
    const single = make("div", {class: "explorer-table", tabindex: "0", role: "region", "aria-label": "Rows"});
    const folded = make("details", {}, make("summary", {}, "The rows behind it"), single);
    root.append(controls, methods, plot, said, means, folded);

    const fill = (box, values, chosen) => box.replaceChildren(...values.map(([value, text]) => {
      const option = make("option", {value}, text);
      option.selected = value === chosen;
      return option;
    }));
    const keep = (value, values) => values.includes(value) ? value : values[0];

    // what can be chosen depends on what was chosen before it
    const choices = () => {
      const file = files[state.file];
      const profiles = [...new Set(file.runs.map((run) => run.profile))];
      state.profile = keep(state.profile, profiles);
      const here = file.runs.filter((run) => run.profile === state.profile);
      const measures = file.measures.filter((measure) => here.some((run) => run.values[measure] !== null));
      state.measure = keep(state.measure, measures);
      const axes = ["beta", ...["reconstruction"].filter((name) => measures.includes(name) && name !== state.measure)];
      state.axis = keep(state.axis, axes);
      fill(boxes.file, Object.keys(files).map((name) => [name, ABOUT[name] ?? PLAIN(name)]), state.file);
      fill(boxes.profile, profiles.map((name) => [name, name]), state.profile);
      fill(boxes.measure, measures.map((name) => [name, PLAIN(name)]), state.measure);
      fill(boxes.axis, axes.map((name) => [name, name === "beta" ? "beta" : "error (nats)"]), state.axis);
      return here.filter((run) => run.values[state.measure] !== null);
    };

    const marker = (look, x, y, size, attributes = {}) => {
      const paint = {...(look.hollow ? {fill: "white", stroke: look.colour, "stroke-width": 1.6} : {fill: look.colour}), ...attributes};
      const corners = MARKERS[look.marker];
      return corners ? draw("polygon", {...paint, points: corners.map(([a, b]) => `${x + size * a},${y + size * b}`).join(" ")})
        : draw("circle", {...paint, cx: x, cy: y, r: size});
    };

    const tick = (name, present) => {
      const look = looks[name], id = `explorer-method-${present.indexOf(name)}`;
      const box = make("input", {type: "checkbox", id, value: name});
      box.checked = !state.off.has(name);
      box.addEventListener("change", () => { state.off[box.checked ? "delete" : "add"](name); refresh(false); });
      const swatch = draw("svg", {width: 16, height: 16, "aria-hidden": "true", class: "explorer-swatch"},
        marker(look, 8, 8, 5));
      return make("span", {class: "explorer-method"}, box, make("label", {for: id}, swatch, look.label));
    };

    // a point per method and beta: mean and deviation over seeds
    const points = (runs) => {
      const groups = new Map();
      for (const run of runs) {
        const key = JSON.stringify([run.method, run.beta]);
        groups.set(key, [...groups.get(key) ?? [], run]);
      }
      return [...groups.values()].map((group) => {
        const values = group.map((run) => run.values[state.measure]);
        return {method: group[0].method, beta: group[0].beta, seeds: new Set(group.map((run) => run.seed)).size,
          mean: mean(values), sd: deviation(values),
          x: state.axis === "beta" ? group[0].beta : mean(group.map((run) => run.values[state.axis]))};
      }).sort((a, b) => a.beta - b.beta);
    };

    const picture = (shown, names) => {
      const width = Math.max(Math.min(plot.clientWidth || 640, 800), 260), height = Math.max(width * .56, 260);
      const left = 66, right = 14, top = 32, bottom = 46;
      const svg = draw("svg", {viewBox: `0 0 ${width} ${height}`, width, height, role: "img",
        "aria-label": `${PLAIN(state.measure)} against ${state.axis === "beta" ? "beta" : "error"}: `
          + names.map((name) => rows.methods[name].label).join(", ") + ". The table below has the numbers."});
      svg.append(draw("rect", {width, height, fill: "white"}));
      if (!shown.length) return svg;
      const log = state.axis === "beta" && shown.every((point) => point.x > 0);
      const scale = log ? Math.log10 : (value) => value;
      const span = (low, high) => {
        const size = Math.max(Math.abs(low), Math.abs(high)) || 1;
        const rim = (high - low > 1e-9 * size ? high - low : size) * .06;  // means of equal values differ by rounding
        return [low - rim, high + rim];
      };
      const xs = shown.map((point) => scale(point.x));
      const [x0, x1] = span(Math.min(...xs), Math.max(...xs));
      const [y0, y1] = span(Math.min(...shown.map((point) => point.mean - (point.sd ?? 0))),
        Math.max(...shown.map((point) => point.mean + (point.sd ?? 0))));
      const x = (value) => left + (scale(value) - x0) / (x1 - x0) * (width - left - right);
      const y = (value) => height - bottom - (value - y0) / (y1 - y0) * (height - top - bottom);
      const text = (content, attributes) => draw("text", {fill: INK, "font-size": FONT, ...attributes}, content);
      for (const value of ticks(y0, y1, 5)) {
        svg.append(draw("line", {x1: left, x2: width - right, y1: y(value), y2: y(value), stroke: GRID}),
          text(String(Math.abs(value) >= 1000 ? value.toLocaleString("en") : value),
            {x: left - 7, y: y(value) + 4, "text-anchor": "end"}));
      }
      let betas = log ? [...new Set(shown.map((point) => point.x))].sort((a, b) => a - b)
        : ticks(x0, x1, Math.floor(width / 120));
      let last = -Infinity;
      betas = betas.filter((value) => x(value) - last > 54 && (last = x(value), true));
      for (const value of betas) {
        svg.append(draw("line", {x1: x(value), x2: x(value), y1: height - bottom, y2: height - bottom + 5, stroke: INK}),
          text(log ? String(value) : value.toLocaleString("en"), {x: x(value), y: height - bottom + 19, "text-anchor": "middle"}));
      }
      svg.append(draw("path", {d: `M${left},${top}V${height - bottom}H${width - right}`, fill: "none", stroke: INK}),
        text(state.axis === "beta" ? "beta" : "reconstruction error (nats)",
          {x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle"}),
        text(PLAIN(state.measure), {x: 8, y: 15, "font-weight": 600}));
      for (const name of names) {
        const look = looks[name], own = shown.filter((point) => point.method === name);
        const group = draw("g", {"data-method": name}), place = (value) => x(value) + (state.axis === "beta" ? look.beside : 0);
        group.append(draw("polyline", {points: own.map((point) => `${place(point.x)},${y(point.mean)}`).join(" "),
          fill: "none", stroke: look.colour, "stroke-width": 1.8, "stroke-dasharray": look.dashed ? "5 4" : "none"}));
        for (const point of own) {
          if (point.sd) group.append(draw("path", {stroke: look.colour,
            d: `M${place(point.x)},${y(point.mean - point.sd)}V${y(point.mean + point.sd)}`}));
          group.append(marker(look, place(point.x), y(point.mean), 4.5, {"data-beta": point.beta, "data-mean": point.mean,
            "data-sd": point.sd ?? "", "data-x": point.x, "data-seeds": point.seeds}));
          group.lastChild.append(draw("title", {}, `${look.label}, beta ${point.beta}: ${write(point.mean)}`));
        }
        svg.append(group);
      }
      return svg;
    };

    const table = (head, lines) => make("table", {class: "dataframe"},
      make("thead", {}, make("tr", {}, ...head.map((name) => make("th", {scope: "col"}, name)))),
      make("tbody", {}, ...lines.map((line) => make("tr", {}, ...line.map((cell, i) =>
        make(i ? "td" : "th", i ? {} : {scope: "row"}, String(cell)))))));

    const refresh = (rebuild = true) => {
      const here = choices();
      const present = Object.keys(rows.methods).filter((name) => here.some((run) => run.method === name));
      looks = dress(present, rows.methods);
      if (rebuild) methods.replaceChildren(methods.firstChild, ...present.map((name) => tick(name, present)));
      const names = present.filter((name) => !state.off.has(name));
      const runs = here.filter((run) => names.includes(run.method)
        && (state.axis === "beta" || run.values[state.axis] !== null));
      const shown = points(runs);
      plot.replaceChildren(picture(shown, names));
      said.textContent = shown.length ? `${runs.length} runs of ${names.length} methods, ${PLAIN(state.measure)}, profile `
        + `${state.profile}.` : "No method is chosen.";
      means.replaceChildren(table(["method", "beta", PLAIN(state.measure), "± over seeds", "seeds"],
        names.flatMap((name) => shown.filter((point) => point.method === name)).map((point) => [
          rows.methods[point.method].label, point.beta, write(point.mean), point.sd === null ? "" : write(point.sd),
          point.seeds])));
      single.replaceChildren(table(["method", "beta", "seed", PLAIN(state.measure), "date", "commit", "training, s"],
        runs.map((run) => [rows.methods[run.method].label, run.beta, run.seed, write(run.values[state.measure]), run.date,
          run.commit, run.seconds])));
    };

    const still = document.getElementById("fig-explorer-still");
    if (still) still.classList.add("explorer-still");
    refresh();
    let width = plot.clientWidth;
    new ResizeObserver(() => {
      if (plot.clientWidth !== width) { width = plot.clientWidth; refresh(false); }
    }).observe(plot);
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
