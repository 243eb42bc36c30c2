// The charts: success by split on a chosen axis, and what the trainers logged.
const CHART = DATA.chart;
const SHAPES = ["circle", "square", "triangle-up", "cross", "triangle-down", "diamond"];
const DASHES = [[1, 0], [5, 3], [2, 2], [7, 2, 2, 2]];
const MARKS = ["●", "■", "▲", "✚", "▼", "◆"];
const rates = CHART ? unique(CHART.points.filter((p) => p.arm !== "init" && p.arm !== "base").map((p) => p.lr)) : [];
const seeds = CHART ? unique(CHART.points.map((p) => p.seed)).filter((seed) => seed !== null).sort((a, b) => a - b) : [];
const armOf = Object.fromEntries((CHART?.arms ?? []).map((arm) => [arm.name, arm]));
const POOLED = "pooled";
const drawnLines = CHART ? [...CHART.points, ...CHART.training] : [];
const ratesOf = new Map();
for (const line of drawnLines) {
  if (!ratesOf.has(line.arm)) ratesOf.set(line.arm, []);
  const own = ratesOf.get(line.arm); // dashes tell the rates of one arm apart
  if (!own.includes(line.lr)) own.push(line.lr);
  line.rank = String(own.indexOf(line.lr) % DASHES.length);
}

if (CHART) {
  const further = CHART.splits.map((split) => split.name).filter((name) => !CHART.main_splits.includes(name));
  declare("axis", CHART.axes[0].name);
  declare("metric", CHART.metrics[0]?.name ?? "");
  declare("noarm", []);
  declare("norate", []);
  declare("nosplit", CHART.splits.length > 6 ? further : []);
  declare("seeds", [POOLED]);
  declare("extras", []);
  drawers.push(drawControls, drawPanels, drawTraining);
}

const axisOf = (name) => CHART.axes.find((axis) => axis.name === name) ?? CHART.axes[0];
const seedName = (seed) => (seed === null ? POOLED : String(seed));

function drawControls() {
  const drawn = CHART.arms.filter((arm) => CHART.points.some((point) => point.arm === arm.name));
  byId("controls").replaceChildren(
    ...[
      toggles("Horizontal axis", "axis", CHART.axes.map((axis) => ({ name: axis.name, label: axis.title })), { radio: true }),
      toggles("Measure", "metric", CHART.metrics.map((metric) => ({ name: metric.name, label: metric.title })), { radio: true }),
      toggles("Arms", "noarm", drawn),
      toggles("Learning rates", "norate", rates.map((lr, n) => ({ name: lr, label: lr, mark: MARKS[n % MARKS.length] }))),
      toggles("Seeds", "seeds", seeds.length ? [POOLED, ...seeds.map(String)].map((name) => ({
        name, label: name === POOLED ? "mean over seeds" : `seed ${name}`,
      })) : [], { listed: true }),
      toggles("Splits", "nosplit", CHART.splits.map((split) => ({ name: split.name, label: split.name }))),
      toggles("Also", "extras", [
        { name: "zero", label: "axis from 0" },
        ...(CHART.paper.length ? [{ name: "paper", label: "the paper's numbers" }] : []),
      ], { listed: true }),
    ].filter(Boolean),
  );
}

function shownPoints(split) {
  return CHART.points.filter(
    (point) =>
      point.split === split && point.metric === state.metric && point[state.axis] !== undefined &&
      !state.noarm.includes(point.arm) && !(rates.length > 1 && state.norate.includes(point.lr)) &&
      (state.seeds.includes(seedName(point.seed)) || point.arm === "base"),
  );
}

function describe(point) {
  const axis = axisOf(state.axis);
  const arm = armOf[point.arm]?.label ?? point.arm;
  const who = point.start ? [`Start of ${arm}`] : [arm, point.lr === "–" ? "" : `lr ${point.lr}`, `step ${point.at_step}`];
  const seed = point.seed === null ? (point.seeds > 1 ? `mean of ${point.seeds} seeds` : "") : `seed ${point.seed}`;
  const lines = [
    [...who, seed].filter(Boolean).join(" · "),
    `${point.percent.toFixed(1)} ± ${point.se.toFixed(1)} % (${point.n} counted)`,
    `${axis.title}: ${point[axis.name]}`,
  ];
  if (point.id !== undefined && axis.name !== "id") lines.push(`id: ${point.id.toFixed(1)} %`);
  return (DATA.episodes?.episodes ?? []).some((played) => point.at.includes(nameOf(played))) ? [...lines, "Click: its episodes"] : lines;
}

