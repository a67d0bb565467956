"use strict";
// Drawings by Observable Plot, as SVG with real text. Shape and place tell what colour tells.

const NARROW = 520;

// Drawings are made one after the other when the page is there: tables and words do not wait for them.
const waitingDrawings = [];

function drawLater(draw) {
  waitingDrawings.push(draw);
  if (waitingDrawings.length === 1) setTimeout(drawNext, 30);
}

function drawNext() {
  waitingDrawings[0]?.();
  waitingDrawings.shift();
  if (waitingDrawings.length) setTimeout(drawNext);
}

window.addEventListener("beforeprint", () => { for (const draw of waitingDrawings.splice(0)) draw(); });

function chart(title, caption, draw) {
  const place = el("div", { class: "drawing" });
  const node = el("figure", {}, el("h3", {}, title), place, caption ? el("figcaption", {}, caption) : null);
  let width = 0;
  const redraw = () => {
    const now = Math.floor(place.clientWidth);
    if (now === width || now < 40) return;
    width = now;
    const drawing = draw(now);
    drawing.setAttribute("role", "img");
    drawing.setAttribute("aria-label", title);
    place.replaceChildren(drawing);
    place.classList.add("drawn");
  };
  new ResizeObserver(() => drawLater(redraw)).observe(place);
  return node;
}

function plotted(width, options) {
  return Plot.plot({ className: "chart", width, style: { fontSize: "12px", background: "none", overflow: "visible" }, ...options });
}

const INK = { surrogate: "var(--warm)", other: "var(--accent)" };
const inkOf = (point) => (point.is_surrogate ? INK.surrogate : INK.other);
const symbolOf = (point) => (point.is_surrogate ? "diamond" : "circle");

function nameAxis(width) {
  return Plot.axisY({ label: null, tickSize: 0, lineWidth: width < NARROW ? 11 : 15, fontVariant: "normal" });
}

function nameMargin(width) {
  return width < NARROW ? 144 : 190;
}

// Narrow drawings break names into up to four lines.
function rowHeight(labels, width, least) {
  return width < NARROW ? Math.max(38, 8 + 13 * Math.ceil(Math.max(...labels.map((label) => String(label).length), 0) / 18)) : least;
}

function intervals(points, width, { zero = false } = {}) {
  const labels = [...new Set(points.map((point) => point.label))];
  return plotted(width, {
    marginLeft: nameMargin(width),
    marginRight: 16,
    marginTop: 8,
    marginBottom: 28,
    height: 36 + labels.length * rowHeight(labels, width, 32),
    x: { grid: true, label: null, ticks: width < NARROW ? 3 : 5, ...(zero ? {} : { zero: true }) },
    y: { domain: labels, type: "point", padding: 0.6 },
    marks: [
      nameAxis(width),
      zero ? Plot.ruleX([0], { stroke: "currentColor" }) : null,
      Plot.ruleY(points.filter((point) => point.low !== null), { y: "label", x1: "low", x2: "high", stroke: inkOf, strokeWidth: 2 }),
      Plot.dot(points, { y: "label", x: "value", fill: inkOf, symbol: symbolOf, r: 4.5, title: (point) => `${point.label}: ${figure(point.value)}` }),
    ],
  });
}

function bars(points, width, { x, y, format = (value) => count(value), domain }) {
  const names = domain ?? [...new Set(points.map((point) => point[y]))];
  return plotted(width, {
    marginLeft: nameMargin(width),
    marginRight: 54,
    marginTop: 8,
    marginBottom: 28,
    height: 36 + names.length * rowHeight(names, width, 30),
    x: { grid: true, label: null, ticks: 4, tickFormat: (value) => format(value) },
    y: { domain: names, padding: 0.3 },
    marks: [
      nameAxis(width),
      Plot.barX(points, { y, x, fill: inkOf }),
      Plot.ruleX([0]),
      Plot.text(points, { y, x, text: (point) => format(point[x]), textAnchor: "start", dx: 5 }),
    ],
  });
}

// Rows of users in bins: the surrogate's diamond beside the backbone's circle, with intervals and the number of users.
function binned(points, width, { x, type, format }) {
  const drawn = points.map((point) => ({ ...point, is_surrogate: point.row === "surrogate" }));
  const half = (isSurrogate) => drawn.filter((point) => point.is_surrogate === isSurrogate);
  const marks = [true, false].flatMap((isSurrogate) => [
    Plot.ruleX(half(isSurrogate).filter((point) => point.low !== null), { x: "x", y1: "low", y2: "high", stroke: inkOf, strokeWidth: 2, dx: isSurrogate ? -4 : 4 }),
    Plot.dot(half(isSurrogate), { x: "x", y: "mean", fill: inkOf, symbol: symbolOf, r: 4.5, dx: isSurrogate ? -4 : 4, title: (point) => `${point.row}: ${figure(point.mean)}, ${plural(point.num, "user")}` }),
  ]);
  return plotted(width, {
    height: x ? 270 : 250,
    marginBottom: x ? 66 : 46,
    marginLeft: 46,
    x: { label: x, type, ...(type === "point" ? { domain: [...new Set(points.map((point) => point.x))] } : {}), tickFormat: format, labelAnchor: "center", labelArrow: "none", labelOffset: 60, ...(type === "point" ? { padding: 0.5 } : { ticks: width < NARROW ? 3 : 6, inset: 14 }) },
    y: { grid: true, label: "NDCG@10", zero: true, ticks: 5 },
    marks: [Plot.ruleY([0]), ...marks, Plot.text(half(true), { x: "x", frameAnchor: "bottom", text: (point) => `n=${point.num}`, dy: 36, fontSize: 11 })],
  });
}

