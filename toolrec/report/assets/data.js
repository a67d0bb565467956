"use strict";
// Where data comes from: parts inside of this file, or the server that sent the page. Both have the same names.

const PART = "part:";
const KEPT_BLOCKS = 6;
const isFile = document.getElementById(`${PART}runs`) !== null;
const kept = new Map();
const whole = document.readyState === "loading" ? new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true })) : Promise.resolve();

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place++) bytes[place] = text.charCodeAt(place);
  return bytes;
}

async function unpacked(name) {
  let element = document.getElementById(PART + name);
  if (element === null) {
    await whole; // blocks of traces stand behind the scripts
    element = document.getElementById(PART + name);
  }
  if (element === null) throw new Error(`this file has no part ${name}`);
  const stream = new Blob([bytesOf(element.textContent)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

async function fetched(name) {
  const answer = await fetch(`data/${name}`);
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error ?? answer.statusText);
  return content;
}

function load(name) {
  if (!kept.has(name)) {
    const loading = isFile ? unpacked(name) : fetched(name);
    loading.catch(() => kept.delete(name));
    kept.set(name, loading);
    const blocks = [...kept.keys()].filter((key) => key.includes("/block/"));
    for (const old of blocks.slice(0, Math.max(blocks.length - KEPT_BLOCKS, 0))) kept.delete(old);
  }
  return kept.get(name);
}

function forget(start) {
  for (const name of [...kept.keys()]) if (name.startsWith(start)) kept.delete(name);
}

async function usersOf(run) {
  const users = await load(`run/${run}/users`);
  if (!users.place) {
    users.place = new Map(users.columns.index.map((index, place) => [index, place]));
    users.byId = new Map(users.columns.id.map((id, place) => [id, place]));
  }
  return users;
}

async function traceOf(run, place) {
  const users = await usersOf(run);
  const block = await load(`run/${run}/block/${users.columns.block[place]}`);
  return { trace: block.users[users.columns.index[place]], items: block.items };
}

// Search: of each block the thoughts, and the titles of history, target and final list; made once, then kept.
const indexes = new Map();

async function indexOf(run, key) {
  const name = `${run}/${key}`;
  if (!indexes.has(name)) {
    const block = isFile ? await unpacked(`run/${run}/block/${key}`) : await fetched(`run/${run}/block/${key}`);
    const titles = Object.entries(block.items).map(([item, [id, title]]) => [Number(item), `${title} ${id}`.toLowerCase()]);
    const users = Object.entries(block.users).map(([index, trace]) => ({
      index: Number(index),
      thoughts: trace.rounds.map((round) => round.thought).join("\n").toLowerCase(),
      items: Int32Array.from([...trace.history, ...trace.final, ...trace.targets.map((target) => target.item)]),
    }));
    indexes.set(name, { titles, users });
  }
  return indexes.get(name);
}

async function search(run, text, progress, isStale) {
  const users = await usersOf(run);
  for (const name of [...indexes.keys()]) if (name.startsWith(`${run}/`) && !users.blocks.includes(name.slice(`${run}/`.length))) indexes.delete(name); // blocks that have grown since
  const wanted = text.toLowerCase();
  const found = new Set(users.columns.id.flatMap((id, place) => (id.toLowerCase().includes(wanted) ? [users.columns.index[place]] : [])));
  let done = 0;
  for (const key of users.blocks) {
    const index = await indexOf(run, key);
    if (isStale()) return null;
    const items = new Set(index.titles.filter(([, title]) => title.includes(wanted)).map(([item]) => item));
    for (const user of index.users) {
      if (user.thoughts.includes(wanted) || (items.size > 0 && user.items.some((item) => items.has(item)))) found.add(user.index);
    }
    done += index.users.length;
    progress(found, done, users.num);
  }
  return found;
}
