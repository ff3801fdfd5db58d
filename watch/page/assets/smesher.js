// A smesher's view: what its owner asks, of one node.
import { get, now } from "./live.js";
import { $, h, icon, span, dateTime, count } from "./dom.js";

const every = 2000; // ms
let name = "", timer = 0, last = null, failed = "";

export function start() {
  addEventListener("hashchange", route);
  $("smesher").addEventListener("close", () => { clearTimeout(timer); name = ""; if (location.hash.startsWith("#smesher/")) history.replaceState(null, "", location.pathname); });
  route();
}

function route() {
  const m = location.hash.match(/^#smesher\/(.+)$/);
  if (!m) return;
  name = decodeURIComponent(m[1]);
  last = null; failed = "";
  show();
  if (!$("smesher").open) $("smesher").showModal();
  clearTimeout(timer);
  load();
}

async function load() {
  const asked = name;
  try {
    const res = await fetch(`/smesher/${encodeURIComponent(asked)}`);
    if (!res.ok) throw new Error((await res.text()).trim());
    const v = await res.json();
    if (asked !== name) return;
    last = v; failed = "";
  } catch (err) {
    if (asked !== name) return;
    failed = err.message;
  }
  show();
  timer = setTimeout(load, every);
}

const until = (t) => {
  const s = (Date.parse(t) - now()) / 1000;
  return t ? `${dateTime(t)} (${s < 0 ? `${span(-s)} ago` : `in ${span(s)}`})` : "not known";
};
const amount = (smidges) => `${(smidges / 1e9).toLocaleString("en", { maximumFractionDigits: 3 })} SMH`;

const says = {
  initializing: "fills its space", registering: "registers its challenge with PoETs", waiting: "waits for the PoET's round", fetching: "fetches the PoET's proof",
  proving: "proves its space over the proof", publishing: "publishes its ATX", idle: "is done for this epoch", off: "is off",
};

function atx(v) {
  if (v.last_atx === v.epoch) return ["ok", `published for this epoch (${v.epoch}): it has weight in epoch ${v.epoch + 1}`];
  if (v.making != null) return ["wait", `that of epoch ${v.making} is in the making`];
  return ["warn", `none for this epoch (${v.epoch}) and none in the making`];
}

// One identity of the node.
function body(v) {
  const who = ["Identity", h("span", { class: "hash" }, v.node_id || "its key cannot be read")];
  if (!v.publish_by) { // it cannot smesh, the others go on
    return [h("dl", { class: "steps" }, [["Trouble", h("b", { class: "s-bad" }, v.step.error)], who].map(([k, d]) => [h("dt", {}, k), h("dd", {}, d)]))];
  }
  const [state, words] = atx(v);
  const step = v.step;
  const list = [
    ["ATX", [icon(state), ` ${words}`]],
    ["Now", [`${says[step.step] ?? step.step}${step.detail ? `: ${step.detail}` : ""}`, step.progress ? ` (${Math.round(100 * step.progress)} %)` : "", step.until ? `, until ${until(step.until)}${step.for ? `: ${step.for}` : ""}` : ""]],
    v.elsewhere && ["Trouble", h("b", { class: "s-bad" }, "its key signs on another machine too: nothing is signed with it here")],
    step.error && ["Trouble", h("b", { class: "s-bad" }, step.error)],
    ["Registration closes", until(v.registration_closes)],
    ["PoET proof is due", until(v.proof_due)],
    ["ATX must be heard", until(v.publish_by)],
    ["Rewards", v.earned.layers ? `${amount(v.earned.smidges)} in ${count(v.earned.layers, "layer")}, the last was ${v.earned.last_layer}` : "none yet"],
    ["Coinbase", h("span", { class: "hash" }, v.coinbase)],
    who,
  ].filter(Boolean);
  const slots = [...new Set(v.slots)];
  return [
    h("dl", { class: "steps" }, list.map(([k, d]) => [h("dt", {}, k), h("dd", {}, d)])),
    h("h3", {}, "PoETs"),
    v.poets.length ? h("ul", {}, v.poets.map((p) => h("li", {}, icon(p.trouble && !p.round ? "warn" : p.member || p.round ? "ok" : "wait"), ` ${p.url}: `, p.member ? `member of round ${p.round}` : p.round ? `registered for round ${p.round}` : "not registered now", p.trouble && ` - ${p.trouble}`))) : h("p", {}, "none"),
    h("h3", {}, `Layers of epoch ${v.epoch} in which it may propose`),
    slots.length ? h("ul", { class: "chips" }, slots.map((l) => h("li", { class: l < v.layer ? "past" : l === v.layer ? "now" : "" }, l))) : h("p", { class: "summary" }, "none"),
  ];
}

function show() {
  const dialog = $("smesher"), n = get(`node/${name}`);
  const focused = dialog.contains(document.activeElement);
  const close = h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Close");
  const all = last ? [last, ...(last.others ?? [])] : [];
  dialog.replaceChildren(
    h("h2", { id: "smesher-title" }, icon(n?.state ?? "unknown"), `The ${all.length > 1 ? "smeshers" : "smesher"} of ${name}`),
    n?.text ? h("p", { class: "summary" }, n.text) : "",
    failed ? h("p", { class: "error", role: "alert" }, failed) : "",
    ...(last ? all.flatMap((v, i) => [i ? h("hr", {}) : "", ...body(v)]) : [h("p", { class: "summary" }, failed ? "" : "asking")]),
    h("div", { class: "buttons" }, close));
  if (focused) close.focus();
}
