"use strict";
// The table of users: filters, order and search are in the address, so that a link shows the same list.

const PAGE_ROWS = 50;

const AGAINST = {
  lost: "surrogate lost",
  won: "surrogate won",
  both: "both hit",
  neither: "neither hit",
};

function outcomeOf(columns, place) {
  if (!columns.finished[place]) return "failed";
  if (columns.position === null) return "finished";
  return columns.position[place] > 0 ? "hit" : "miss";
}

function againstOf(users, name, place, depth) {
  const other = users.others[name][place];
  const otherHit = other > 0 && other <= depth;
  const hit = users.columns.position[place] > 0;
  return hit ? (otherHit ? "both" : "won") : otherHit ? "lost" : "neither";
}

function numberIn(text, fallback) {
  if (text === null || text === undefined || text.trim() === "") return fallback;
  const number = Number(text);
  return Number.isFinite(number) ? number : fallback;
}

const RANGES = [
  ["position", "target at position", (users) => users.columns.position],
  ["rounds", "rounds", (users) => users.columns.rounds],
  ["reasks", "re-asks", (users) => users.columns.reasks],
  ["cost", "cost", (users, overview) => (overview.has_price ? users.columns.usd : users.columns.tokens)],
];

// Who is in the list, as places in the columns, in its order.
function chosen(users, overview, query, found) {
  const columns = users.columns;
  const tests = [];
  const outcome = query.get("outcome");
  if (outcome) tests.push((place) => outcomeOf(columns, place) === outcome);
  for (const name of Object.keys(users.others)) {
    const wanted = query.get(`vs.${name}`);
    if (wanted) tests.push((place) => againstOf(users, name, place, overview.list_length) === wanted);
  }
  const fate = query.get("fate");
  if (fate && columns.fate) tests.push((place) => (columns.fates ? columns.fates[place].includes(fate) : columns.fate[place] === fate));
  const cause = query.get("cause"); // of a user with several targets, that of the one that came nearest to a hit
  if (cause && columns.fate) tests.push((place) => columns.fate[place] === cause);
  const failure = query.get("failure");
  if (failure) tests.push((place) => columns.failure[place] === failure || columns.ended[place] === failure);
  const attribute = query.get("attribute");
  if (attribute) {
    const number = users.attributes.indexOf(attribute);
    tests.push((place) => columns.attributes[place].includes(number));
  }
  const [grouping, group] = (query.get("group") ?? "").split(":");
  const bounds = overview.groupings[grouping]?.groups[Number(group)];
  if (bounds && users.groups[grouping]) {
    tests.push((place) => users.groups[grouping][place] >= bounds[0] - 1e-3 && users.groups[grouping][place] <= bounds[1] + 1e-3);
  }
  for (const [name, , of] of RANGES) {
    const values = of(users, overview);
    const low = numberIn(query.get(`${name}.min`), null);
    const high = numberIn(query.get(`${name}.max`), null);
    if (values && low !== null) tests.push((place) => values[place] >= low);
    if (values && high !== null) tests.push((place) => values[place] <= high && (name !== "position" || values[place] > 0));
  }
  if (found) tests.push((place) => found.has(columns.index[place]));
  const places = [];
  for (let place = 0; place < users.num; place++) if (tests.every((test) => test(place))) places.push(place);
  return sorted(users, places, query.get("sort") ?? "");
}

function sortValues(users, name) {
  const columns = users.columns;
  if (name.startsWith("other.")) return users.others[name.slice(6)];
  if (name === "outcome") return columns.index.map((_, place) => outcomeOf(columns, place));
  if (name === "fate") return columns.where;
  if (name === "history") return users.groups.history_length;
  return columns[name];
}

function sorted(users, places, order) {
  const isDown = order.startsWith("-");
  const name = order.replace(/^-/, "");
  const values = name ? sortValues(users, name) : null;
  if (!values) return places;
  const isRank = name === "position" || name.startsWith("other.");
  // A miss has position 0 and stands behind every hit.
  const key = (place) => (isRank && values[place] === 0 ? Infinity : values[place] ?? -Infinity);
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
  return places.sort((a, b) => (isDown ? compare(key(b), key(a)) : compare(key(a), key(b))) || a - b);
}

