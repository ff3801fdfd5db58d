// Layers by nodes. Few nodes are drawn as shapes; for many each cell is a pixel of a small
// picture, which is scaled. Only what can be seen is drawn, so that an update costs little.
import { get, parts } from "./live.js";
import { $, h, text, count } from "./dom.js";

const meanings = {
  o: "applied", e: "applied, no block", w: "not due yet", b: "late: not applied", x: "differs from most", "?": "node does not answer", ".": "no block can be",
};
const order = ["o", "e", "w", "b", "x", "?"];
const roomy = 64; // nodes that are drawn as shapes
const margin = { top: 34, bottom: 4, right: 4 };
const tallest = 480; // px of the canvas; more nodes scroll

let canvas, ctx, box, small, colours, cells = [], names = [], rows = [], geometry = null, chosen = null;

export function start() {
  canvas = $("grid"); ctx = canvas.getContext("2d"); box = $("grid-box"); small = document.createElement("canvas");
  new ResizeObserver(draw).observe(box);
  box.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  canvas.addEventListener("mousemove", (e) => { pick(at(e)); });
  canvas.addEventListener("mouseleave", () => { if (document.activeElement !== canvas) pick(null); });
  canvas.addEventListener("keydown", key);
  canvas.addEventListener("focus", () => { if (!chosen) pick({ row: 0, col: geometry?.cols - 1 || 0 }); });
  canvas.addEventListener("click", (e) => { const p = at(e); if (p) open(p); });
  $("grid-table").addEventListener("toggle", table);
  restyle();
}

function open(p) { if (names[rows[p.row]]) location.hash = `smesher/${names[rows[p.row]]}`; }

// restyle reads the colours of the theme.
export function restyle() {
  if (!canvas) return;
  const probe = h("span", {});
  document.body.append(probe);
  const colour = (name) => { probe.style.color = `var(${name})`; return getComputedStyle(probe).color; };
  colours = { o: colour("--cell-ok"), e: colour("--cell-ok"), w: colour("--cell-dot"), faint: colour("--cell-faint"), b: colour("--cell-late"), x: colour("--cell-bad"), "?": colour("--cell-unknown"), ".": colour("--card"),
    card: colour("--card"), text: colour("--text"), muted: colour("--muted"), line: colour("--line"), mark: colour("--mark"), dark: colour("--text") };
  probe.remove();
  $("legend").replaceChildren(...order.map((c) => {
    const mini = h("canvas", { width: 28, height: 28, "aria-hidden": "true" });
    const m = mini.getContext("2d");
    m.scale(2, 2);
    cell(m, c, 0, 0, 14, 14);
    return h("li", {}, mini, meanings[c]);
  }));
  draw();
}

// update takes the newest columns.
export function update() {
  names = get("order") ?? [];
  cells = [...parts].filter(([k]) => k.startsWith("layer/")).map(([, v]) => v).sort((a, b) => a.layer - b.layer);
  rows = names.map((_, i) => i);
  if (names.length > roomy) { // trouble first
    const trouble = new Int32Array(names.length);
    for (const c of cells) for (let i = 0; i < names.length; i++) { const s = c.cells[i]; if (s === "x") trouble[i] += 1000; else if (s === "b" || s === "?") trouble[i]++; }
    rows.sort((a, b) => trouble[b] - trouble[a] || a - b);
  }
  summary();
  draw();
  table();
  if (chosen) read();
}

function summary() {
  const last = cells.slice(-20), bad = { x: new Set(), b: new Set(), "?": new Set() };
  for (const c of last) for (let i = 0; i < c.cells.length; i++) bad[c.cells[i]]?.add(names[i]);
  const list = (s) => { const a = [...s]; return a.length > 3 ? `${a.slice(0, 3).join(", ")} and ${a.length - 3} more` : a.join(", "); };
  const verb = (s, one, many) => `${list(s)} ${s.size === 1 ? one : many}`;
  const said = [];
  if (bad.x.size) said.push(verb(bad.x, "differs", "differ"));
  if (bad["?"].size) said.push(verb(bad["?"], "does not answer", "do not answer"));
  const late = new Set([...bad.b].filter((n) => !bad["?"].has(n)));
  if (late.size) said.push(verb(late, "is late", "are late"));
  const applied = last.some((c) => /[oe]/.test(c.cells));
  text($("grid-summary"), !cells.length ? "No layer yet." : said.length ? `In the last 20 layers: ${said.join("; ")}.` : applied ? `All ${names.length === 1 ? "is" : "agree"} in the last ${last.length} layers.`.replace("All is", "Nothing differs") : "No layer can have a block yet.");
}

