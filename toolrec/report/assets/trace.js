"use strict";
// One user's trajectory: what was asked, what came back, where the target went.

const FIRST_ITEMS = 10;
const FIRST_CHARACTERS = 1200;

function itemName(items, item) {
  if (item === 0) return el("span", { class: "soft" }, "(empty)");
  const known = items[item];
  if (!known) return said(`item number ${item}`);
  return el("span", {}, said(known[1] || known[0]), " ", el("small", { class: "soft" }, said(`<${known[0]}>`)));
}

function longText(text) {
  if (text.length <= FIRST_CHARACTERS) return said(text, { class: "text" });
  return el("span", {}, said(`${text.slice(0, FIRST_CHARACTERS)}…`, { class: "text" }), fold(`all ${count(text.length)} characters`, () => said(text, { class: "text" })));
}

function itemLine(items, item, targets, position, marks) {
  const place = targets.findIndex((target) => target.item === item);
  const isTarget = place >= 0;
  return el("li", { value: position, class: isTarget ? "target" : null },
    isTarget ? el("strong", {}, targets.length > 1 ? `★ target ${place + 1}: ` : "★ target: ") : null, itemName(items, item),
    marks?.length ? el("small", { class: "marks" }, said(marks.join(", "))) : null);
}

function actionText(call) {
  if (call === null) return "no action";
  if (call.name === "finish") return `Finish[${plural(call.num, "item")}]`;
  return `${call.name[0].toUpperCase()}${call.name.slice(1)}[${call.attribute ?? "none"}, ${call.k ?? "?"}]`;
}

// The words with which the table of users says where a target was lost; the round in them leads to it.
function wherePart(target) {
  const name = `round ${target.round}`;
  const [before, after] = target.round ? target.where.split(name) : [target.where];
  const words = before[0].toUpperCase() + before.slice(1);
  if (after === undefined) return [words];
  return [words, el("button", { type: "button", class: "link", onclick: (event) => event.target.closest(".trace").querySelector(`.round-${target.round}`)?.scrollIntoView() }, name), after];
}

function fateText(overview, users, place, target) {
  const columns = users.columns;
  if (!target) return el("p", {}, outcomeCell(outcomeOf(columns, place), columns, place));
  const isHit = target.fate === "hit";
  const best = target.fate === "too_deep" ? "" : `; its best position was ${target.best}`;
  const brought = target.by ? [said(target.by), ` brought it in round ${target.brought_round}${best}.`] : [];
  const end = isHit ? [`Hit at position ${target.position}. `, brought.length ? brought : "The surrogate named it on its own."] : [wherePart(target), `: ${target.why}. `, brought];
  const others = Object.entries(target.others).map(([name, position]) =>
    ` The ${words(name)} alone ${position === 0 ? `misses it${isHit ? "" : " too"}` : position <= overview.list_length ? `has it at position ${position}` : `has it only at position ${position}`}.`);
  return el("p", { class: `fate ${target.fate}` }, el("strong", {}, { hit: "✓ ", failed: "! " }[target.fate] ?? "✗ "), end, others);
}

function targetsPart(overview, users, place, trace, items) {
  if (trace.targets.length < 2) return [fateText(overview, users, place, trace.targets[0]), trace.targets.length ? el("p", {}, el("strong", {}, "Target: "), itemName(items, trace.targets[0].item)) : null];
  const num = trace.targets.filter((target) => target.position > 0).length;
  return [el("h3", {}, `${num} of ${trace.targets.length} targets in the final list`),
    trace.targets.map((target, number) => [el("p", {}, el("strong", {}, `Target ${number + 1}: `), itemName(items, target.item)), fateText(overview, users, place, target)])];
}

function historyPart(trace, items) {
  if (!trace.history.length) return null;
  const line = (place) => el("li", { value: place + 1 }, itemName(items, trace.history[place]), trace.ratings?.[place] != null ? el("span", { class: "rating" }, ` rated ${trace.ratings[place]}`) : null);
  const places = trace.history.map((_, place) => place);
  const first = places.slice(-FIRST_ITEMS);
  const before = places.slice(0, -FIRST_ITEMS);
  return el("section", {},
    el("h3", {}, `History, ${plural(trace.history.length, "item")}, oldest first`),
    before.length ? fold(`${plural(before.length, "earlier item")}`, () => el("ol", { class: "items" }, before.map(line))) : null,
    el("ol", { class: "items" }, first.map(line)));
}