function columnsOf(users, overview) {
  const columns = users.columns;
  const position = (value) => (value > 0 ? String(value) : NOTHING);
  const shown = [
    { name: "id", head: "User", cell: (place) => said(columns.id[place]) },
    { name: "outcome", head: "Outcome", cell: (place) => outcomeCell(outcomeOf(columns, place), columns, place) },
  ];
  if (columns.position) shown.push({ name: "position", head: columns.at ? "Targets at" : "Target at", number: true, cell: (place) => (columns.at ? severalAt(columns.at[place]) : position(columns.position[place])) });
  for (const name of Object.keys(users.others)) {
    shown.push({ name: `other.${name}`, head: words(name)[0].toUpperCase() + words(name).slice(1), number: true, cell: (place) => position(users.others[name][place]) });
  }
  if (columns.fate) shown.push({ name: "fate", head: "Where it was lost", cell: (place) => columns.where[place] || NOTHING });
  if (columns.target) shown.push({ name: "target", head: columns.at ? "First target" : "Target", cell: (place) => said(columns.target[place]) });
  shown.push(
    { name: "rounds", head: "Rounds", number: true, cell: (place) => String(columns.rounds[place]) },
    { name: "reasks", head: "Re\u2011asks", title: GLOSSES.reask, number: true, cell: (place) => String(columns.reasks[place]) },
    overview.has_price
      ? { name: "usd", head: "Dollars", number: true, cell: (place) => dollars(columns.usd[place]) }
      : { name: "tokens", head: "Tokens", number: true, cell: (place) => count(columns.tokens[place]) },
  );
  if (users.groups.history_length) shown.push({ name: "history", head: "History", number: true, cell: (place) => count(users.groups.history_length[place]) });
  return shown;
}

// Of several targets: where those that were hit stand, and how many there are.
function severalAt(positions) {
  const found = positions.filter((position) => position > 0).sort((a, b) => a - b);
  return found.length ? `${found.join(", ")} (${found.length} of ${positions.length})` : `${NOTHING} (0 of ${positions.length})`;
}

function outcomeCell(outcome, columns, place) {
  const sign = { hit: "✓", miss: "✗", failed: "!", finished: "·" }[outcome];
  const why = outcome === "failed" ? ` (${words(columns.failure[place] ?? columns.ended[place])})` : "";
  return el("span", { class: `outcome ${outcome}` }, `${sign} ${outcome}${why}`);
}

function selectOf(label, name, query, options, change, title = null) {
  if (options.length === 0) return null;
  const value = query.get(name) ?? "";
  const choice = ([key, text]) => el("option", { value: key, selected: key === value }, text);
  const select = el("select", { name, onchange: (event) => change(name, event.target.value) }, choice(["", "any"]), options.map(choice));
  return el("label", { title }, el("span", {}, label), select);
}

function filters(users, overview, query, change) {
  const columns = users.columns;
  const failures = [...new Set(columns.index.flatMap((_, place) => (columns.finished[place] ? [] : [columns.failure[place] ?? columns.ended[place]])))].sort();
  const groups = Object.entries(overview.groupings).flatMap(([name, grouping]) => grouping.groups.map((group, number) => [`${name}:${number}`, `${words(name)} ${group[2]}`]));
  const fates = Object.entries(overview.fates);
  const outcomes = columns.position ? ["hit", "miss", "failed"] : ["finished", "failed"];
  const range = ([name, label, of]) => {
    if (!of(users, overview)) return null;
    const input = (end) => el("input", { type: "number", step: "any", min: "0", value: query.get(`${name}.${end}`) ?? "", placeholder: end === "min" ? "from" : "to", "aria-label": `${label}, ${end === "min" ? "from" : "to"}`, oninput: (event) => change(`${name}.${end}`, event.target.value) });
    const unit = name === "cost" ? (overview.has_price ? " (dollars)" : " (tokens)") : "";
    return el("div", { class: "range", role: "group", "aria-label": label, title: name === "reasks" ? GLOSSES.reask : null }, el("span", {}, label + unit), input("min"), input("max"));
  };
  return el("div", { class: columns.fates ? "filters many" : "filters" },
    selectOf("outcome", "outcome", query, outcomes.map((name) => [name, name]), change),
    Object.keys(users.others).map((name) => selectOf(`against the ${words(name)}`, `vs.${name}`, query, Object.entries(AGAINST), change)),
    columns.fate ? selectOf(`what became of ${columns.fates ? "a" : "the"} target`, "fate", query, fates, change) : null,
    columns.fates ? selectOf("where it was lost", "cause", query, fates.filter(([kind]) => kind !== "hit"), change, "of the target that came nearest to a hit") : null,
    selectOf("attribute called", "attribute", query, [...users.attributes].sort().map((name) => [name, name]), change),
    selectOf("group", "group", query, groups, change),
    selectOf("failure", "failure", query, failures.map((kind) => [kind, words(kind)]), change),
    RANGES.map(range));
}

