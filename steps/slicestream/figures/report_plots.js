"use strict";
// The plots, by Observable Plot from the page's own data; each is drawn as wide as its place and again when that changes.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const ink = "currentColor", quiet = "var(--quiet)", rule = "var(--rule)";
  const number = (value, digits = 3) => value === null || value === undefined ? "–" : value.toFixed(digits);
  const interval = (d) => d.low === null || d.high === null ? "" : `\n${number(d.low)} to ${number(d.high)}`;
  const seconds = (s) => s < 60 ? `${s.toFixed(s < 10 ? 1 : 0)} s` : s < 3600 ? `${Math.floor(s / 60)} min ${String(Math.round(s % 60)).padStart(2, "0")} s` : `${Math.floor(s / 3600)} h ${String(Math.round(s / 60) % 60).padStart(2, "0")} min`;
  const size = (b) => b < 1e3 ? `${b} B` : b < 1e6 ? `${(b / 1e3).toFixed(1)} kB` : b < 1e9 ? `${(b / 1e6).toFixed(1)} MB` : `${(b / 1e9).toFixed(1)} GB`;
  const base = (width, more) => ({ width, height: Math.round(Math.min(320, Math.max(240, width * 0.62))), marginLeft: 48, marginBottom: 42, marginTop: 14, marginRight: 14, style: { fontSize: "12px", fontFamily: "inherit", color: "var(--ink)" }, ...more });
  const axis = (label, more = {}) => ({ label, labelArrow: "none", labelAnchor: "center", ...more });
  const grids = () => [Plot.gridY({ stroke: rule, strokeOpacity: 1 })];
  const tip = (points, options) => Plot.tip(points, Plot.pointer({ stroke: "var(--strong)", fill: "var(--page)", fontSize: 12, lineHeight: 1.4, ...options }));

  const draw = {
    froc: (d, width) => Plot.plot(base(width, {
      x: axis("false positives per scan", { type: "symlog", constant: 0.25, domain: [0, Math.max(8, d3.max(d.points, (p) => p.rate))], ticks: [0, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32].filter((t) => t <= Math.max(8, d3.max(d.points, (p) => p.rate))), tickFormat: (t) => ({ 0.125: "⅛", 0.25: "¼", 0.5: "½" })[t] ?? String(t) }),
      y: axis("sensitivity", { domain: [0, 1], ticks: 5 }),
      marks: [...grids(),
        Plot.ruleX(d.rates.filter((r) => r.low !== null), { x: "rate", y1: "low", y2: "high", stroke: "var(--c0)", strokeWidth: 5, strokeOpacity: 0.25 }),
        Plot.line(d.points, { x: "rate", y: "sensitivity", stroke: "var(--c0)", strokeWidth: 2, curve: "step-after", sort: "rate" }),
        Plot.dot(d.rates, { x: "rate", y: "value", r: 3.5, fill: "var(--c0)", stroke: "var(--page)" }),
        tip(d.points, { x: "rate", y: "sensitivity", title: (p) => `sensitivity ${number(p.sensitivity)}\n${number(p.rate, 2)} false positives per scan\nscore ≥ ${number(p.threshold)}` })],
    })),
    sensitivity: (d, width) => Plot.plot(base(width, {
      height: 56 + 36 * d.length, marginLeft: 142, marginTop: 6,
      x: axis("sensitivity", { domain: [0, 1], ticks: 5 }),
      y: { label: null, domain: d.map((s) => s.size), tickSize: 0 },
      marks: [Plot.gridX({ stroke: rule, strokeOpacity: 1 }), Plot.axisY({ tickSize: 0, label: null, text: null }),
        Plot.text(d, { y: "size", text: (s) => s.size, frameAnchor: "left", dx: -134, textAnchor: "start", fill: ink }),
        Plot.text(d, { y: "size", text: (s) => String(s.count), frameAnchor: "left", dx: -10, textAnchor: "end", fill: quiet }),
        Plot.ruleY(d.filter((s) => s.low !== null), { y: "size", x1: "low", x2: "high", stroke: "var(--c0)", strokeWidth: 5, strokeOpacity: 0.25 }),
        Plot.dot(d.filter((s) => s.value !== null), { x: "value", y: "size", r: 4.5, fill: "var(--c0)", stroke: "var(--page)" }),
        Plot.text(d.filter((s) => s.value === null), { y: "size", text: () => "none in this split", frameAnchor: "left", dx: 10, textAnchor: "start", fill: quiet }),
        tip(d.filter((s) => s.value !== null), { x: "value", y: "size", title: (s) => `${s.size}, ${s.count} nodules\n${number(s.value)}${interval(s)}` })],
    })),
    volumes: (d, width) => Plot.plot(base(width, {
      marginRight: 60,
      x: axis("mean of both volumes, mm³", { type: "log", ticks: 4, tickFormat: (t) => Number.isInteger(Math.log10(t)) ? t.toLocaleString("en").replace(/,/g, "\u202f") : "" , nice: true}),
      y: axis("found − annotated, %", { nice: true, ticks: 6 }),
      marks: [...grids(), Plot.ruleY([0], { stroke: "var(--strong)" }),
        ...[["bias", ""], ["low", "4 3"], ["high", "4 3"]].filter(([key]) => d[key] !== null && d[key] !== undefined).flatMap(([key, dash]) => [
          Plot.ruleY([d[key]], { stroke: "var(--c1)", strokeWidth: 1.5, strokeDasharray: dash }),
          Plot.text([d[key]], { y: (v) => v, text: (v) => `${v > 0 ? "+" : v < 0 ? "−" : ""}${Math.abs(v).toFixed(0)} %`, frameAnchor: "right", textAnchor: "start", dx: 7, fill: ink })]),
        Plot.dot(d.points, { x: "mean", y: "difference", r: 3.5, fill: "var(--c0)", fillOpacity: d.points.length > 120 ? 0.5 : 0.8 }),
        tip(d.points, { x: "mean", y: "difference", title: (p) => `mean ${p.mean.toFixed(0)} mm³\n${p.difference > 0 ? "+" : ""}${p.difference.toFixed(1)} %${p.row ? "\nclick: its row" : ""}` })],
    })),
    calibration: (d, width) => Plot.plot(base(width, {
      x: axis("score of the candidates, mean of each tenth", { domain: [0, 1], ticks: 5 }),
      y: axis("share that is a nodule", { domain: [0, 1], ticks: 5 }),
      r: { range: [0, 11], domain: [0, d3.max(d, (b) => b.count)] },
      marks: [...grids(), Plot.line([[0, 0], [1, 1]], { stroke: "var(--strong)", strokeDasharray: "4 3" }),
        Plot.ruleX(d, { x: "score", y1: "low", y2: "high", stroke: "var(--c0)", strokeWidth: 5, strokeOpacity: 0.25 }),
        Plot.line(d, { x: "score", y: "value", stroke: "var(--c0)", strokeWidth: 1.5 }),
        Plot.dot(d, { x: "score", y: "value", r: "count", fill: "var(--c0)", stroke: "var(--page)" }),
        tip(d, { x: "score", y: "value", title: (b) => `${b.count} candidates, score ${number(b.score, 2)}\n${(100 * b.value).toFixed(0)} % are nodules${interval(b)}` })],
    })),
    loss: (d, width) => curves(d, width, { label: "loss", nice: true, zero: true }),
    agreement: (d, width) => curves(d, width, { label: "IoU, Dice", domain: [0, 1], ticks: 5 }),
    timeline, steps,
  };

  function curves(points, width, y) {
    const lines = [...new Set(points.map((p) => p.line))];
    return Plot.plot(base(width, {
      x: axis("epoch", { tickFormat: (t) => Number.isInteger(t) ? String(t) : "" }), y: axis(y.label, y),
      color: { domain: lines, range: lines.map((_, i) => `var(--c${i % 4})`) },
      marks: [...grids(),
        Plot.line(points, { x: "epoch", y: "value", stroke: "line", strokeWidth: 2 }),
        points.length <= lines.length * 3 ? Plot.dot(points, { x: "epoch", y: "value", fill: "line" }) : null,
        tip(points, { x: "epoch", y: "value", title: (p) => `${p.line}\nepoch ${p.epoch}: ${number(p.value)}` })],
    }));
  }

  // A row per job, a head line per site; arrows lead from the job that ended last at one site to the next at the other.
  function timeline(d, width) {
    const lane = (site) => d.lanes.findIndex((l) => l.site === site), colour = (bar) => `var(--c${lane(bar.site) % 4})`;
    const rows = d.rows + d.lanes.length, middle = (row, site) => row + lane(site) + 1.5;
    const words = (bar) => `${bar.step}  ${seconds(bar.end - bar.start)}`;
    const room = (bar) => (bar.end - bar.start) / d.end * width > 11 * words(bar).length ? "inside" : bar.end < 0.7 * d.end ? "right" : "left";
    const label = (where, x, more) => Plot.text(d.bars.filter((bar) => room(bar) === where), { x, y: (bar) => middle(bar.row, bar.site), text: words, fill: ink, stroke: "var(--page)", strokeWidth: 4, ...more });
    const steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400, 172800];
    const step = steps.find((s) => d.end / s <= width / 95) ?? steps.at(-1), ticks = d3.range(0, d.end + 1e-9, step);
    const clock = (t) => t < 60 && d.end < 120 ? `${t} s` : t === 0 ? "0" : t < 3600 && step >= 60 ? `${t / 60} min` : t < 3600 ? `${Math.floor(t / 60)}:${String(t % 60).padStart(2, "0")} min` : `${Math.floor(t / 3600)}:${String(t / 60 % 60).padStart(2, "0")} h`;
    // what went between the sites stands in a column each, right of the time; where the page is narrow in the table alone
    const column = 68, gutter = width > 700 ? column * d.links.length : 0, far = d.end * (width - 38) / (width - 38 - gutter - (gutter ? 24 : 0));
    const centre = (site) => (d.lanes[lane(site)].first + d.lanes[lane(site)].last) / 2 + lane(site) + 1;
    const links = !gutter ? [] : d.links.map((l, i) => ({ ...l, x: far - (far / (width - 38)) * column * (d.links.length - i - 0.2), y1: centre(l.source), y2: centre(l.destination), text: l.bytes === null ? `${l.files} ${l.files === 1 ? "file" : "files"}` : size(l.bytes) }));
    return Plot.plot(base(width, {
      height: 40 + 25 * rows, marginLeft: 8, marginTop: 4, marginRight: 30,
      x: axis(null, { domain: [0, far], ticks, tickFormat: clock }),
      y: { axis: null, domain: [0, rows], reverse: true },
      marks: [Plot.gridX(ticks, { stroke: rule, strokeOpacity: 1 }),
        Plot.ruleY(d.lanes.slice(1), { y: (l, i) => l.first + i + 1, stroke: rule }),
        Plot.text(d.lanes, { x: 0, y: (l, i) => l.first + i + 0.6, text: "site", textAnchor: "start", fontWeight: 600, fontSize: 13, fill: ink, stroke: "var(--page)", strokeWidth: 4 }),
        Plot.rect(d.bars, { x1: "start", x2: "end", y1: (b) => middle(b.row, b.site) - 0.32, y2: (b) => middle(b.row, b.site) + 0.32, fill: colour, stroke: colour, rx: 1.5 }),
        label("right", "end", { textAnchor: "start", dx: 8 }), label("left", "start", { textAnchor: "end", dx: -8 }),
        label("inside", "start", { textAnchor: "start", dx: 8, fill: "var(--page)", stroke: "none" }),
        Plot.arrow(links, { x1: "x", x2: "x", y1: "y1", y2: "y2", stroke: ink, strokeWidth: 1.3, headLength: 7 }),
        Plot.dot(links, { x: "x", y: "y1", r: 2.5, fill: ink }),
        Plot.text(links, { x: "x", y: (l) => (l.y1 + l.y2) / 2, text: "text", dx: 5, textAnchor: "start", fill: ink, fontWeight: 600, stroke: "var(--page)", strokeWidth: 5 }),
        tip(d.bars, { x: (b) => (b.start + b.end) / 2, y: (b) => middle(b.row, b.site), title: (b) => `${b.step}, ${b.site}\n${b.place}\n${seconds(b.end - b.start)}` })],
    }));
  }

  // Steps by layer, left to right; top to bottom where the page is narrow.
  function steps(d, width) {
    const down = width < 620, layers = d3.max(d.nodes, (n) => n.layer), spread = d3.max(d.nodes, (n) => Math.abs(n.offset));
    const at = Object.fromEntries(d.nodes.map((n) => [n.step, n])), sites = [...new Set(d.nodes.map((n) => n.sites))];
    const half = down ? { along: 0.24, across: 0.43 } : { along: 0.37, across: 0.25 };
    const turn = (along, across) => down ? [across, along] : [along, across];
    // a neighbour is met face to face; what skips layers goes around those between, on the side of its aim
    const edges = d.edges.map((e) => {
      const a = at[e.from], b = at[e.to], skips = b.layer - a.layer > 1, side = b.offset > 0 ? 1 : -1;
      const [x1, y1] = skips ? turn(a.layer, a.offset + side * half.across) : turn(a.layer + half.along, a.offset);
      const [x2, y2] = skips ? turn(b.layer - (spread ? half.along * 0.6 : 0), b.offset + side * half.across) : turn(b.layer - half.along, b.offset);
      return { ...e, x1, y1, x2, y2, skips, side, x: (x1 + x2) / 2, y: (y1 + y2) / 2 };
    });
    const along = [-0.45, layers + 0.45], reach = spread + 0.85, across = [-reach, reach];
    const arrow = (chosen, bend) => Plot.arrow(chosen, { x1: "x1", y1: "y1", x2: "x2", y2: "y2", stroke: quiet, strokeWidth: 1.2, headLength: 7, bend, insetEnd: 2 });
    return Plot.plot(base(width, {
      height: down ? 84 * (layers + 1) : 300, marginLeft: 2, marginRight: 2, marginTop: 6, marginBottom: 6,
      x: { axis: null, domain: down ? across : along }, y: { axis: null, domain: down ? along : across, reverse: true },
      marks: [arrow(edges.filter((e) => !e.skips), 0), arrow(edges.filter((e) => e.skips && e.side < 0), down ? -24 : 19), arrow(edges.filter((e) => e.skips && e.side > 0), down ? 24 : -19),
        Plot.rect(d.nodes, { x1: (n) => turn(n.layer, n.offset)[0] - (down ? half.across : half.along), x2: (n) => turn(n.layer, n.offset)[0] + (down ? half.across : half.along), y1: (n) => turn(n.layer, n.offset)[1] - (down ? half.along : half.across), y2: (n) => turn(n.layer, n.offset)[1] + (down ? half.along : half.across), fill: "var(--raised)", stroke: (n) => `var(--c${sites.indexOf(n.sites) % 4})`, strokeWidth: 1.5, rx: 5 }),
        Plot.text(d.nodes, { x: (n) => turn(n.layer, n.offset)[0], y: (n) => turn(n.layer, n.offset)[1], text: (n) => n.step + (n.jobs > 1 ? ` ×${n.jobs}` : ""), dy: -7, fontWeight: 600, fontSize: 13, fill: ink }),
        Plot.text(d.nodes, { x: (n) => turn(n.layer, n.offset)[0], y: (n) => turn(n.layer, n.offset)[1], text: "sites", dy: 9, fill: quiet, fontSize: 11.5 }),
        tip(edges, { x: "x", y: "y", title: (e) => `${e.from} → ${e.to}\n${e.files}` })],
    }));
  }

  const places = [...document.querySelectorAll("[data-plot]")];
  const redraw = (figures) => {
    const widths = figures.map((figure) => Math.round(figure.querySelector("div").clientWidth)); // all at once: one layout
    figures.forEach((figure, i) => {
      const place = figure.querySelector("div"), width = widths[i], name = figure.dataset.plot;
      if (!width || Number(place.dataset.width) === width) return;
      const plot = draw[name](data[name] ?? data.training[name], width);
      plot.setAttribute("role", "img");
      plot.setAttribute("aria-label", figure.dataset.says);
      for (const part of plot.children) part.setAttribute("aria-hidden", "true"); // marks are named for us, not for readers
      if (name === "volumes") plot.addEventListener("click", () => { if (plot.value?.row) location.hash = plot.value.row; });
      place.dataset.width = width;
      place.replaceChildren(plot);
    });
  };
  redraw(places);
  const watch = new ResizeObserver((entries) => redraw(entries.map((entry) => entry.target)));
  for (const figure of places) watch.observe(figure);
})();