function roundPart(round, items, trace, memory) {
  const known = new Set(memory.keys());
  const numbered = round.items.map((item, number) => [item, number + 1]);
  const fresh = numbered.filter(([item]) => !known.has(item));
  const old = numbered.filter(([item]) => known.has(item));
  const badges = trace.targets.flatMap((target, number) => {
    const name = trace.targets.length > 1 ? ` target ${number + 1}` : "";
    const isLost = target.badge && target.round === round.n;
    return [target.brought_round === round.n ? el("span", { class: "badge" }, `★ brought${name || " the target"}`) : null, isLost ? el("span", { class: "badge lost" }, `✗ ${target.badge.replace("{}", name.trim() || "it")}`) : null];
  });
  const isTarget = (item) => trace.targets.some((target) => target.item === item);
  const line = ([item, position]) => itemLine(items, item, trace.targets, position, (memory.get(item) ?? []).map(([mark, number]) => `${mark} round ${number}`));
  const list = (entries) => el("ol", { class: "items" }, entries.map(line));
  // The target is never folded away.
  const first = fresh.filter(([item], number) => number < FIRST_ITEMS || isTarget(item));
  const rest = fresh.filter((entry) => !first.includes(entry));
  const oldTarget = old.filter(([item]) => isTarget(item));
  const spent = [`${plural(round.calls, "call")}`, `${count(round.prompt)} prompt tokens${round.cached ? ` (${count(round.cached)} cached)` : ""}`, `${count(round.reply)} reply tokens`, round.usd === null ? null : dollars(round.usd), `${round.s} s`].filter(Boolean).join(", ");
  const node = el("section", { class: `round round-${round.n}` },
    el("h4", {}, `Round ${round.n}`, badges),
    el("p", {}, round.thought ? longText(round.thought) : el("span", { class: "soft" }, "no thought")),
    round.reasons.map((reason) => el("p", { class: "wrong" }, longText(reason))),
    el("p", { class: "action" }, "→ ", said(actionText(round.call))),
    round.error !== null ? el("p", { class: "wrong" }, "Error: ", longText(round.error)) : null,
    round.text && round.text !== round.error ? fold("observation", () => el("p", {}, said(round.text, { class: "text" }))) : null,
    round.items.length ? el("p", { class: "soft" }, `${plural(round.items.length, "item")}, ${fresh.length} of them new`) : null,
    first.length ? list(first) : null,
    rest.length ? fold(`${rest.length} more new`, () => list(rest)) : null,
    oldTarget.length ? list(oldTarget) : null,
    old.length ? fold(`${old.length} that were in memory`, () => list(old)) : null,
    el("p", { class: "soft" }, spent, Object.entries(round.counts).map(([kind, number], place) => [place ? ", " : "; ", countPart(kind, number)])));
  for (const [item] of numbered) memory.set(item, [...(memory.get(item) ?? []), [round.mark, round.n]]);
  return node;
}

function finalPart(trace, items, memory, overview) {
  const marks = (item) => [...new Set((memory.get(item) ?? []).map(([mark]) => mark))];
  const column = (title, list, withMarks) => {
    if (!list.length) return el("div", {}, el("h4", {}, title), el("p", { class: "soft" }, "none"));
    const of = list.map((item) => (withMarks ? marks(item) : []));
    // Tools that returned every item are said once.
    const isSame = withMarks && list.length > 1 && of[0].length > 0 && of.every((names) => names.join("\n") === of[0].join("\n"));
    return el("div", {}, el("h4", {}, title), isSame ? el("p", { class: "soft" }, "each brought by ", said(of[0].join(", "))) : null,
      el("ol", { class: "items" }, list.map((item, number) => itemLine(items, item, trace.targets, number + 1, isSame ? [] : of[number]))));
  };
  const isCompleted = JSON.stringify(trace.final) !== JSON.stringify(trace.completed);
  return el("section", {},
    el("h3", {}, `Final list, of ${plural(memory.size, "candidate")}`),
    el("div", { class: "columns" },
      column("Surrogate", trace.final, true),
      isCompleted ? column("Completed from memory", trace.completed, true) : null,
      Object.entries(trace.beside).map(([name, list]) => column(words(name)[0].toUpperCase() + words(name).slice(1), list.slice(0, overview.list_length), false))),
    Object.keys(trace.beside).length ? null : el("p", { class: "soft" }, "The recommenders' own lists are there when the run is complete. Runs of earlier versions have none."));
}

