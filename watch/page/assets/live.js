// The newest state of everything, as the watch sends it: the whole once, then what changed.

export const parts = new Map();

let heard = null; // when something came last, by performance.now()
let offset = 0; // the watch's clock minus ours, in ms
let connected = false;
const listeners = [];

// onChange calls back with the set of changed keys, once a frame at most.
export const onChange = (f) => listeners.push(f);
export const get = (key) => parts.get(key);
export const under = (prefix) => [...parts].filter(([k]) => k.startsWith(prefix)).map(([, v]) => v);

// now is the time by the watch's clock.
export const now = () => Date.now() + offset;

// age tells how old the data are, in seconds, and whether that is more than it should be.
export function age() {
  const seconds = heard == null ? null : (performance.now() - heard) / 1000;
  const every = get("status")?.every ?? 5;
  return { seconds, connected, stale: heard != null && seconds > Math.max(3 * every, 6) };
}

let changed = new Set();

function take(change) {
  heard = performance.now();
  if (change.whole) {
    for (const k of parts.keys()) if (!(k in change.set)) { parts.delete(k); changed.add(k); }
  }
  for (const [k, v] of Object.entries(change.set)) { parts.set(k, v); changed.add(k); }
  for (const k of change.gone ?? []) { parts.delete(k); changed.add(k); }
  if (change.set.status) offset = Date.parse(change.set.status.at) - Date.now();
  if (changed.size) requestAnimationFrame(tell);
}

function tell() {
  if (!changed.size) return;
  const keys = changed;
  changed = new Set();
  for (const f of listeners) f(keys);
}

const retryAfter = 2000; // ms

// begin takes what came with the HTML: it may be all that ever comes, and gets old like the rest.
export function begin() {
  const { first, age } = document.body.dataset;
  if (!first) return;
  take({ set: JSON.parse(first) });
  tell();
  heard = (performance.getEntriesByType("navigation")[0]?.responseEnd ?? 0) - Number(age);
}

export function connect() {
  const source = new EventSource("/events");
  source.onopen = () => { connected = true; };
  source.onmessage = (e) => { connected = true; take(JSON.parse(e.data)); };
  source.onerror = () => {
    connected = false;
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, retryAfter); // refused: it does not try again by itself
  };
}
