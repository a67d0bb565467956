"use strict";
// What the page is made of. Every text is put in as text: nothing here takes HTML.

const NOTHING = "–";

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// A title, an id, an LLM's words: their direction, and characters that turn it, stay inside.
function said(text, attributes = {}) {
  return el("bdi", { dir: "auto", ...attributes }, String(text));
}

// A name that may be broken after brackets, dots and underscores: better there than anywhere.
function breakable(name) {
  const parts = String(name).split(/(?<=[\[._])/);
  return el("bdi", { dir: "auto" }, parts.flatMap((part, number) => (number ? [el("wbr"), part] : [part])));
}

function words(name) {
  return String(name).replaceAll("_", " ");
}

function shownMetric(name) {
  return name.replace("ndcg", "NDCG").replace("mrr", "MRR").replace("recall", "Recall");
}

function count(number) {
  return number === null || number === undefined ? NOTHING : number.toLocaleString("en-US");
}

function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

function figure(value, digits = 4) {
  return value === null || value === undefined ? NOTHING : value.toFixed(digits);
}

function signed(value, digits = 4) {
  return value === null || value === undefined ? NOTHING : `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(digits)}`;
}

function pValue(value) {
  if (value === null || value === undefined) return NOTHING;
  return value < 0.001 ? "<.001" : value.toFixed(3).replace(/^0/, "");
}

function dollars(usd) {
  if (usd === null || usd === undefined) return NOTHING;
  return usd === 0 || usd >= 1 ? `$${usd.toFixed(2)}` : `$${usd.toPrecision(3)}`;
}

// `hrefOf`: where a row's users are listed, from the row's query.
function toolTable(table, hrefOf = null) {
  const head = el("tr", {}, el("th", { scope: "col" }, el("span", { class: "unseen" }, "name")), table.columns.map((name) => el("th", { scope: "col", class: "number" }, said(name))));
  const rows = table.rows.map((row) =>
    el("tr", { class: row.is_surrogate ? "surrogate" : null },
      el("th", { scope: "row" }, row.query && hrefOf ? el("a", { href: hrefOf(row.query) }, breakable(row.name)) : breakable(row.name)),
      row.cells.map((cell, number) => {
        const [first, ...small] = Array.isArray(cell) ? cell : [cell];
        return el("td", { class: "number", "data-label": table.columns[number] }, el("span", { class: first.endsWith("*") ? "best" : null }, first), small.map((line) => el("small", {}, line)));
      })));
  return el("section", { id: `table-${table.id}` },
    table.title ? el("h3", {}, said(table.title)) : null,
    table.caption ? el("p", { class: "soft" }, table.caption) : null,
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": table.title || table.id }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows))));
}

function pairs(entries) {
  return el("dl", {}, entries.map(([name, text]) => [el("dt", {}, said(name)), el("dd", {}, said(text))]));
}

function fold(title, content, isOpen = false) {
  // The content is made when it is first opened.
  const details = el("details", { open: isOpen }, el("summary", {}, title));
  const fill = () => { if (details.childElementCount === 1) details.append(content()); };
  if (isOpen) fill();
  details.addEventListener("toggle", fill);
  return details;
}

// What is counted in a round, for titles. Kinds that are not here say what they are.
const GLOSSES = {
  reask: "a reply that was not accepted, so the LLM was asked again with the reason",
  memory_exact: "entries of the LLM's list that name a known item by its exact id",
  memory_form: "entries whose id was written in another form, and accepted",
  memory_title: "entries that name a known item by its exact title",
  memory_near: "entries accepted as a misspelt title",
  memory_unknown: "entries refused: no such item, not a candidate, or ambiguous",
  memory_mismatch: "entries refused: id and title belong to different items",
  memory_seen: "entries refused: the item is in the history",
  memory_duplicate: "entries that were on the list already",
  rank_reask: "a ranking by the LLM that was not accepted, so it was asked again",
  rank_gave_up: "a ranking by the LLM with entries still refused when re-asks were used up",
  finish_gave_up: "a final list with entries still refused when re-asks were used up; their slots are empty",
  tool_error: "calls that the tool answered with an error",
  cut_off: "replies that were cut off at the length limit",
};

function glossOf(kind) {
  if (GLOSSES[kind]) return GLOSSES[kind];
  if (kind.startsWith("reask_")) return "why the LLM was asked again";
  return kind.startsWith("repaired_") ? "what was repaired in a reply before it could be read" : null;
}

function countPart(kind, number) {
  const gloss = glossOf(kind);
  return el("span", { title: gloss, class: gloss ? "gloss" : null }, `${words(kind)} ${number}`);
}
