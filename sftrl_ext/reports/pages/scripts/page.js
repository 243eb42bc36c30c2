// What every part of a page uses: elements, the tooltip, the state in the address, theme, contents and terms.
const DATA = JSON.parse(document.getElementById("data").textContent);

/** An element with properties and children; strings become text, never markup. */
function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (key === "on") for (const [name, run] of Object.entries(value)) node.addEventListener(name, run);
    else if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

const byId = (id) => document.getElementById(id);
const unique = (values) => [...new Set(values)];
const plain = (name) => name.replaceAll("_", " ");

// --- tooltip -------------------------------------------------------------------------------------------------
const tip = el("div", { id: "tip", role: "tooltip", hidden: true });
document.body.append(tip);

/** Show lines of text beside a box of the window, within its edges. */
function showTip(box, lines) {
  tip.replaceChildren(...lines.map((line) => el("div", {}, line)));
  tip.hidden = false;
  const left = Math.min(box.left + box.width / 2 + 12, innerWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 10;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above > 4 ? above : Math.min(box.bottom + 12, innerHeight - tip.offsetHeight - 4)}px`;
}

function hideTip() {
  tip.hidden = true;
}

for (const kind of ["pointerover", "focusin"]) {
  document.addEventListener(kind, (event) => {
    const term = event.target.closest?.("dfn");
    if (term) showTip(term.getBoundingClientRect(), [term.dataset.tip]);
  });
}
for (const kind of ["pointerout", "focusout"]) {
  document.addEventListener(kind, (event) => event.target.closest?.("dfn") && hideTip());
}
document.addEventListener("scroll", hideTip, { passive: true });
document.addEventListener("keydown", (event) => event.key === "Escape" && hideTip());

// --- the state of a view, kept in the address ----------------------------------------------------------------
const initial = {};
const state = {};
const drawers = [];

/** Declare a part of the state, a text or a list of texts, with its value where the address names none. */
function declare(key, value) {
  initial[key] = value;
  state[key] = value;
}

function readAddress() {
  Object.assign(state, initial);
  if (!location.hash.startsWith("#?")) return;
  for (const [key, value] of new URLSearchParams(location.hash.slice(2))) {
    if (!(key in initial)) continue;
    state[key] = Array.isArray(initial[key]) ? value.split(",").filter(Boolean).map(decodeURIComponent) : value;
  }
}

function address() {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (JSON.stringify(value) === JSON.stringify(initial[key])) continue;
    query.set(key, Array.isArray(value) ? value.map(encodeURIComponent).join(",") : value);
  }
  return `#?${query}`;
}

/** Change the state, the address and everything drawn of it. */
function change(changes) {
  Object.assign(state, changes);
  history.replaceState(null, "", address());
  draw();
}

function draw() {
  hideTip();
  for (const drawer of drawers) drawer();
}

addEventListener("hashchange", () => {
  if (!location.hash.startsWith("#?")) return;
  readAddress();
  draw();
});

/** A group of check boxes for the names that are not in a list of the state, or of those that are in it. */
function toggles(title, key, options, { listed = false, radio = false } = {}) {
  if (options.length < (listed ? 1 : 2)) return null;
  const boxes = options.map(({ name, label, colour, mark }) => {
    const checked = radio ? state[key] === name : state[key].includes(name) === listed;
    const toggle = () => {
      if (radio) return change({ [key]: name });
      const rest = state[key].filter((other) => other !== name);
      change({ [key]: rest.length < state[key].length ? rest : [...rest, name] });
      byId(`${key}-${name}`)?.focus();
    };
    const input = el("input", {
      type: radio ? "radio" : "checkbox", name: key, id: `${key}-${name}`, value: name, checked, on: { change: toggle },
    });
    const swatch = colour || mark ? el("span", { className: "swatch" }, mark ?? "") : null;
    if (colour) swatch.style.setProperty("--swatch", shade(colour));
    return el("label", { className: "toggle" }, input, swatch, label);
  });
  return el("fieldset", {}, el("legend", {}, title), el("div", { className: "toggles" }, boxes));
}

// --- theme ---------------------------------------------------------------------------------------------------
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const THEMES = ["auto", "light", "dark"];

function theme() {
  try {
    return THEMES.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "auto";
  } catch {
    return document.documentElement.dataset.theme || "auto"; // no storage in this window
  }
}

function applyTheme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = { auto: "◐ auto", light: "☀ light", dark: "☾ dark" }[name];
}

const isDark = () => (theme() === "auto" ? prefersDark.matches : theme() === "dark");

const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
const brightness = ([red, green, blue]) => (0.2126 * red + 0.7152 * green + 0.0722 * blue) / 255;

/** A colour of the figures, lightened on a dark page until it is readable there. */
function shade(colour) {
  let parts = channels(colour);
  while (isDark() && brightness(parts) < 0.5) parts = parts.map((part) => Math.round(part + (255 - part) * 0.15) + 1);
  return `rgb(${parts.join(" ")})`;
}

function startTheme() {
  applyTheme(theme());
  byId("theme").addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length];
    document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("theme", next);
    } catch {
      // A window without storage keeps the choice until it is closed.
    }
    applyTheme(next);
    draw();
  });
  prefersDark.addEventListener("change", draw);
}

// --- contents and terms --------------------------------------------------------------------------------------
function listContents() {
  const items = [...document.querySelectorAll("main h2")].map((heading, number) => {
    const section = heading.closest("section");
    section.id ||= `section-${number + 1}`;
    return el("li", {}, el("a", { href: `#${section.id}` }, heading.textContent));
  });
  byId("contents").append(el("ol", {}, items));
  byId("contents").open = matchMedia("(min-width: 1180px)").matches;
}

/** Mark the first use of each term of the glossary in the page's own texts. */
function explainTerms() {
  const left = new Map(Object.entries(DATA.glossary));
  const names = [...left.keys()].sort((a, b) => b.length - a.length);
  const pattern = new RegExp(`(?<![\\w-])(${names.join("|")})(?=s?(?![\\w-]))`, "gi");
  const outside = "pre, code, a, summary, button, table, dfn, .controls, .filters, #found, #episode, h1";
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) if (!walker.currentNode.parentElement.closest(outside)) texts.push(walker.currentNode);
  for (const text of texts) {
    const pieces = [];
    let end = 0;
    for (const match of text.data.matchAll(pattern)) {
      const meaning = left.get(match[0].toLowerCase());
      if (!meaning) continue;
      left.delete(match[0].toLowerCase());
      pieces.push(text.data.slice(end, match.index), el("dfn", { tabIndex: 0, "data-tip": meaning }, match[0]));
      end = match.index + match[0].length;
    }
    if (pieces.length) text.replaceWith(...pieces, text.data.slice(end));
  }
}
