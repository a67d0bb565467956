"use strict";
// The page: its head, the parts by address, keys, and what a run that goes on changes.

const LIVE_MS = 3000;
let current = null;
let shownNumber = 0;

// An id from the address; one that is not well encoded is taken as it stands.
function decoded(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

function route() {
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  const [, first, run, part, ...rest] = path.split("/");
  const parameters = new URLSearchParams(query);
  if (first === "compare") return { view: "compare", run: 0, id: run === "user" ? decoded([part ?? "", ...rest].join("/")) : null, query: parameters };
  return { view: part ?? "overview", run: Number(run ?? 0) || 0, id: decoded(rest.join("/")), query: parameters };
}

function head(runs, at) {
  const tab = (text, href, isHere) => el("a", { href, "aria-current": isHere ? "page" : null }, text);
  const run = runs[at.run];
  const chooser = runs.length > 1 && at.view !== "compare"
    ? el("label", {}, el("span", { class: "unseen" }, "run"), el("select", { onchange: (event) => { location.hash = `#/run/${event.target.value}/${at.view === "user" ? "users" : at.view}`; } }, runs.map((one, number) => el("option", { value: number, selected: number === at.run }, one.name))))
    : el("span", { class: "soft" }, said(at.view === "compare" ? plural(runs.length, "run") : run?.name ?? ""));
  return el("header", {}, el("div", { class: "bar" },
    el("strong", {}, "toolrec"), chooser,
    el("nav", { "aria-label": "parts of the page" },
      tab("Overview", `#/run/${at.run}/overview`, at.view === "overview"),
      tab("Users", `#/run/${at.run}/users`, at.view === "users" || at.view === "user"),
      runs.length > 1 ? tab("Compare", "#/compare", at.view === "compare") : null)));
}

function contents(node) {
  const heads = [...node.querySelectorAll("h2[id]")];
  return el("nav", { class: "presets", "aria-label": "contents" }, heads.map((one) => el("button", { type: "button", onclick: () => one.scrollIntoView() }, one.textContent)));
}

function progressPart(overview, run) {
  const progress = overview.progress;
  const share = progress.planned ? progress.done / progress.planned : null;
  const entries = [["users", `${count(progress.done)}${progress.planned ? ` of ${count(progress.planned)}` : ""}`]];
  if (Object.keys(progress.ended_by).length) entries.push(["ended by", Object.entries(progress.ended_by).map(([kind, number]) => `${words(kind)} ${count(number)}`).join(", ")]);
  if (progress.tokens !== null) entries.push(["tokens", `${count(progress.tokens)}, users in flight and lost attempts included`]);
  if (progress.usd !== null) entries.push(["cost", progress.usd]);
  if (progress.users_per_s !== null) entries.push(["speed", `${progress.users_per_s.toFixed(2)} users a second`]);
  const node = el("section", {}, el("h2", { id: "progress" }, overview.status === "running" ? "Running" : "Interrupted"));
  if (share !== null) node.append(el("progress", { max: "1", value: String(share), "aria-label": "users done" }), ` ${(100 * share).toFixed(1)} %`);
  node.append(pairs(entries), el("p", { class: "soft" }, overview.status === "running" ? (isFile ? "This file shows the run as it was when the file was written." : "The page follows the run. Figures are there when it is complete.") : "`toolrec evaluate … --resume` goes on with it. Figures are there when it is complete."));
  return node;
}

function failuresPart(overview, run) {
  const failures = overview.progress.failures;
  if (!failures.length) return null;
  const line = (failure) => el("li", {}, el("strong", {}, words(failure.kind)), " ",
    failure.user_id !== null ? (failure.is_end ? el("a", { href: `#/run/${run}/user/${encodeURIComponent(failure.user_id)}` }, said(failure.user_id)) : said(failure.user_id)) : null,
    failure.round !== null ? ` round ${failure.round}` : "", ": ", said(failure.reason), " ", el("small", { class: "soft" }, failure.time));
  const first = failures.slice(0, 5);
  return el("section", {}, el("h3", {}, "Last failures"), el("ul", {}, first.map(line)), failures.length > 5 ? fold(`${failures.length - 5} before them`, () => el("ul", {}, failures.slice(5).map(line))) : null);
}

async function overviewView(run) {
  const overview = await load(`run/${run}/overview`);
  const drawn = overviewCharts(overview);
  const usersWith = (query) => `#/run/${run}/users?${new URLSearchParams(query)}`;
  const table = (id) => { const found = (overview.tables ?? []).find((one) => one.id === id); return found ? toolTable(found) : null; };
  const tables = (start) => (overview.tables ?? []).filter((one) => one.id.startsWith(start)).map((one) => toolTable(one, usersWith));
  const notes = (texts, kind = "note") => (texts ?? []).map((text) => el("p", { class: kind }, said(text)));
  const grid = (charts) => el("div", { class: "charts" }, charts);
  const reading = el("section", { class: "reading" }, el("h2", { id: "read" }, "Read the users"), el("p", { class: "soft" }, "Each list opens; a user's trajectory tells in which round its target was lost."));
  // The figures do not wait for the table of users.
  setTimeout(() => usersOf(run).then((users) => reading.append(...presets(users, overview, run)), (error) => reading.append(said(String(error)))), 50);
  const isDone = Boolean(overview.tables);
  const node = el("div", {},
    el("h1", {}, "Surrogate users on ", said(overview.data_set || "a data set")),
    el("p", { class: "soft" }, `${plural(overview.progress.done, "user")}, ${overview.split} split, ${count(overview.progress.finished)} finished; started ${overview.created ?? "?"}, toolrec ${overview.version ?? "?"}${overview.commit ? `, commit ${overview.commit.slice(0, 12)}${overview.commit.endsWith("-dirty") ? " with changes" : ""}` : ""}; LLM `, said(overview.model)));
  const body = el("div", {},
    notes([...overview.warnings, ...(overview.notes ?? [])]),
    isDone ? null : progressPart(overview, run),
    isDone ? null : failuresPart(overview, run),
    isDone ? el("h2", { id: "figures" }, "Figures") : null,
    table("figures"), overview.progress.done ? reading : null, isDone ? el("h2", { id: "intervals" }, "Figures with their intervals") : null, isDone ? legend() : null, grid(drawn.figures),
    isDone ? el("h2", { id: "differences" }, "What is significant") : null,
    (overview.verdicts ?? []).map((text) => el("p", {}, said(text))),
    notes(overview.caveats),
    grid(drawn.differences), table("differences"),
    el("h2", { id: "protocol" }, "Protocol"),
    overview.protocol_words.map((text) => el("p", {}, said(text))),
    fold("every setting", () => el("div", {}, pairs(overview.protocol ?? []), el("p", { class: "soft" }, "Command: ", said(overview.command)))),
    drawn.hits.length ? el("h2", { id: "hits" }, "Where hits come from") : null,
    drawn.hits.length ? el("p", { class: "soft" }, "Users by what became of the target: ", Object.keys(overview.charts.fates ?? {}).flatMap((kind, number) => [number ? ", " : "", el("a", { href: usersWith({ fate: kind }) }, overview.fates[kind])]), ".") : null,
    grid(drawn.hits), table("tools"),
    drawn.behaviour.length ? el("h2", { id: "groups" }, "By rounds and group") : null,
    grid(drawn.behaviour), tables("group-"),
    el("h2", { id: "cost" }, "Cost, speed, failures"),
    grid(drawn.cost),
    isDone ? failuresPart(overview, run) : null,
    overview.facts ? pairs(overview.facts) : null,
    isDone ? el("h2", { id: "more" }, "More figures") : null,
    table("depths"), table("finished"), table("beyond"));
  node.append(contents(body), body);
  return node;
}

function pairedChart(compared, runs) {
  const points = compared.rows.filter((row) => row.metric === "ndcg@10").map((row) => ({ label: runs[row.run].name, value: row.mean, low: row.low, high: row.high, is_surrogate: true }));
  return chart(`NDCG@10 minus that of ${runs[0].name}`, "Lines are 95 % intervals of the paired difference.", (width) => intervals(points, width, { zero: true }));
}

function costChart(compared, runs) {
  const isPriced = compared.runs.every((run) => run.usd !== null);
  const points = compared.runs.map((run, number) => ({ name: String(number + 1), cost: isPriced ? run.usd : run.tokens, value: run.figures["ndcg@10"][0], low: run.figures["ndcg@10"][1], high: run.figures["ndcg@10"][2] }));
  return chart("Cost against quality", "Each point is a run's surrogate with its 95 % interval; the numbers are those of the runs above.", (width) => plotted(width, {
    height: 280, marginLeft: 46, marginRight: 20, marginBottom: 40, inset: 24,
    x: { label: isPriced ? "dollars a user" : "tokens a user", ticks: 4, labelAnchor: "center", labelArrow: "none", zero: true, tickFormat: isPriced ? undefined : "~s" }, y: { grid: true, label: "NDCG@10", zero: true },
    marks: [Plot.ruleX(points, { x: "cost", y1: "low", y2: "high", stroke: INK.surrogate, strokeWidth: 2 }), Plot.dot(points, { x: "cost", y: "value", fill: INK.surrogate, symbol: "diamond", r: 5 }), Plot.text(points, { x: "cost", y: "value", text: "name", textAnchor: "start", dx: 9 })],
  }));
}

async function compareView(runs, query) {
  const compared = await load("compare");
  const all = await Promise.all(runs.map((_, number) => usersOf(number)));
  const node = el("div", {}, el("h1", {}, `${plural(runs.length, "run")} over the same users`),
    el("ol", { class: "runs", start: "1" }, runs.map((run, number) => el("li", {}, el("a", { href: `#/run/${number}/overview` }, said(run.name)), ` ${plural(run.num_users, "user")}, ${run.status}`))),
    el("p", { class: "soft" }, `${plural(compared.num_common, "user")} in all of them; only these are compared. Each run is compared to the first.`));
  if (compared.runs.length) {
    const figureRows = compared.runs.map((run, number) => ({ name: runs[number].name, is_surrogate: false, cells: [...Object.values(run.figures).map(([mean, low, high]) => [figure(mean), `${figure(low)} – ${figure(high)}`]), run.usd === null ? count(Math.round(run.tokens)) : dollars(run.usd)] }));
    const rows = compared.rows.map((row) => ({ name: `${runs[row.run].name}, ${shownMetric(row.metric)}`, is_surrogate: false, cells: [[signed(row.mean), `${signed(row.low)} … ${signed(row.high)}`], pValue(row.p), pValue(row.p_holm), `${count(row.better)} / ${count(row.worse)}`, figure(row.least)] }));
    node.append(
      toolTable({ id: "runs", title: "Figures of the surrogates", caption: "Over the common users, with 95 % score intervals.", columns: [...Object.keys(compared.runs[0].figures).map(shownMetric), compared.runs.every((run) => run.usd !== null) ? "dollars a user" : "tokens a user"], rows: figureRows }),
      toolTable({ id: "paired", title: `Paired differences to ${runs[0].name}`, caption: "Mean difference on the same users, p-value of a paired permutation test, alone and after Holm's correction over the runs of the same figure, users better and worse, and the smallest difference that this many users would show in four of five cases.", columns: ["difference", "p", "Holm p", "better / worse", "could show"], rows }),
      el("div", { class: "charts" }, pairedChart(compared, runs), costChart(compared, runs)));
  } else node.append(el("p", { class: "note" }, "There are no figures to compare: the runs have fewer than two common users, or the data set is not there."));
  node.append(el("h2", {}, "Settings that differ"), compared.settings.length
    ? toolTable({ id: "settings", title: null, caption: null, columns: runs.map((run) => run.name), rows: compared.settings.map((one) => ({ name: one.name, is_surrogate: false, cells: one.values })) })
    : el("p", {}, "None of those that change results."));
  if (all.every((users) => users.columns.position)) node.append(changedPart(runs, all, query));
  return node;
}

// Users whose outcome is not the same in two runs.
function changedPart(runs, all, query) {
  const other = Math.min(Math.max(1, numberIn(query.get("run"), 1)), runs.length - 1);
  const lists = { won: [], lost: [] };
  // Of several targets, how many are in the list.
  const placesOf = (number, place) => all[number].columns.at?.[place] ?? [all[number].columns.position[place]];
  const hits = (number, place) => placesOf(number, place).filter((position) => position > 0).length;
  const told = (number, place) => {
    const positions = placesOf(number, place);
    if (positions.length > 1) return `targets at ${severalAt(positions)}`;
    return positions[0] > 0 ? `position ${positions[0]}` : "miss";
  };
  all[0].columns.id.forEach((id, place) => {
    const there = all[other].byId.get(id);
    if (there === undefined) return;
    const before = hits(0, place);
    const after = hits(other, there);
    if (after > before) lists.won.push([id, told(0, place), told(other, there)]);
    if (after < before) lists.lost.push([id, told(0, place), told(other, there)]);
  });
  const line = ([id, before, after]) => el("li", {}, el("a", { href: `#/compare/user/${encodeURIComponent(id)}` }, said(id)), ` ${before} → ${after}`);
  const list = (title, entries) => el("div", {}, el("h3", {}, `${title}: ${plural(entries.length, "user")}`), el("ul", {}, entries.slice(0, 100).map(line)), entries.length > 100 ? fold(`${entries.length - 100} more`, () => el("ul", {}, entries.slice(100).map(line))) : null);
  const choice = runs.length > 2 ? el("label", {}, "Run ", el("select", { onchange: (event) => { location.hash = `#/compare?run=${event.target.value}`; } }, runs.slice(1).map((run, number) => el("option", { value: number + 1, selected: number + 1 === other }, run.name)))) : null;
  return el("section", {}, el("h2", {}, "Users won and lost"), choice, el("p", { class: "soft" }, "From ", said(runs[0].name), " to ", said(runs[other].name), ". Each opens with the trajectories side by side."),
    el("div", { class: "columns" }, list("won", lists.won), list("lost", lists.lost)));
}

async function compareUserView(runs, id) {
  const columns = await Promise.all(runs.map(async (run, number) => {
    const users = await usersOf(number);
    const place = users.byId.get(id);
    return el("div", {}, el("h3", {}, el("a", { href: `#/run/${number}/user/${encodeURIComponent(id)}` }, said(run.name))), place === undefined ? el("p", {}, "not in this run") : await tracePart(number, place));
  }));
  const node = el("div", { class: "wide" }, el("nav", { class: "presets" }, el("a", { class: "preset", href: "#/compare" }, "‹ compare")), el("h2", {}, "User ", said(id)), el("div", { class: "columns side" }, columns));
  node.keys = { Escape: "#/compare" };
  return node;
}

async function viewOf(at, runs) {
  if (at.view === "compare" && runs.length > 1) return at.id === null ? compareView(runs, at.query) : compareUserView(runs, at.id);
  if (!runs[at.run]) return el("p", {}, "The page has no such run.");
  if (at.view === "users") return usersView(at.run, at.query);
  if (at.view === "user") return traceView(at.run, at.id, at.query);
  return overviewView(at.run);
}

async function show() {
  const mine = ++shownNumber;
  const page = document.getElementById("page");
  const at = route();
  try {
    const { runs } = await load("runs");
    const view = await viewOf(at, runs);
    if (mine !== shownNumber) return;
    current = view;
    page.replaceChildren(head(runs, at), el("main", { tabindex: "-1" }, view));
    window.scrollTo(0, 0);
    performance.mark(`shown ${at.view}`);
  } catch (error) {
    if (mine !== shownNumber) return;
    console.error(error);
    page.replaceChildren(el("main", {}, el("h1", {}, "This cannot be shown"), el("p", { class: "wrong" }, said(String(error))), el("p", {}, el("a", { href: "#/" }, "to the overview"))));
  }
  page.dataset.shown = at.view;
}

function help() {
  const old = document.querySelector("dialog");
  if (old) return old.remove();
  const keys = [["o", "overview"], ["u", "users"], ["c", "compare"], ["/", "search"], ["← →, k j", "user before, next user"], ["Esc", "back to the list"], ["?", "these keys"]];
  const dialog = el("dialog", { "aria-label": "keys" }, el("h2", {}, "Keys"), pairs(keys), el("button", { type: "button", autofocus: true, onclick: () => dialog.remove() }, "close"));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog")) return;
  const at = route();
  const places = { o: `#/run/${at.run}/overview`, u: `#/run/${at.run}/users`, c: "#/compare", ...(current?.keys ?? {}) };
  if (event.key === "?") help();
  else if (event.key === "/") {
    event.preventDefault();
    const box = document.getElementById("search");
    if (box) box.focus();
    else { location.hash = `#/run/${at.run}/users`; setTimeout(() => document.getElementById("search")?.focus(), 300); }
  } else if (places[event.key]) { event.preventDefault(); location.hash = places[event.key]; }
});

async function follow() {
  try {
    const before = (await load("runs")).runs;
    if (before.every((run) => run.status !== "running")) return;
    forget("runs");
    const { runs } = await load("runs");
    runs.forEach((run, number) => {
      if (before[number].status !== "running") return;
      forget(`run/${number}/overview`);
      forget("compare");
      if (run.num_users !== before[number].num_users || run.status !== before[number].status) forget(`run/${number}/users`);
    });
    const at = route();
    const hasGrown = runs[at.run]?.num_users !== before[at.run]?.num_users || runs[at.run]?.status !== before[at.run]?.status;
    if (at.view === "users" && current?.refresh) { if (hasGrown) await current.refresh(); }
    else if (at.view === "overview" && before[at.run]?.status === "running") {
      const place = window.scrollY;
      await show();
      window.scrollTo(0, place);
    }
  } catch (error) {
    console.warn(error); // the server ended; the page keeps what it has
  }
  setTimeout(follow, LIVE_MS);
}

window.addEventListener("hashchange", show);
show().then(() => { if (!isFile) setTimeout(follow, LIVE_MS); });
