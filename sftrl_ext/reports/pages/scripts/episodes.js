// The viewer of kept episodes: a list of instances, and below it one of them as every arm played it.
const KEPT = DATA.episodes;
const MOST_ROWS = 200;
const COMPARED = "compared";
const ALL = "all";
const PICKED = "picked";
const STATES = {
  "right at once": ["#009E73", "circle"], "right after feedback": ["#E69F00", "diamond"], wrong: ["#C1121F", "square"],
  "cut off": ["#7A3B8F", "triangle-up"], "not reached": ["#999999", "circle"],
};

const MAP_KEY = "On the maps: ● right at once, ◆ right after feedback, ■ wrong, ▲ cut off, grey not reached. Small arrows " +
  "show where the traveller looks; at the end a red one shows what was answered, a green one what was right.";

const nameOf = (episode) => `${episode.stage}@${episode.step}`;
const labelOf = (name) => (KEPT.arms.find((arm) => arm.name === name) ?? { label: name }).label;

if (KEPT) {
  declare("split", "");
  declare("arm", "");
  declare("verdict", "");
  declare("checkpoint", COMPARED);
  declare("search", "");
  declare("picks", []);
  declare("instance", "");
  declare("shown", []);
  drawers.push(drawEpisodes);
}

/** The checkpoints shown first: those that the verdict compares, and the last one of every other arm. */
const COMPARED_NAMES = (() => {
  const names = new Set(DATA.chart?.compared ?? []);
  for (const arm of unique((KEPT?.episodes ?? []).map((episode) => episode.arm))) {
    const played = KEPT.episodes.filter((episode) => episode.arm === arm);
    if (played.some((episode) => names.has(nameOf(episode)))) continue;
    const last = Math.max(...played.map((episode) => episode.step));
    for (const episode of played) if (episode.step === last) names.add(nameOf(episode));
  }
  return names;
})();

function ofCheckpoint(episode) {
  if (state.picks.length) return state.picks.includes(nameOf(episode));
  return state.checkpoint === ALL || COMPARED_NAMES.has(nameOf(episode));
}

function ofVerdict(episode) {
  if (!state.verdict || state.verdict === "differ") return true;
  if (state.verdict === "solved" || state.verdict === "unsolved") return episode.solved === (state.verdict === "solved");
  return episode.outcome === state.verdict;
}

/** Instances with an episode that passes the filters, in order, each with those episodes. */
function findInstances() {
  const hits = new Map();
  for (const episode of KEPT.episodes) {
    const instance = KEPT.instances[episode.instance];
    if (state.split && instance.split !== state.split) continue;
    if (state.arm && episode.arm !== state.arm) continue;
    if (!ofCheckpoint(episode)) continue;
    if (!hits.has(instance)) hits.set(instance, []);
    hits.get(instance).push(episode);
  }
  const needle = state.search.toLowerCase();
  return KEPT.instances.filter((instance) => {
    const episodes = hits.get(instance) ?? [];
    if (!episodes.some(ofVerdict)) return false;
    if (state.verdict === "differ" && unique(episodes.map((episode) => episode.solved)).length < 2) return false;
    return !needle || texts(instance, episodes).some((text) => text.toLowerCase().includes(needle));
  }).map((instance) => ({ instance, episodes: hits.get(instance) }));
}

function texts(instance, episodes) {
  const lines = episodes.flatMap((episode) => episode.parts.flatMap((part) => part.lines));
  return [instance.label, instance.id, ...instance.facts.flat(), ...lines.map((line) => KEPT.texts[line[1]])];
}

function select(title, key, options, onchange) {
  const items = options.map(([value, label]) => el("option", { value, selected: state[key] === value }, label));
  const run = (event) => (onchange ?? ((value) => change({ [key]: value, instance: key === "split" ? "" : state.instance })))(event.target.value);
  return el("label", {}, el("span", {}, title), el("select", { id: `filter-${key}`, on: { change: run } }, items));
}

