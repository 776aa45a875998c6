"use strict";
// Draws what the static page cannot: the exponents of every operation, a table of all of them, training curves, copy buttons.
(() => {
  const report = JSON.parse(document.getElementById("data").textContent);
  const make = (tag, properties = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (name in node && name !== "list") node[name] = value;
      else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  };
  const number = x => x === null || x === undefined ? "" : Math.abs(x) >= 1e-3 && Math.abs(x) < 1e5 || x === 0 ? String(+x.toPrecision(3)) : x.toExponential(1);
  const color = selector => getComputedStyle(document.querySelector(selector)).color; // a canvas does not resolve light-dark()
  // Ranges of formats as exponents: largest number, smallest normal, smallest subnormal.
  const FORMATS = { float16: [16, -14, -24], bfloat16: [128, -126, -133], float32: [128, -126, -149], "FP8 E4M3": [8.8, -6, -9], "FP8 E5M2": [15.8, -14, -16] };

  const rowsOf = table => {
    const names = Object.keys(table.columns), words = new Set(table.words);
    const length = names.length ? table.columns[names[0]].length : 0;
    return Array.from({ length }, (_, i) => {
      const row = {};
      for (const name of names) {
        const value = table.columns[name][i];
        row[name] = words.has(name) ? table.strings[value] : value;
      }
      row.exponents = decode(table.exponents[i]);
      return row;
    });
  };
  // "first exponent:levels", one base-36 digit per exponent: how full it is, on a logarithmic scale.
  const decode = text => {
    if (!text) return [];
    const [first, levels] = text.split(":");
    return [...levels].map((digit, i) => [Number(first) + i, parseInt(digit, 36) / 35]).filter(([, level]) => level > 0);
  };
  const place = row => row.path ? `${row.path}:${row.line}` : "no line";
  const describe = row => `${row.module || "the model"} · ${row.op} (${row.phase}) · ${place(row)} · shape ${row.shape} · RMS ${number(row.rms)}, largest ${number(row.max_abs)}`
    + (row.headroom_bits === null ? "" : `, headroom ${number(row.headroom_bits)} bits`) + (row.zeros ? `, ${number(100 * row.zeros)} % zeros` : "")
    + (row.nonfinite ? `, ${row.nonfinite} not finite` : "") + (row.gradient_rms === null ? "" : `, gradient RMS ${number(row.gradient_rms)}`) + (row.times > 1 ? ` · ${row.times} times at this place` : "");

  const folded = rows => {
    const places = new Map();
    for (const row of rows) {
      const key = [row.module, row.op, row.path, row.line, row.shape].join("\n");
      const first = places.get(key);
      if (!first) { places.set(key, { ...row, times: 1 }); continue; }
      first.times++;
      for (const name of ["max_abs", "nonfinite", "error"]) first[name] = Math.max(first[name] ?? 0, row[name] ?? 0);
      first.headroom_bits = Math.min(first.headroom_bits ?? Infinity, row.headroom_bits ?? Infinity);
      if (!isFinite(first.headroom_bits)) first.headroom_bits = null;
      const levels = new Map(first.exponents);
      for (const [exponent, level] of row.exponents) levels.set(exponent, Math.max(levels.get(exponent) ?? 0, level));
      first.exponents = [...levels];
    }
    return [...places.values()];
  };

  const choose = (label, values, change) => {
    const select = make("select", { onchange: change }, ...values.map(value => make("option", { value }, value)));
    return [make("label", {}, label, select), () => select.value];
  };
  const tick = (label, on, change) => {
    const box = make("input", { type: "checkbox", checked: on, onchange: change });
    return [make("label", {}, box, label), () => box.checked];
  };
  const unique = (rows, name) => [...new Set(rows.map(row => row[name]))];

  function strip(run, rows) {
    const canvas = make("canvas", { tabIndex: 0, role: "img" }), reading = make("p", { className: "reading", role: "status" });
    let shown = [], at = 0;
    const draw = () => {
      const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight, left = 34;
      canvas.width = width * ratio; canvas.height = height * ratio;
      const pen = canvas.getContext("2d"); pen.scale(ratio, ratio); pen.font = "11px system-ui, sans-serif";
      shown = rows.filter(row => row.precision === precision() && row.phase === phase());
      if (fold()) shown = folded(shown);
      canvas.setAttribute("aria-label", `Exponents of ${shown.length} operations in ${precision()}, ${phase()}; arrow keys move along them`);
      const all = shown.flatMap(row => row.exponents.map(([exponent]) => exponent));
      const [top, bottom] = [Math.max(18, Math.max(-Infinity, ...sample(all)) + 2), Math.min(-26, Math.min(Infinity, ...sample(all)) - 1)];
      const y = exponent => 8 + (top - exponent) / (top - bottom) * (height - 16), step = (width - left) / Math.max(1, shown.length);
      const x = i => left + i * step, cell = (height - 16) / (top - bottom);
      shown.forEach((row, i) => row.exponents.forEach(([exponent, level]) => {
        pen.fillStyle = `hsl(${205 - 160 * level} 75% 50% / ${0.25 + 0.75 * level})`;
        pen.fillRect(x(i), y(exponent + 1), Math.max(1, step - (step > 4 ? 1 : 0)), Math.max(1, cell));
      }));
      pen.fillStyle = pen.strokeStyle = color(".quiet");
      for (let exponent = Math.ceil(bottom / 8) * 8; exponent <= top; exponent += 8) pen.fillText(`2^${exponent}`, 0, y(exponent) + 4);
      for (const exponent of FORMATS[range()]) {
        if (exponent > top || exponent < bottom) continue;
        pen.setLineDash(exponent === FORMATS[range()][0] ? [] : [4, 3]); pen.strokeStyle = exponent === FORMATS[range()][0] ? "#c62828" : "#8a6d00";
        pen.beginPath(); pen.moveTo(left, y(exponent)); pen.lineTo(width, y(exponent)); pen.stroke();
      }
      pen.setLineDash([]);
      shown.forEach((row, i) => {
        if (!run.findings.some(finding => finding.path === row.path && finding.line === row.line && row.path)) return;
        pen.fillStyle = "#c62828"; pen.beginPath(); pen.moveTo(x(i), 0); pen.lineTo(x(i) + 7, 0); pen.lineTo(x(i) + 3.5, 7); pen.fill();
      });
      pen.strokeStyle = color("body"); pen.strokeRect(x(at), 1, Math.max(2, step), height - 2);
      reading.textContent = shown.length ? describe(shown[at] ?? shown[0]) : "Nothing was measured here.";
    };
    const sample = list => list.length > 50000 ? list.filter((_, i) => i % 7 === 0) : list;
    const move = to => { at = Math.max(0, Math.min(shown.length - 1, to)); draw(); };
    const [a, precision] = choose("precision", unique(rows, "precision").sort((p, q) => (p === "float64") - (q === "float64")), () => move(0));
    const [b, phase] = choose("phase", unique(rows, "phase"), () => move(0));
    const [c, range] = choose("range of", Object.keys(FORMATS), draw);
    const [d, fold] = tick("fold repeated places", true, () => move(0));
    canvas.addEventListener("mousemove", event => move(Math.floor((event.offsetX - 34) / (canvas.clientWidth - 34) * shown.length)));
    canvas.addEventListener("click", () => {
      const row = shown[at], hit = row && run.findings.find(finding => finding.path === row.path && finding.line === row.line);
      if (hit) document.getElementById(hit.id)?.scrollIntoView({ behavior: "smooth" });
    });
    canvas.addEventListener("keydown", event => {
      const by = { ArrowRight: 1, ArrowLeft: -1, PageDown: 20, PageUp: -20, Home: -Infinity, End: Infinity }[event.key];
      if (by !== undefined) { event.preventDefault(); move(by === Infinity ? shown.length : by === -Infinity ? 0 : at + by); }
    });
    new ResizeObserver(draw).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    return make("section", { className: "instrument" }, make("h3", {}, "Exponents of every operation"),
      make("p", { className: "quiet" }, "One column per operation in order of execution: how many values lie at each power of two. The red line is the largest number of the chosen format, the dashed ones its smallest normal and subnormal. A triangle marks an operation with a finding."),
      make("div", { className: "controls" }, a, b, c, d), canvas, reading);
  }

  function opTable(rows) {
    const COLUMNS = [["#", "index"], ["precision", "precision"], ["phase", "phase"], ["module", "module"], ["operation", "op"], ["line", "place"], ["shape", "shape"], ["RMS", "rms"], ["largest", "max_abs"], ["headroom", "headroom_bits"], ["zeros", "zeros"], ["not finite", "nonfinite"], ["gradient RMS", "gradient_rms"], ["error", "error"]];
    const HEIGHT = 26;
    rows.forEach(row => { row.place = place(row); });
    let shown = rows, sorted = "index", down = false;
    const body = make("tbody"), count = make("span", { className: "quiet", role: "status" }), box = make("div", { className: "ops", tabIndex: 0, role: "region", "aria-label": "Operations" });
    const fill = () => {
      const first = Math.max(0, Math.floor(box.scrollTop / HEIGHT) - 10), last = Math.min(shown.length, first + 60);
      const gap = height => make("tr", { style: `height:${height}px`, "aria-hidden": "true" });
      body.replaceChildren(gap(first * HEIGHT), ...shown.slice(first, last).map(row => make("tr", { className: row.nonfinite ? "bad" : "" },
        ...COLUMNS.map(([, name]) => make("td", {}, typeof row[name] === "number" ? number(row[name]) : row[name] ?? "")))), gap((shown.length - last) * HEIGHT));
    };
    const update = () => {
      const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      shown = rows.filter(row => (!only() || row.nonfinite || row.headroom_bits !== null && row.headroom_bits < 3 || row.zeros > 0.9) && wanted.every(word => `${row.precision} ${row.phase} ${row.module} ${row.op} ${row.place}`.toLowerCase().includes(word)));
      shown.sort((a, b) => { const [x, y] = [a[sorted], b[sorted]]; if (x === y) return 0; if (x === null || x === undefined) return 1; if (y === null || y === undefined) return -1; return (x < y ? -1 : 1) * (down ? -1 : 1); });
      count.textContent = `${shown.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")}`;
      box.scrollTop = 0; fill();
    };
    const filter = make("input", { type: "search", placeholder: "module, operation, file:line …", oninput: update, ariaLabel: "Filter operations" });
    const [suspicious, only] = tick("only not finite, below 3 bits of headroom, or nearly all zero", false, update);
    const head = make("tr", {}, ...COLUMNS.map(([label, name]) => make("th", { scope: "col" }, make("button", { type: "button", onclick: event => {
      down = sorted === name ? !down : false; sorted = name;
      head.querySelectorAll("th").forEach(th => th.removeAttribute("aria-sort")); event.target.closest("th").setAttribute("aria-sort", down ? "descending" : "ascending"); update();
    } }, label))));
    box.append(make("table", {}, make("thead", {}, head), body));
    box.addEventListener("scroll", fill);
    setTimeout(update);
    return make("section", { className: "instrument" }, make("h3", {}, "All operations"), make("div", { className: "controls" }, make("label", {}, "filter ", filter), suspicious, count), box);
  }

  function curves(rows) {
    const NS = document.createElementNS("http://www.w3.org/2000/svg", "svg").namespaceURI;
    const draw = name => {
      const lines = new Map();
      rows.filter(row => row[name] > 0).forEach(row => { const key = `${row.precision}, seed ${row.seed}`; lines.set(key, [...(lines.get(key) ?? []), [row.step, Math.log10(row[name])]]); });
      if (!lines.size) return "";
      if (name === "scale" && [...lines.values()].flat().every(([, y]) => y === 0)) return ""; // no loss scaling
      const hue = i => i * 137 % 360;
      const points = [...lines.values()].flat(), xs = points.map(p => p[0]), ys = points.map(p => p[1]);
      const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
      const svg = document.createElementNS(NS, "svg");
      svg.setAttribute("class", "curve"); svg.setAttribute("viewBox", "0 0 600 180"); svg.setAttribute("preserveAspectRatio", "none"); svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", `${name} over the steps, from 10^${y0.toFixed(1)} to 10^${y1.toFixed(1)}`);
      [...lines].forEach(([key, line], i) => {
        const path = document.createElementNS(NS, "polyline"), colour = `hsl(${hue(i)} 65% 50%)`;
        path.setAttribute("points", line.map(([x, y]) => `${10 + 580 * (x - x0) / (x1 - x0 || 1)},${170 - 160 * (y - y0) / (y1 - y0 || 1)}`).join(" "));
        path.setAttribute("fill", "none"); path.setAttribute("stroke", colour); path.setAttribute("stroke-width", "1.5"); path.setAttribute("vector-effect", "non-scaling-stroke");
        const label = document.createElementNS(NS, "title"); label.textContent = key; path.append(label); svg.append(path);
      });
      return make("figure", { style: "margin: .5rem 0" }, make("figcaption", { className: "quiet" }, `${name.replace("_", " ")}: 10^${y0.toFixed(1)} to 10^${y1.toFixed(1)}, steps ${x0} to ${x1} `,
        ...[...lines.keys()].map((key, i) => make("span", { style: `white-space: nowrap; border-bottom: 3px solid hsl(${hue(i)} 65% 50%); margin-left: .6rem` }, key))), svg);
    };
    return make("section", { className: "instrument" }, make("h3", {}, "Training steps"), ...["loss", "gradient_norm", "scale"].map(draw));
  }

  report.runs.forEach((run, i) => {
    const target = document.querySelector(`#run-${i} .instruments`);
    if (!target) return;
    const rows = rowsOf(run.ops);
    if (rows.length) target.append(strip(run, rows), opTable(rows));
    else target.append(make("p", { className: "quiet" }, "A saved run holds no operations; scan with -o report.html to see them."));
    if (run.training.length) target.append(curves(run.training));
  });
  document.querySelectorAll("pre.diff").forEach(diff => diff.before(make("button", { type: "button", className: "copy", onclick: event => {
    navigator.clipboard?.writeText(diff.textContent); event.target.textContent = "copied";
  } }, "copy")));
})();