/** Render a Vega-Lite specification into a box; nothing in it is evaluated as code. */
async function render(box, spec) {
  const compiled = vegaLite.compile({ background: null, config: CONFIG, ...spec }).spec;
  box.view?.finalize();
  const view = new vega.View(vega.parse(compiled, null, { ast: true }), {
    expr: vega.expressionInterpreter, renderer: "svg", container: box, hover: true, logLevel: vega.Warn,
  });
  view.tooltip((_, event, item, value) => {
    if (!value || !item?.datum) return hideTip();
    const lines = box.describe(item.datum);
    if (lines) showTip({ left: event.clientX, top: event.clientY, bottom: event.clientY, width: 0 }, lines);
  });
  box.view = view;
  await view.runAsync();
  return view;
}

const CONFIG = {
  view: { stroke: null },
  axis: { grid: true, domain: false, tickSize: 4, labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal", tickCount: 5 },
  font: "system-ui, sans-serif",
};

/** Colour, shape and dash of a list of points, by their arm and learning rate. */
function looks(points) {
  const arms = unique(points.map((point) => point.arm));
  const armRates = unique(points.map((point) => point.lr));
  const at = (lr) => Math.max(0, rates.indexOf(lr));
  return {
    color: { field: "arm", type: "nominal", legend: null, scale: { domain: arms, range: arms.map((arm) => shade(armOf[arm]?.colour ?? "#009E73")) } },
    shape: { field: "lr", type: "nominal", legend: null, scale: { domain: armRates, range: armRates.map((lr) => SHAPES[at(lr) % SHAPES.length]) } },
    strokeDash: { field: "rank", type: "nominal", legend: null, scale: { domain: DASHES.map((_, rank) => String(rank)), range: DASHES } },
  };
}

function panelSpec(split, points) {
  const axis = axisOf(state.axis);
  const { color, shape, strokeDash } = looks(points);
  const rows = points.map((point) => ({ ...point, low: Math.max(0, point.percent - point.se), high: Math.min(100, point.percent + point.se), who: `${point.arm} ${point.lr} ${point.seed}` }));
  const curves = rows.filter((row) => !row.start);
  const starts = Object.values(Object.fromEntries(rows.filter((row) => row.start).map((row) => [row.at.join(), row])));
  const x = { field: axis.name, type: "quantitative", title: axis.title, scale: { zero: false, nice: true, padding: 8 } };
  const y = { field: "percent", type: "quantitative", title: "%", scale: { zero: state.extras.includes("zero") } };
  const detail = { field: "who", type: "nominal" };
  const order = { field: "step", type: "quantitative" };
  const grey = shade("#555555");
  const hit = { tooltip: { content: "data" }, stroke: "transparent", strokeWidth: 16, cursor: "pointer", opacity: 1 };
  const layer = [
    { data: { values: starts }, mark: { type: "rule", strokeDash: [1, 3], color: grey }, encoding: { y } },
    { data: { values: rows }, mark: { type: "line", strokeWidth: 1.6 }, encoding: { x, y, color, strokeDash, detail, order } },
    { data: { values: rows }, mark: { type: "rule" }, encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color } },
    { data: { values: curves }, mark: { type: "point", filled: true, size: 55, ...hit }, encoding: { x, y, color, shape } },
    { data: { values: starts }, mark: { type: "point", filled: true, shape: "diamond", size: 110, ...hit, fill: grey }, encoding: { x, y } },
  ];
  const paper = CHART.paper.filter((entry) => entry.split === split && entry.metric === state.metric && armOf[entry.arm] && !state.noarm.includes(entry.arm));
  if (paper.length && state.extras.includes("paper")) {
    layer.push({ data: { values: paper }, mark: { type: "rule", strokeDash: [6, 4], strokeWidth: 1.2 }, encoding: { y, color } });
  }
  if (CHART.budget?.axis === axis.name) {
    layer.unshift({ data: { values: [{ [axis.name]: CHART.budget.value }] }, mark: { type: "rule", strokeWidth: 5, opacity: 0.13, color: grey }, encoding: { x } });
  }
  return { width: "container", height: 210, autosize: { type: "fit-x", contains: "padding" }, layer };
}

function pick(points) {
  const names = unique(points.flatMap((point) => point.at));
  const played = unique((DATA.episodes?.episodes ?? []).filter((e) => names.includes(nameOf(e))).map((e) => e.arm));
  const splits = unique(points.map((point) => point.split));
  change({ picks: names, arm: played.length === 1 ? played[0] : "", split: splits.length === 1 ? splits[0] : "", instance: "", shown: [] });
}