function drawFilters() {
  const checkpoints = new Map();
  for (const episode of KEPT.episodes) {
    const rate = episode.rate && unique(KEPT.episodes.filter((e) => e.arm === episode.arm).map((e) => e.rate)).length > 1 ? `, lr ${episode.rate}` : "";
    checkpoints.set(nameOf(episode), `${labelOf(episode.arm)}, step ${episode.step}${rate}, seed ${episode.seed}`);
  }
  const outcomes = unique(KEPT.episodes.map((episode) => episode.outcome)).filter(Boolean).sort();
  const single = state.picks.length === 1 && checkpoints.has(state.picks[0]);
  const picked = state.picks.length ? (single ? state.picks[0] : PICKED) : state.checkpoint;
  const search = el("input", {
    id: "filter-search", type: "search", value: state.search, placeholder: "cards, words of a response, id",
    on: { change: (event) => change({ search: event.target.value }) },
  });
  const choose = (value) =>
    change({ picks: value === COMPARED || value === ALL ? [] : value === PICKED ? state.picks : [value],
      checkpoint: value === ALL ? ALL : COMPARED, shown: [] });
  const checkpoint = select("Checkpoint", "checkpoint", [
    [COMPARED, "compared ones"], [ALL, `all ${checkpoints.size}`],
    ...(state.picks.length && !single ? [[PICKED, `${state.picks.length} picked in the chart`]] : []), ...checkpoints,
  ], choose);
  checkpoint.querySelector("select").value = picked;
  byId("filters").replaceChildren(
    select("Split", "split", [["", "all"], ...unique(KEPT.instances.map((i) => i.split)).map((split) => [split, split])]),
    select("Arm", "arm", [["", "all, side by side"], ...KEPT.arms.map((arm) => [arm.name, arm.label])]),
    select("Verdict", "verdict", [["", "any"], ["solved", "solved"], ["unsolved", "not solved"], ["differ", "arms differ"], ...outcomes.map((name) => [name, `last: ${plain(name)}`])]),
    checkpoint,
    el("label", {}, el("span", {}, "Search"), search),
    el("button", { type: "button", on: { click: () => change({ split: "", arm: "", verdict: "", checkpoint: COMPARED, search: "", picks: [], shown: [] }) } }, "Reset"),
  );
}

const mark = (solved) => el("span", { className: `mark ${solved ? "good" : "bad"}`, ariaLabel: solved ? "solved" : "not solved" }, solved ? "✓" : "✗");

function drawEpisodes() {
  const focus = document.activeElement?.id;
  drawFilters();
  const hits = findInstances();
  const at = Math.max(0, hits.findIndex(({ instance }) => instance.id === state.instance && (!state.split || instance.split === state.split)));
  const arms = KEPT.arms.filter((arm) => hits.some(({ episodes }) => episodes.some((episode) => episode.arm === arm.name)));
  const rows = hits.slice(0, MOST_ROWS).map(({ instance, episodes }, number) => {
    const open = () => change({ instance: instance.id });
    const cells = arms.map((arm) => el("td", {}, episodes.filter((e) => e.arm === arm.name).slice(0, 12).map((e) => mark(e.solved))));
    const button = el("button", { type: "button", on: { click: open }, ariaCurrent: String(number === at) }, instance.label);
    return el("tr", { className: number === at ? "open" : "" }, el("td", {}, button), el("td", {}, el("code", {}, instance.split)), cells);
  });
  const head = el("tr", {}, el("th", {}, `${hits.length} of ${KEPT.instances.length} instances`), el("th", {}, "split"), arms.map((arm) => el("th", {}, arm.label)));
  const scrolled = byId("found").scrollTop;
  byId("found").replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, rows)));
  byId("found").scrollTop = scrolled;
  if (hits.length > MOST_ROWS) byId("found").append(el("p", {}, `${hits.length - MOST_ROWS} more: narrow the filters.`));
  if (focus) byId(focus)?.focus();
  if (!hits.length) return byId("episode").replaceChildren(el("p", {}, "No kept episode passes these filters."));
  drawInstance(hits, at);
}

function drawInstance(hits, at) {
  const { instance, episodes } = hits[at];
  const go = (step) => change({ instance: hits[(at + step + hits.length) % hits.length].instance.id });
  viewer.go = go;
  const columns = KEPT.arms.filter((arm) => !state.arm || arm.name === state.arm).map((arm) => candidates(instance, arm, episodes)).filter(Boolean);
  const shared = sharedOpening(columns.map((column) => column.chosen));
  const opening = columns[0].chosen.parts[0]?.lines.slice(0, shared) ?? [];
  byId("episode").replaceChildren(...[
    el("div", { className: "pager" },
      el("button", { type: "button", on: { click: () => go(-1) }, ariaLabel: "previous instance" }, "←"),
      el("span", {}, `${at + 1} of ${hits.length}`),
      el("button", { type: "button", on: { click: () => go(1) }, ariaLabel: "next instance" }, "→"),
      el("a", { href: address(), id: "permalink", on: { click: () => history.replaceState(null, "", permalink(instance)) } }, "link to this view")),
    el("h3", {}, instance.label, " ", el("code", {}, instance.split)),
    el("p", {}, instance.facts.map(([key, text]) => el("span", { className: "chip" }, `${key}: `, el("b", {}, text)))),
    shownPictures(instance),
    instance.route && el("p", { className: "hint" }, MAP_KEY),
    el("div", {}, opening.map(message)),
    el("div", { className: "side" }, columns.map((column) => episodeColumn(instance, column, shared))),
  ].filter(Boolean));
  byId("permalink").href = permalink(instance);
  for (const box of byId("episode").querySelectorAll(".map")) drawMap(box, instance, box.walk);
}