function layout() {
  const width = box.clientWidth;
  if (!width || !cells.length || !names.length) return null;
  const rowHeight = names.length <= 12 ? 22 : names.length <= 30 ? 16 : names.length <= roomy ? 11 : 4;
  const labels = rowHeight >= 11 ? Math.min(130, 14 + 7 * Math.max(...names.map((n) => n.length))) : 0;
  const cols = Math.min(cells.length, Math.max(10, Math.floor((width - labels - margin.right) / 8)));
  const colWidth = Math.min(24, (width - labels - margin.right) / cols);
  const whole = margin.top + rows.length * rowHeight + margin.bottom, height = Math.min(whole, tallest);
  return { width, rowHeight, labels, cols, colWidth, left: labels, whole, height, first: cells.length - cols, scroll: Math.min(box.scrollTop, whole - height) };
}

function draw() {
  geometry = layout();
  const g = geometry;
  canvas.hidden = !g;
  $("grid-space").style.height = g ? `${g.whole}px` : "0";
  if (!g) return;
  const ratio = devicePixelRatio || 1, w = Math.round(g.width * ratio), hgt = Math.round(g.height * ratio);
  if (canvas.width !== w || canvas.height !== hgt) { canvas.width = w; canvas.height = hgt; canvas.style.height = `${g.height}px`; }
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, g.width, g.height);
  ctx.save();
  ctx.beginPath(); ctx.rect(0, margin.top - 2, g.width, g.height); ctx.clip();
  ctx.translate(0, margin.top - g.scroll);
  g.from = Math.floor(g.scroll / g.rowHeight);
  g.to = Math.min(rows.length, Math.ceil((g.scroll + g.height - margin.top) / g.rowHeight));
  if (names.length > roomy) dense(g); else shapes(g);
  if (chosen) ring(g);
  ctx.restore();
  axes(g);
}

function shapes(g) {
  ctx.font = "12px system-ui, sans-serif";
  ctx.textBaseline = "middle";
  ctx.fillStyle = colours.text;
  for (let r = g.from; r < g.to; r++) ctx.fillText(names[rows[r]], 0, (r + 0.5) * g.rowHeight, g.labels - 8);
  for (let c = 0; c < g.cols; c++) {
    const column = cells[g.first + c];
    for (let r = g.from; r < g.to; r++) cell(ctx, column.cells[rows[r]] ?? ".", g.left + c * g.colWidth, r * g.rowHeight, g.colWidth, g.rowHeight);
  }
}

// cell draws one with its shape.
function cell(m, state, x, y, w, hgt) {
  const gap = Math.min(2, w / 6), iw = w - gap, ih = hgt - Math.min(3, hgt / 6), cx = x + iw / 2, cy = y + ih / 2, d = Math.min(iw, ih) * 0.26;
  m.fillStyle = m.strokeStyle = colours[state] ?? colours["."];
  switch (state) {
    case ".": return;
    case "w": m.beginPath(); m.arc(cx, cy, Math.max(1, Math.min(iw, ih) * 0.13), 0, 7); m.fill(); return;
    case "e": m.lineWidth = 1.2; m.strokeRect(x + 0.6, y + 0.6, iw - 1.2, ih - 1.2); return;
  }
  m.fillRect(x, y, iw, ih);
  if (state === "o") return;
  m.lineWidth = Math.max(1.2, d / 2.2);
  m.strokeStyle = state === "x" ? colours.mark : colours.dark;
  m.beginPath();
  if (state === "x") { m.moveTo(cx - d, cy - d); m.lineTo(cx + d, cy + d); m.moveTo(cx + d, cy - d); m.lineTo(cx - d, cy + d); }
  else if (state === "b") { m.moveTo(cx - d, cy); m.lineTo(cx + d, cy); }
  else { m.lineWidth = 1; for (const k of [0.3, 0.7]) { m.moveTo(x + iw * (k - 0.25), y + ih); m.lineTo(x + iw * (k + 0.25), y); } }
  m.stroke();
}

const packed = new Map(); // colour as a pixel

function pixel(colour) {
  if (!packed.has(colour)) {
    const c = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    c.fillStyle = colour; c.fillRect(0, 0, 1, 1);
    packed.set(colour, new Uint32Array(c.getImageData(0, 0, 1, 1).data.buffer)[0]);
  }
  return packed.get(colour);
}