function legend() {
  return el("p", { class: "soft legend" }, el("span", { class: "mark-surrogate" }, "◆ surrogate"), " ", el("span", { class: "mark-other" }, "● without an LLM"));
}

function overviewCharts(overview) {
  const charts = overview.charts;
  const level = "Lines are 95 % intervals.";
  const drawn = { figures: [], differences: [], behaviour: [], hits: [], cost: [] };
  for (const name of [...new Set((charts.metrics ?? []).map((point) => point.metric))]) {
    const points = charts.metrics.filter((point) => point.metric === name);
    drawn.figures.push(chart(name, null, (width) => intervals(points, width)));
  }
  for (const reference of [...new Set((charts.differences ?? []).map((point) => point.reference))]) {
    const points = charts.differences.filter((point) => point.reference === reference);
    const title = `NDCG@10 minus that of the ${reference}`;
    drawn.differences.push(chart(title, `${level} One that holds 0 does not tell the two apart.`, (width) => intervals(points, width, { zero: true })));
  }
  if (charts.by_rounds?.length) {
    drawn.behaviour.push(chart("By number of rounds", `${level} Users that took as many rounds; n is their number.`, (width) => binned(charts.by_rounds, width, { x: "rounds of the user", type: "point" })));
  }
  if (charts.found?.length) {
    const rounds = charts.found;
    drawn.behaviour.push(chart("Targets found by each round", "Share of targets that some tool had returned by then.", (width) => plotted(width, {
      height: 260, marginLeft: 46, marginBottom: 40,
      x: { label: "round", type: "point", padding: 0.5, labelAnchor: "center", labelArrow: "none" },
      y: { grid: true, zero: true, label: "share of targets", tickFormat: "%" },
      marks: [Plot.ruleY([0]), Plot.line(rounds, { x: "round", y: "share", stroke: INK.surrogate, strokeWidth: 2 }), Plot.dot(rounds, { x: "round", y: "share", fill: INK.surrogate, symbol: "diamond", r: 4 }), Plot.text(rounds, { x: "round", y: "share", text: (point) => `${(100 * point.share).toFixed(0)}%`, dy: -12 })],
    })));
  }
  for (const name of [...new Set((charts.groups ?? []).map((point) => point.grouping))]) {
    const points = charts.groups.filter((point) => point.grouping === name).map((point) => ({ ...point, x: point.group, mean: point.value, row: point.row }));
    const two = points.filter((point) => point.row === "surrogate" || point.row === "backbone");
    drawn.behaviour.push(chart(`By ${name}`, level, (width) => binned(two, width, { x: null, type: "point" })));
  }
  if (charts.funnel) drawn.hits.push(chart("From the candidates to the final list", "Recall: the share of the targets that are there.", (width) => bars(charts.funnel.map((point, place) => ({ ...point, is_surrogate: place === 1 || place === 2 })), width, { x: "value", y: "label", format: (value) => figure(value, 3) })));
  if (charts.fates) {
    const points = Object.entries(charts.fates).map(([kind, num]) => ({ label: overview.fates[kind], num, is_surrogate: kind === "hit" }));
    drawn.hits.push(chart("What became of the targets", null, (width) => bars(points, width, { x: "num", y: "label" })));
  }
  for (const panel of [...new Set((charts.tools ?? []).map((point) => point.panel))]) {
    const points = charts.tools.filter((point) => point.panel === panel);
    drawn.hits.push(chart(`By tool: ${panel}`, panel === "hits" ? "A hit can carry the marks of several tools." : null, (width) => bars(points, width, { x: "num", y: "mark" })));
  }
  if (charts.cost?.points.length) {
    const short = (value) => (charts.cost.unit.startsWith("dollars") ? `$${value.toPrecision(2)}` : d3.format(".2~s")(value));
    drawn.cost.push(chart("Cost against quality", `${level} Users in five bins by what they cost; n is their number.`, (width) => binned(charts.cost.points, width, { x: charts.cost.unit, type: "linear", format: short })));
  }
  if (charts.speed?.length) {
    const line = (key, label) => (width) => plotted(width, {
      height: 220, marginLeft: 46, marginBottom: 40,
      x: { label: "seconds since the start", labelAnchor: "center", labelArrow: "none", ticks: width < NARROW ? 4 : 8 }, y: { grid: true, zero: true, label, ticks: 4 },
      marks: [Plot.ruleY([0]), Plot.line(charts.speed, { x: "s", y: key, stroke: INK.other, strokeWidth: 2, curve: "step" })],
    });
    drawn.cost.push(chart("Users a second", null, line("users_per_s", "users/s")), chart("Seconds a user", "Median of the users that ended then.", line("median_s", "seconds")));
  }
  if (charts.failures?.length) drawn.cost.push(chart("Failures by kind", null, (width) => bars(charts.failures.map((point) => ({ ...point, kind: words(point.kind), is_surrogate: true })), width, { x: "num", y: "kind" })));
  return drawn;
}