function drawPanels() {
  const shown = CHART.splits.filter((split) => !state.nosplit.includes(split.name));
  const boxes = [];
  for (const split of shown) {
    const points = shownPoints(split.name);
    if (!points.length) continue;
    const box = el("div", { className: "plot", tabIndex: 0, role: "group", ariaLabel: `${split.title}: arrow keys move between checkpoints, Enter shows their episodes` });
    box.describe = (datum) => (datum.at ? describe(datum) : null);
    boxes.push([box, split.name, points]);
    box.panel = el("div", { className: "panel" }, el("h3", {}, split.title, " ", el("code", {}, split.name)), box);
  }
  byId("panels").replaceChildren(...boxes.map(([box]) => box.panel));
  if (!boxes.length) byId("panels").append(el("p", {}, "Nothing is evaluated yet, or all of it is switched off."));
  for (const [box, split, points] of boxes) {
    render(box, panelSpec(split, points)).then((view) => {
      view.addEventListener("click", (_, item) => item?.datum?.at && showPicked([item.datum]));
      const marks = marksOf(box, points);
      watchDrag(box, marks);
      walkPoints(box, marks);
    });
  }
}

function showPicked(points) {
  pick(points);
  byId("episodes")?.scrollIntoView({ behavior: "smooth" });
}

/** The drawn points of a panel, in the order of its rows. */
function marksOf(box, points) {
  const marks = [...box.querySelectorAll(".mark-symbol path")].filter((node) => node.__data__?.datum?.at);
  const position = new Map(points.map((point, n) => [point.at.join() + point.start, n]));
  const at = ({ __data__: { datum } }) => position.get(datum.at.join() + datum.start);
  return marks.sort((a, b) => at(a) - at(b));
}

/** Picks the checkpoints that a mouse is dragged across; a finger scrolls the page instead. */
function watchDrag(box, marks) {
  const band = el("div", { className: "band", hidden: true });
  box.append(band);
  box.addEventListener("pointerdown", (down) => {
    if (down.pointerType !== "mouse" || down.button !== 0) return;
    const span = (event) => [Math.min(down.clientX, event.clientX), Math.max(down.clientX, event.clientX)];
    const move = (event) => {
      const [left, right] = span(event);
      band.hidden = right - left < 6;
      band.style.left = `${left - box.getBoundingClientRect().left}px`;
      band.style.width = `${right - left}px`;
    };
    addEventListener("pointermove", move);
    addEventListener("pointerup", (event) => {
      removeEventListener("pointermove", move);
      if (band.hidden) return;
      band.hidden = true;
      const [left, right] = span(event);
      const middle = (mark) => mark.getBoundingClientRect().left + mark.getBoundingClientRect().width / 2;
      const inside = marks.filter((mark) => middle(mark) >= left && middle(mark) <= right);
      if (inside.length) showPicked(inside.map((mark) => mark.__data__.datum));
    }, { once: true });
  });
}

/** The points of a panel by arrow keys. */
function walkPoints(box, marks) {
  let at = -1;
  box.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step && marks.length) {
      event.preventDefault();
      at = (at + step + marks.length) % marks.length;
      showTip(marks[at].getBoundingClientRect(), describe(marks[at].__data__.datum));
    } else if (event.key === "Enter" && at >= 0) showPicked([marks[at].__data__.datum]);
  });
  box.addEventListener("blur", hideTip);
}

// --- training ------------------------------------------------------------------------------------------------
function drawTraining() {
  const section = byId("training");
  if (!section) return;
  const lines = CHART.training.filter((line) => !state.noarm.includes(line.arm) && !(rates.length > 1 && state.norate.includes(line.lr)));
  const boxes = unique(lines.map((line) => line.quantity)).map((quantity) => {
    const box = el("div", { className: "plot" });
    const values = lines.filter((line) => line.quantity === quantity);
    box.describe = (datum) => (datum.stage ? [`${datum.stage} · step ${datum.step}`, `${quantity}: ${datum.value}`] : null);
    return [box, values, el("div", { className: "panel" }, el("h3", {}, quantity), box)];
  });
  byId("training-panels").replaceChildren(...boxes.map(([, , panel]) => panel));
  for (const [box, values] of boxes) render(box, trainingSpec(values));
}

function trainingSpec(values) {
  const { color, strokeDash } = looks(values);
  const amounts = values.map((line) => line.value);
  const log = Math.min(...amounts) > 0 && Math.max(...amounts) > 8 * Math.min(...amounts);
  const encoding = {
    x: { field: "step", type: "quantitative", title: "Training step of the stage" },
    y: { field: "value", type: "quantitative", title: null, axis: { format: "~g" }, scale: log ? { type: "log" } : { zero: false } },
    color, detail: { field: "stage", type: "nominal" },
  };
  return {
    width: "container", height: 170, autosize: { type: "fit-x", contains: "padding" }, data: { values },
    layer: [
      { mark: { type: "line", strokeWidth: 1.2 }, encoding: { ...encoding, strokeDash } },
      { mark: { type: "point", filled: true, size: 70, opacity: 0, tooltip: { content: "data" } }, encoding },
    ],
  };
}