function dense(g) {
  const n = g.to - g.from, top = g.from * g.rowHeight;
  small.width = g.cols; small.height = n;
  const s = small.getContext("2d"), image = s.createImageData(g.cols, n), data = new Uint32Array(image.data.buffer);
  const of = {};
  for (const k of Object.keys(meanings)) of[k] = pixel(k === "e" || k === "w" ? colours.faint : colours[k]);
  for (let c = 0; c < g.cols; c++) {
    const column = cells[g.first + c].cells;
    for (let r = 0; r < n; r++) data[r * g.cols + c] = of[column[rows[g.from + r]]] ?? of["."];
  }
  s.putImageData(image, 0, 0);
  ctx.imageSmoothingEnabled = false;
  ctx.drawImage(small, g.left, top, g.cols * g.colWidth, n * g.rowHeight);
  ctx.fillStyle = colours.card;
  for (let r = 1; r < n; r++) ctx.fillRect(g.left, top + r * g.rowHeight - 1, g.width, 1);
  if (g.colWidth >= 5) for (let c = 1; c < g.cols; c++) ctx.fillRect(g.left + c * g.colWidth - 1, top, 1, n * g.rowHeight);
}

function axes(g) {
  const perEpoch = Math.round((get("status")?.epoch_seconds ?? 0) / (get("status")?.layer_seconds || 1));
  ctx.font = "11px system-ui, sans-serif";
  ctx.textBaseline = "middle";
  ctx.fillStyle = colours.muted;
  let free = -1, freeTop = -1;
  for (let c = 0; c < g.cols; c++) {
    const layer = cells[g.first + c].layer, x = g.left + c * g.colWidth;
    if (perEpoch > 1 && layer % perEpoch === 0) {
      ctx.fillRect(x - 1.5, 3, 1, g.height - margin.bottom - 2);
      const name = `epoch ${layer / perEpoch}`;
      if (x > freeTop && x + ctx.measureText(name).width < g.width) { ctx.fillText(name, x + 3, 9); freeTop = x + ctx.measureText(name).width + 12; }
    }
    if ((layer % 10 === 0 || c === g.cols - 1) && x > free) {
      const w = ctx.measureText(layer).width, from = Math.min(x, g.width - w);
      if (from > free) { ctx.fillText(layer, from, 25); free = from + w + 10; }
    }
  }
}

function ring(g) {
  ctx.strokeStyle = colours.text; ctx.lineWidth = 2;
  ctx.strokeRect(g.left + chosen.col * g.colWidth - 1, chosen.row * g.rowHeight - 1, g.colWidth, g.rowHeight);
}

function at(e) {
  const g = geometry;
  if (!g) return null;
  const col = Math.floor((e.offsetX - g.left) / g.colWidth), row = Math.floor((e.offsetY - margin.top + g.scroll) / g.rowHeight);
  return e.offsetY < margin.top || row < 0 || row >= rows.length || col >= g.cols ? null : { row, col: Math.max(0, col) };
}

function pick(p) {
  if (p?.row === chosen?.row && p?.col === chosen?.col) return;
  chosen = p;
  draw();
  read();
}

function read() {
  const el = $("grid-read"), g = geometry;
  if (!chosen || !g) { text(el, ""); return; }
  const c = cells[g.first + chosen.col], i = rows[chosen.row];
  if (!c || i == null) { chosen = null; text(el, ""); return; }
  const s = c.cells[i] ?? ".", own = c.others?.[names[i]];
  let said = `layer ${c.layer}, ${names[i]}: ${meanings[s]}`;
  if (own) said += ` (${own}; most have block ${c.block || "none"}, state ${c.root || "unchanged"})`;
  else if (s === "o") said += `, block ${c.block}, state ${c.root}, ${count(c.txs, "transaction")}`;
  text(el, said);
}

function key(e) {
  const g = geometry;
  if (!g) return;
  const p = chosen ?? { row: 0, col: g.cols - 1 };
  const to = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -g.cols], End: [0, g.cols], PageUp: [-10, 0], PageDown: [10, 0] }[e.key];
  if (to) {
    e.preventDefault();
    pick({ row: Math.min(rows.length - 1, Math.max(0, p.row + to[0])), col: Math.min(g.cols - 1, Math.max(0, p.col + to[1])) });
    const y = chosen.row * g.rowHeight, seen = g.height - margin.top;
    if (y < g.scroll || y + g.rowHeight > g.scroll + seen) box.scrollTop = y - seen / 2;
  } else if (e.key === "Enter") { e.preventDefault(); open(p); }
  else if (e.key === "Escape") pick(null);
}

// table is the text of the newest layers, when somebody wants it.
function table() {
  const details = $("grid-table");
  if (!details.open) return;
  const last = cells.slice(-8), most = 60;
  const head = h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Node"), last.map((c) => h("th", { scope: "col" }, c.layer))));
  const body = h("tbody", {}, rows.slice(0, most).map((i) => h("tr", {}, h("th", { scope: "row" }, names[i]), last.map((c) => h("td", {}, meanings[c.cells[i] ?? "."])))));
  const foot = rows.length > most ? h("caption", {}, `The ${most} with the most trouble, of ${rows.length}`) : null;
  details.querySelector("table").replaceChildren(...[foot, head, body].filter(Boolean));
}
