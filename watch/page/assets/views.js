// The line on top, the verdict, the chain, the bars.
import { get, now, age } from "./live.js";
import { $, h, text, attr, setIcon, span, keyed, count } from "./dom.js";

const facts = (el, rows) => keyed(el, rows, (r) => r[0],
  (r) => h("div", {}, h("dt", {}, r[0]), h("dd", {})), (div, r) => text(div.lastChild, r[1]));

// headline is the verdict; of old data there is none.
function headline(st, old) {
  const state = old ? "unknown" : st.state, firing = st.pages + st.warnings;
  text($("verdict-text"), old ? "Not known now" : st.verdict);
  text($("verdict-why"), old ? `It was, when the watch answered last: ${st.verdict}` : st.why);
  setIcon($("verdict-icon"), state);
  attr(document.body, "data-state", state);
  const title = `${old ? "Not known" : firing ? count(firing, "alert") : st.verdict} - ${st.network}`;
  if (document.title !== title) document.title = title;
  attr($("icon"), "href", `/assets/${state === "unknown" ? "wait" : state}.svg`);
}

export function verdict() {
  const st = get("status"), chain = get("chain") ?? [];
  if (!st) return;
  text($("network"), st.network);
  const firing = st.pages + st.warnings;
  const rows = [["nodes", `${st.answering} of ${st.nodes}`]];
  if (st.phase === "running") rows.push(["lag", count(st.lag, "layer")], ["states", st.roots || "none yet"]);
  rows.push(["alerts", firing ? [st.pages && count(st.pages, "page"), st.warnings && count(st.warnings, "warning")].filter(Boolean).join(", ") : "none"]);
  if (st.silenced) rows.push(["silenced", st.silenced]);
  facts($("counts"), rows);
  keyed($("chain"), chain, (l) => l.id,
    (l) => h("li", {}, h("a", { href: l.href }, h("b", {}, h("span", {}), h("span", {}, l.name)), h("span", { class: "fact" }), h("span", { class: "why" }))),
    (li, l) => {
      li.className = l.state;
      const a = li.firstChild;
      setIcon(a.firstChild.firstChild, l.state);
      text(a.children[1], l.fact);
      text(a.children[2], l.why);
      a.children[2].hidden = !l.why;
    });
  clock();
}

// clock is what changes with time alone.
export function clock() {
  const st = get("status"), a = age();
  const el = $("age");
  if (a.seconds == null) text(el, a.connected ? "connected" : "connecting");
  else text(el, a.stale || !a.connected ? `data are ${span(a.seconds)} old` : "live");
  attr(document.body, "data-stale", a.stale);
  const stale = $("stale");
  stale.hidden = !a.stale;
  if (a.stale) text(stale, `The watch does not answer: what you see is ${span(Math.round(a.seconds))} old. Trying again.`);
  if (!st) return;
  headline(st, a.stale);
  const rows = [];
  if (st.phase === "empty") rows.push(["network's clock", "not known"]);
  else {
    const t = (now() - Date.parse(st.genesis)) / 1000;
    if (t < 0) rows.push(["genesis in", span(-t)]);
    else {
      const layer = Math.floor(t / st.layer_seconds), epoch = Math.floor(t / st.epoch_seconds);
      rows.push(["layer", layer], ["next layer in", span((layer + 1) * st.layer_seconds - t)], ["epoch", epoch], ["next epoch in", span((epoch + 1) * st.epoch_seconds - t)], ["since genesis", span(t)]);
    }
  }
  facts($("clock"), rows);
}

// What an epoch has, of how many that the one before it had, and by the proofs of which PoETs.
const published = (e) => `${count(e.atxs, "ATX")}${e.current ? " so far" : ""}${e.expected == null ? "" : `, ${e.expected} expected`}`;
const byPoet = (e) => {
  const of = Object.entries(e.by_poet ?? {}).sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1));
  return of.length ? `; by PoET ${of.map(([p, n]) => `${p} ${n}`).join(", ")}` : "";
};

export function epochs() {
  const all = get("epochs") ?? [];
  const most = Math.max(1, ...all.map((e) => e.atxs ?? 0));
  keyed($("epochs"), all, (e) => e.epoch,
    (e) => h("li", {}, h("div", { class: "column" }, h("b", {}), h("i", {})), h("span", {}, e.epoch)),
    (li, e) => {
      li.className = e.atxs == null ? "none" : e.drop ? "drop" : e.current ? "now" : "";
      const [b, i] = li.firstChild.children;
      text(b, e.atxs == null ? "?" : (e.drop ? "▼" : "") + e.atxs);
      i.style.setProperty("--part", `${Math.round(80 * (e.atxs ?? 0) / most)}%`);
      attr(li, "title", e.atxs == null ? `epoch ${e.epoch}: not known` : `epoch ${e.epoch}: ${published(e)}${byPoet(e)}`);
    });
  $("epochs").hidden = !all.length;
  const drops = all.filter((e) => e.drop).map((e) => e.epoch);
  const now = all.at(-1);
  text($("epochs-now"), now?.atxs == null ? "" : `Epoch ${now.epoch}: ${published(now)}${byPoet(now)}.`);
  text($("epochs-text"), !all.length ? "No epoch has begun." : drops.length ? `▼ fewer than 70 % of the epoch before, or none: ${drops.join(", ")}` : "The dashed bar is the running epoch. Each ATX gives weight in the epoch after.");
}