// Lists of users that are worth reading, with the number of users in each. Where nobody is in it, words instead of a link.
function presets(users, overview, run, query = null) {
  const columns = users.columns;
  const numOf = (asked) => chosen(users, overview, new URLSearchParams(asked), null).length;
  const link = ([text, asked, none = "none"]) => {
    const wanted = new URLSearchParams(asked);
    const num = numOf(asked);
    if (num === 0) return el("span", { class: "nobody" }, `${text}: ${none}`);
    return el("a", { class: "preset", href: `#/run/${run}/users?${wanted}`, "aria-current": query?.toString() === wanted.toString() ? "true" : null }, `${text} · ${count(num)}`);
  };
  const given = [["all", {}], ["misses", { outcome: "miss" }]];
  if (users.others.backbone) {
    const hits = numOf({ "vs.backbone": "lost" }) + numOf({ "vs.backbone": "both" });
    given.push(["lost, though the backbone hit", { "vs.backbone": "lost" }, hits ? `none; the surrogate kept ${hits === 1 ? "the backbone's one hit" : `all ${count(hits)} of the backbone's hits`}` : "none; the backbone has no hit"],
      ["won against the backbone", { "vs.backbone": "won" }]);
  }
  given.push(["failed", { outcome: "failed" }, "none; every user finished"], ["with re-asks", { "reasks.min": "1", sort: "-reasks" }, "none; no reply was refused"]);
  const lines = [el("p", { class: "presets" }, given.map(link))];
  if (columns.fate && numOf({ outcome: "miss" })) {
    // Every miss is in exactly one of these.
    const causes = overview.causes.map((kind) => [overview.fates[kind], { [columns.fates ? "cause" : "fate"]: kind }]);
    lines.push(el("p", { class: "presets causes" }, el("span", { class: "soft" }, columns.fates ? "Misses by cause (of the nearest target):" : "Misses by cause:"), causes.map(link)));
  }
  return lines;
}

function userLink(run, users, place, query) {
  const rest = query && query.toString() ? `?${query}` : "";
  return `#/run/${run}/user/${encodeURIComponent(users.columns.id[place])}${rest}`;
}

async function usersView(run, query) {
  const overview = await load(`run/${run}/overview`);
  const users = await usersOf(run);
  const results = el("div", { id: "results", "aria-live": "polite" });
  const head = el("div", {});
  let searching = 0;
  let found = null;

  const replace = () => history.replaceState(null, "", `#/run/${run}/users${query.toString() ? `?${query}` : ""}`);
  const set = (name, value) => {
    if (value === "") query.delete(name);
    else query.set(name, value);
    if (name !== "page") query.delete("page");
    replace();
  };
  const show = async (note = "") => {
    const users = await usersOf(run); // a run that goes on has more of them by now
    const overview = await load(`run/${run}/overview`);
    head.replaceChildren(...presets(users, overview, run, query));
    results.replaceChildren(...rowsOf(run, users, overview, query, found, note, (name, value) => { set(name, value); show(note); }));
  };
  const change = (name, value) => { set(name, value); show(); };
  const look = async () => {
    const mine = ++searching;
    const text = query.get("q") ?? "";
    found = null;
    if (text) {
      let last = 0;
      const progress = (ids, done, all) => {
        if (performance.now() - last < 200 && done < all) return;
        last = performance.now();
        found = ids;
        show(done < all ? `searched ${count(done)} of ${count(all)} users …` : "");
      };
      const ids = await search(run, text, progress, () => mine !== searching);
      if (ids === null) return;
      found = ids;
    }
    await show();
  };
  let waiting;
  const type = (event) => {
    set("q", event.target.value.trim());
    clearTimeout(waiting);
    waiting = setTimeout(look, 250);
  };
  const box = el("input", { type: "search", id: "search", value: query.get("q") ?? "", placeholder: "words in thoughts, titles or user ids", "aria-label": "search in thoughts, titles and user ids", oninput: type });
  const isWide = window.innerWidth >= 640;
  const node = el("div", {},
    el("h2", {}, "Users"),
    head,
    el("label", { class: "search" }, el("span", {}, "Search"), box),
    el("details", { class: "filterbox", open: isWide }, el("summary", {}, "Filters"), filters(users, overview, query, change)),
    results);
  node.refresh = async () => {
    const text = query.get("q");
    const mine = searching;
    if (text) {
      const ids = await search(run, text, () => {}, () => mine !== searching);
      if (ids === null) return; // another search has begun
      found = ids;
    }
    await show();
  };
  await (query.get("q") ? (look(), show("searching …")) : show());
  return node;
}

function rowsOf(run, users, overview, query, found, note, change) {
  const places = chosen(users, overview, query, found);
  const pages = Math.max(1, Math.ceil(places.length / PAGE_ROWS));
  const page = Math.min(Math.max(1, numberIn(query.get("page"), 1)), pages);
  const shown = columnsOf(users, overview);
  const order = query.get("sort") ?? "";
  const head = shown.map((column) => {
    const isUp = order === column.name;
    const isDown = order === `-${column.name}`;
    const next = isUp ? `-${column.name}` : isDown ? "" : column.name;
    return el("th", { scope: "col", class: `of-${column.name.startsWith("other.") ? "other" : column.name}${column.number ? " number" : ""}`, title: column.title, "aria-sort": isUp ? "ascending" : isDown ? "descending" : "none" },
      el("button", { type: "button", onclick: () => change("sort", next) }, said(column.head), el("span", { class: "order", "aria-hidden": "true" }, isUp ? "▲" : isDown ? "▼" : "↕")));
  });
  const rows = places.slice((page - 1) * PAGE_ROWS, page * PAGE_ROWS).map((place) => {
    const link = userLink(run, users, place, query);
    const open = (event) => { if (!event.target.closest("a") && !String(getSelection())) location.hash = link; };
    return el("tr", { onclick: open }, shown.map((column, number) =>
      el("td", { class: column.number ? "number" : column.name === "target" ? "long" : null, "data-label": column.head }, number === 0 ? el("a", { href: link }, column.cell(place)) : column.cell(place))));
  });
  const step = (text, to) => el("button", { type: "button", disabled: to < 1 || to > pages, onclick: () => change("page", String(to)) }, text);
  const sortSelect = el("label", { class: "narrow" }, el("span", {}, "Order"), el("select", { onchange: (event) => change("sort", event.target.value) },
    [["", "of the run"], ...shown.flatMap((column) => [[column.name, `${column.head} ▲`], [`-${column.name}`, `${column.head} ▼`]])].map(([key, text]) => el("option", { value: key, selected: key === order }, text))));
  return [
    el("p", { class: "soft" }, el("span", { role: "status" }, `${count(places.length)} of ${plural(users.num, "user")}`, note ? `; ${note}` : ""),
      users.columns.position ? `. A hit is a place among the first ${overview.list_length}; a position further back is a miss.` : null),
    sortSelect,
    rows.length ? el("div", { class: "scroll users" }, el("table", { class: "cards" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows))) : el("p", {}, "No user is like this. Loosen a filter, or take one of the lists above."),
    pages > 1 ? el("p", { class: "pages" }, step("‹ before", page - 1), ` page ${page} of ${pages} `, step("next ›", page + 1)) : null,
  ].filter(Boolean);
}