const viewer = { go: () => {} };
const permalink = (instance) => {
  const before = state.instance;
  state.instance = instance.id;
  const link = address();
  state.instance = before;
  return link;
};

/** Episodes of an arm on an instance, and the one to show: chosen by hand, passing the filters, or compared. */
function candidates(instance, arm, passing) {
  const played = KEPT.episodes.filter((e) => KEPT.instances[e.instance] === instance && e.arm === arm.name);
  if (!played.length) return null;
  const hits = passing.filter((e) => e.arm === arm.name);
  const chosen = played.find((e) => state.shown.includes(nameOf(e))) ?? hits.find(ofVerdict) ?? hits[0]
    ?? played.find((e) => COMPARED_NAMES.has(nameOf(e))) ?? played.at(-1);
  return { arm, played, chosen };
}

/** Messages before the first response that all columns have in common. */
function sharedOpening(episodes) {
  const openings = episodes.map((episode) => episode.parts[0]?.lines ?? []);
  let count = 0;
  const same = (line) => line && line[0] !== "assistant" && openings.every((lines) => lines[count]?.[1] === line[1] && lines[count]?.[0] === line[0]);
  while (same(openings[0][count])) count += 1;
  return count;
}

function shownPictures(instance) {
  if (instance.route) return null;
  if (instance.pictures.length) {
    return el("figure", {}, instance.pictures.map((src) => el("img", { className: "hand", src, alt: instance.shown })), el("figcaption", {}, instance.shown));
  }
  const cards = (instance.facts.find(([key]) => key === "cards")?.[1] ?? "").split(" ").map((text) => /^(\d{1,2}|[AJQK])([SHDC♠♥♦♣]?)$/.exec(text));
  if (!cards.every(Boolean)) return null;
  const suits = { S: "♠", H: "♥", D: "♦", C: "♣" };
  return el("div", { className: "hand-cards" }, cards.map(([, rank, suit]) => {
    const drawn = suits[suit] ?? suit;
    return el("span", { className: "♥♦".includes(drawn) && drawn ? "card red" : "card" }, rank, drawn && el("small", {}, drawn));
  }));
}

function episodeColumn(instance, { arm, played, chosen }, shared) {
  const tag = el("span", { className: "arm" }, arm.label);
  tag.style.setProperty("--arm", arm.colour);
  tag.style.setProperty("--on-arm", brightness(channels(arm.colour)) > 0.5 ? "#111" : "#fff");
  const describeStep = (e) => `step ${e.step}${e.rate ? `, lr ${e.rate}` : ""}, seed ${e.seed}`;
  const names = unique(played.map(nameOf));
  const choose = (event) => change({ instance: instance.id, shown: [...state.shown.filter((name) => !names.includes(name)), event.target.value] });
  const steps = names.length < 2 ? describeStep(chosen) : el("select", { id: `step-${arm.name}`, ariaLabel: `checkpoint of ${arm.label}`, on: { change: choose } },
    names.map((name) => el("option", { value: name, selected: name === nameOf(chosen) }, describeStep(played.find((e) => nameOf(e) === name)))));
  const badge = el("span", { className: `badge ${chosen.solved ? "good" : "bad"}` }, chosen.solved ? "solved" : "not solved");
  const body = el("div", { className: "episode", "data-arm": arm.name }, el("h4", {}, tag, " ", steps, " ", badge));
  if (instance.route && chosen.walk) {
    const map = el("div", { className: "map", role: "img", ariaLabel: `the route on a map: ${chosen.walk.verdict}` });
    map.walk = chosen.walk;
    body.append(map, el("p", { className: "point" }, chosen.walk.verdict));
  }
  chosen.parts.forEach((part, number) => {
    const view = instance.pictures[instance.pictured.indexOf(part.point)];
    if (part.heading) body.append(el("p", { className: "point", id: `${arm.name}-point-${part.point}` }, part.heading));
    if (view) body.append(el("img", { className: "view", src: view, alt: part.heading, loading: "lazy" }));
    body.append(...part.lines.slice(number ? 0 : shared).map(message));
  });
  return body;
}