async function tracePart(run, place) {
  const [overview, users, { trace, items }] = await Promise.all([load(`run/${run}/overview`), usersOf(run), traceOf(run, place)]);
  const memory = new Map();
  const columns = users.columns;
  const rounds = trace.rounds.map((round) => roundPart(round, items, trace, memory));
  return el("article", { class: "trace" },
    targetsPart(overview, users, place, trace, items),
    trace.error ? el("p", { class: "wrong" }, longText(trace.error)) : null,
    historyPart(trace, items),
    el("h3", {}, plural(trace.rounds.length, "round")),
    rounds,
    finalPart(trace, items, memory, overview),
    el("p", { class: "soft" }, [`Ended by ${words(columns.ended[place])}`, `attempt ${trace.attempt}`, `${count(columns.tokens[place])} tokens`, columns.usd[place] === null ? null : dollars(columns.usd[place]), `${columns.seconds[place]} s`].filter(Boolean).join(", ")),
    isFile ? null : fold("all messages, as they are in the run folder", () => messagesPart(run, columns.index[place])));
}

function messagesPart(run, index) {
  const node = el("div", {}, "loading …");
  load(`run/${run}/messages/${index}`).then((parts) => node.replaceChildren(...parts.map((part) =>
    el("section", {}, el("h4", {}, part.round === 0 ? "Opening" : `Round ${part.round}`), part.messages.map((message) =>
      el("div", {}, el("p", { class: "soft" }, said(message.role ?? "")), el("pre", {}, said(typeof message.content === "string" && message.content ? message.content : JSON.stringify(message, null, 1)))))))),
    (error) => node.replaceChildren(said(String(error))));
  return node;
}

async function traceView(run, id, query) {
  const [overview, users] = await Promise.all([load(`run/${run}/overview`), usersOf(run)]);
  const place = users.byId.get(id);
  if (place === undefined) return el("div", {}, el("h2", {}, "No such user"), el("p", {}, "No user with the id ", said(id), " has ended in this run."));
  let found = null;
  if (query.get("q")) found = await search(run, query.get("q"), () => {}, () => false);
  let list = chosen(users, overview, query, found);
  if (!list.includes(place)) list = chosen(users, overview, new URLSearchParams(), null);
  const at = list.indexOf(place);
  const to = (step) => (list[at + step] === undefined ? null : userLink(run, users, list[at + step], query));
  const link = (text, href, rel) => (href ? el("a", { class: "preset", href, rel }, text) : el("span", { class: "preset soft" }, text));
  const back = `#/run/${run}/users${query.toString() ? `?${query}` : ""}`;
  const copy = el("button", { type: "button", onclick: async () => {
    const address = `${location.href.split("#")[0]}#/run/${run}/user/${encodeURIComponent(id)}`;
    try { await navigator.clipboard.writeText(address); copy.textContent = "link copied"; }
    catch { prompt("The link to this user:", address); }
  } }, "copy link");
  const node = el("div", {},
    el("nav", { class: "presets steps", "aria-label": "users" }, link("‹ list", back), link("← before", to(-1), "prev"), link("next →", to(1), "next"), copy,
      el("span", { class: "soft" }, ` ${count(at + 1)} of ${count(list.length)} in the list; keys ← and →`)),
    el("h2", {}, "User ", said(id)),
    await tracePart(run, place));
  node.keys = { ArrowLeft: to(-1), k: to(-1), ArrowRight: to(1), j: to(1), Escape: back };
  if (at + 1 < list.length) setTimeout(() => traceOf(run, list[at + 1]).catch(() => {}), 50);
  return node;
}
