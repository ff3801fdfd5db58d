// Small helpers: the page is built of elements and text, never of HTML in strings.

export const $ = (id) => document.getElementById(id);

// h makes an element. Properties that begin with "on" listen; null ones are left out.
export function h(tag, props, ...children) {
  const el = document.createElement(tag);
  for (const [k, v] of Object.entries(props ?? {})) {
    if (v == null || v === false) continue;
    if (k.startsWith("on")) el.addEventListener(k.slice(2), v);
    else if (k === "part") el.style.setProperty("--part", v);
    else el.setAttribute(k, v === true ? "" : v);
  }
  el.append(...children.flat(Infinity).filter((c) => c != null && c !== false));
  return el;
}

export function text(el, s) {
  s = String(s ?? "");
  if (el.textContent !== s) el.textContent = s;
}

export function attr(el, name, v) {
  if (v == null || v === false) { if (el.hasAttribute(name)) el.removeAttribute(name); return; }
  v = v === true ? "" : String(v);
  if (el.getAttribute(name) !== v) el.setAttribute(name, v);
}

// keyed makes the children of a parent those of the items, and keeps elements that stay.
export function keyed(parent, items, key, make, update) {
  if (!parent.keyedBy) { parent.keyedBy = new Map(); parent.replaceChildren(); } // what the HTML had
  const have = parent.keyedBy;
  const keep = new Set();
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = key(item);
    keep.add(k);
    let el = have.get(k);
    if (!el) { el = make(item); have.set(k, el); }
    update?.(el, item);
    if (el === at) at = at.nextElementSibling;
    else parent.insertBefore(el, at);
  }
  for (const [k, el] of have) if (!keep.has(k)) { el.remove(); have.delete(k); }
}

// replaceIf rebuilds an element's content only if what it shows has changed, and not under
// somebody's fingers.
export function replaceIf(el, what, make) {
  const s = JSON.stringify(what);
  if (el.shown === s) return;
  const active = el.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const open = new Set([...el.querySelectorAll("details[open]")].map((d) => d.dataset.key));
  el.shown = s;
  el.replaceChildren(...[make()].flat());
  for (const d of el.querySelectorAll("details")) if (open.has(d.dataset.key)) d.open = true;
  if (active) el.querySelector(`[data-key="${CSS.escape(active)}"]`)?.focus();
}

const shapes = {
  ok: [["circle", { cx: 8, cy: 8, r: 7, fill: "currentColor" }], ["path", { d: "M4.6 8.3l2.3 2.4 4.5-5", fill: "none", stroke: "var(--card)", "stroke-width": 1.8 }]],
  warn: [["path", { d: "M8 1l7.4 13.5H.6z", fill: "currentColor" }], ["path", { d: "M8 5.4v4.4M8 11.2V13", stroke: "var(--card)", "stroke-width": 1.8 }]],
  bad: [["path", { d: "M5 .8h6L15.2 5v6L11 15.2H5L.8 11V5z", fill: "currentColor" }], ["path", { d: "M5.2 5.2l5.6 5.6m0-5.6l-5.6 5.6", stroke: "var(--card)", "stroke-width": 1.8 }]],
  unknown: [["circle", { cx: 8, cy: 8, r: 6.3, fill: "none", stroke: "currentColor", "stroke-width": 1.5, "stroke-dasharray": "2.6 2" }], ["path", { d: "M6 6.3c0-2.6 4-2.6 4-.2 0 1.6-2 1.6-2 3.2M8 10.9v1.2", fill: "none", stroke: "currentColor", "stroke-width": 1.4 }]],
  info: [["circle", { cx: 8, cy: 8, r: 6.3, fill: "none", stroke: "currentColor", "stroke-width": 1.5 }], ["path", { d: "M8 7.2v4M8 4.6v1.4", fill: "none", stroke: "currentColor", "stroke-width": 1.6 }]],
  wait: [["circle", { cx: 8, cy: 8, r: 6.3, fill: "none", stroke: "currentColor", "stroke-width": 1.5 }], ["path", { d: "M8 4.4V8l2.4 1.6", fill: "none", stroke: "currentColor", "stroke-width": 1.5 }]],
};

export const words = { ok: "well", warn: "warning", bad: "broken", unknown: "unknown", wait: "waits" };

// icon is a state as a shape with its word; without one it only decorates.
export function icon(state, word = words[state]) {
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("class", `icon s-${state}`);
  svg.setAttribute("viewBox", "0 0 16 16");
  if (word) { svg.setAttribute("role", "img"); svg.setAttribute("aria-label", word); } else svg.setAttribute("aria-hidden", "true");
  for (const [tag, props] of shapes[state] ?? shapes.unknown) {
    const el = document.createElementNS(ns, tag);
    for (const [k, v] of Object.entries(props)) el.setAttribute(k, v);
    svg.append(el);
  }
  return svg;
}

// setIcon shows a state in an element that holds only an icon.
export function setIcon(el, state) {
  if (el.dataset.icon === state) return;
  el.dataset.icon = state;
  el.replaceChildren(icon(state));
}

// span is a length of time in words, of seconds.
export function span(s) {
  s = Math.max(0, s);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 2 * 3600) return `${Math.round(s / 60)} min`;
  if (s < 2 * 86400) return `${(s / 3600).toFixed(1)} h`;
  return `${Math.round(s / 86400)} days`;
}

export const clockTime = (t) => new Date(t).toISOString().slice(11, 19);
export const dateTime = (t) => new Date(t).toISOString().slice(0, 19).replace("T", " ") + "Z";
export const bytes = (n) => n >= 2 ** 30 ? `${(n / 2 ** 30).toFixed(1)} GiB` : `${Math.round(n / 2 ** 20)} MiB`;
export const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