function message([role, text, outcome, reward]) {
  const content = KEPT.texts[text];
  const pre = el("pre", {}, content);
  if (role !== "assistant") {
    const folded = content.length > 900 ? el("details", {}, el("summary", {}, `${content.split("\n")[0].slice(0, 90)} …`), pre) : pre;
    return el("div", { className: "turn user" }, el("span", { className: "who" }, role), folded);
  }
  const good = outcome === "correct";
  const amount = reward === null ? "" : ` ${reward > 0 ? "+" : ""}${reward}`;
  const badge = outcome === null ? null : el("span", { className: `badge ${good ? "good" : "bad"}` }, `${good ? "✓" : "✗"} ${plain(outcome)}${amount}`);
  return el("div", { className: "turn model" }, el("span", { className: "who" }, "model"), badge, pre);
}

/** A route from above: its points, where the traveller looks, and how far the episode came. */
function drawMap(box, instance, walk) {
  const points = instance.route.map((point, n) => {
    const [colour, form] = STATES[walk.states[n]];
    return { ...point, state: walk.states[n], fill: shade(colour), form };
  });
  const reached = points.filter((point) => point.state !== "not reached");
  const [xs, ys] = [points.map((point) => point.x), points.map((point) => point.y)];
  const middle = [(Math.min(...xs) + Math.max(...xs)) / 2, (Math.min(...ys) + Math.max(...ys)) / 2];
  const height = 240;
  const scale = Math.max((Math.max(...xs) - Math.min(...xs)) / (box.clientWidth - 150), (Math.max(...ys) - Math.min(...ys)) / (height - 60), 0.1);
  const axis = (field, at, size) => ({ field, type: "quantitative", axis: null, scale: { domain: [at - (scale * size) / 2, at + (scale * size) / 2], nice: false, zero: false } });
  const [x, y] = [axis("x", middle[0], box.clientWidth), axis("y", middle[1], height)];
  const color = { field: "fill", type: "nominal", scale: null };
  const shape = { field: "form", type: "nominal", scale: null };
  const ink = shade("#222222");
  const order = { field: "number", type: "quantitative" };
  const last = reached.at(-1);
  const ways = [["#C1121F", walk.answered], ["#009E73", walk.right]].filter(([, heading]) => heading !== null && last)
    .map(([colour, heading]) => ({ x: last.x, y: last.y, heading, fill: shade(colour) }));
  box.describe = (datum) => datum.number ? [`point ${datum.number}: ${datum.state}`, `facing ${Math.round(datum.heading)}°, right: ${datum.action}`, datum.observation] : null;
  const arrow = "M0,-1.9 L0.35,-1.2 L0.1,-1.2 L0.1,-0.7 L-0.1,-0.7 L-0.1,-1.2 L-0.35,-1.2 Z";
  render(box, {
    width: box.clientWidth, height, autosize: { type: "none" }, padding: 0, layer: [
      { data: { values: points }, mark: { type: "line", strokeWidth: 9, opacity: 0.15, color: ink, strokeCap: "round", strokeJoin: "round" }, encoding: { x, y, order } },
      { data: { values: reached }, mark: { type: "line", strokeWidth: 2.2, color: shade("#6F8FA8") }, encoding: { x, y, order } },
      { data: { values: points }, mark: { type: "point", shape: arrow, filled: true, size: 230, color: ink }, encoding: { x, y, angle: { field: "heading", type: "quantitative", scale: null } } },
      { data: { values: ways }, mark: { type: "point", shape: arrow, filled: true, size: 900 }, encoding: { x, y, angle: { field: "heading", type: "quantitative", scale: null }, color } },
      { data: { values: points }, mark: { type: "point", filled: true, size: 190, opacity: 1, tooltip: { content: "data" } }, encoding: { x, y, color, shape } },
      { data: { values: points }, mark: { type: "text", fontSize: 9, fontWeight: "bold", color: "white", baseline: "middle", tooltip: { content: "data" } }, encoding: { x, y, text: { field: "number" } } },
      { data: { values: points.filter((point) => point.landmark) }, mark: { type: "text", fontSize: 10, dy: -14, color: ink, limit: 130 }, encoding: { x, y, text: { field: "landmark" } } },
    ],
  });
}

document.addEventListener("keydown", (event) => {
  if (!KEPT || event.ctrlKey || event.metaKey || event.altKey || /^(input|select|textarea)$/i.test(event.target.tagName)) return;
  const run = { n: () => viewer.go(1), p: () => viewer.go(-1), "/": () => byId("filter-search").focus(), t: () => byId("theme").click() }[event.key];
  if (!run) return;
  event.preventDefault();
  run();
});
