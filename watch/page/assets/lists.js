// Alerts, PoETs, nodes and the log.
import { get, under, now, parts } from "./live.js";
import { $, h, text, attr, icon, setIcon, span, clockTime, dateTime, bytes, count, keyed, replaceIf } from "./dom.js";
import * as actions from "./actions.js";

const since = (t) => h("time", { datetime: t, title: dateTime(t), "data-since": t }, span((now() - Date.parse(t)) / 1000));

// ticks brings what tells an age up to date.
export function ticks() {
  for (const el of document.querySelectorAll("[data-since]")) text(el, span((now() - Date.parse(el.dataset.since)) / 1000));
}

// report leads to what is known of a death.
const report = (id, name, words = "report") => h("a", { href: `/crash/${encodeURIComponent(id)}`, target: "_blank", rel: "noopener" }, words, h("span", { class: "sr" }, ` of the crash of ${name}`));

const look = (a) => a.silence ? "wait" : { page: "bad", warn: "warn" }[a.severity] ?? "info";
const level = { page: "page", warn: "warning", info: "for information" };

function alert(a) {
  return h("li", { class: "alert" }, icon(look(a), a.silence ? "silenced" : level[a.severity]),
    h("div", { class: "text" },
      h("b", {}, a.name), a.program && !a.summary.includes(a.program) && ` ${a.program}`, ` ${a.summary}`,
      h("span", { class: "meta" }, `${level[a.severity] ?? a.severity}, for `, since(a.since), ", ", h("a", { href: `/runbook/${a.name}`, target: "_blank", rel: "noopener" }, "runbook", h("span", { class: "sr" }, ` of ${a.name}`)),
        a.crash && [", ", report(a.crash, a.program)]),
      a.silence && h("span", { class: "meta" }, `silenced by ${a.silence.by} until ${dateTime(a.silence.until)}: ${a.silence.comment}`),
      a.detail && h("details", { "data-key": a.id }, h("summary", {}, "What it said"), h("pre", { tabindex: 0 }, a.detail))),
    a.silence
      ? h("button", { type: "button", class: "quiet", "data-key": `s${a.id}`, "aria-label": `End the silence of ${a.name} ${a.program}`, onclick: () => actions.endSilence(a) }, "End silence")
      : h("button", { type: "button", class: "quiet", "data-key": `s${a.id}`, "aria-label": `Silence ${a.name} ${a.program}`, onclick: () => actions.silence(a) }, "Silence"));
}

// Many of one kind are one line, which opens.
const many = 3;

function grouped(all) {
  const kinds = new Map();
  for (const a of all) { const k = `${a.name}/${look(a)}`; kinds.set(k, [...(kinds.get(k) ?? []), a]); }
  return [...kinds].flatMap(([k, of]) => of.length < many ? of.map(alert) : h("li", { class: "alert" }, icon(look(of[0]), of[0].silence ? "silenced" : level[of[0].severity]),
    h("div", { class: "text" }, h("details", { "data-key": k }, h("summary", {}, h("b", {}, of[0].name), ` ${of.length} times: ${of.slice(0, many).map((a) => a.program || "?").join(", ")}${of.length > many ? ` and ${of.length - many} more` : ""}`,
      h("span", { class: "meta" }, `${level[of[0].severity] ?? of[0].severity}, for `, since(of[0].since))), h("ul", {}, of.slice(0, 30).map(alert)), of.length > 30 && h("p", { class: "summary" }, `and ${of.length - 30} more`)))));
}

export function alerts() {
  const all = get("alerts") ?? [], follows = all.filter((a) => a.inhibited && !a.silence), first = all.filter((a) => !follows.includes(a));
  replaceIf($("alerts-list"), all, () => {
    if (!all.length) return h("p", { class: "none" }, icon("ok", ""), "Nothing fires.");
    return [
      h("ul", {}, grouped(first)),
      follows.length > 0 && h("details", { "data-key": "follows" }, h("summary", {}, `${count(follows.length, "alert")} that follow from these`), h("ul", {}, grouped(follows))),
    ].filter(Boolean);
  });
}

// Rounds.
const part = (r) => r.state === "finished" ? 1 : r.state === "open" || r.state === "closed" ? 0 : Math.min(1, Math.max(0, (now() - Date.parse(r.start)) / (Date.parse(r.end) - Date.parse(r.start) || 1)));

const left = (t) => span(Math.max(0, (Date.parse(t) - now()) / 1000));

function round(p, r) {
  const waits = r.proof?.state === "pending";
  let what;
  if (r.trouble) what = [icon("warn"), h("span", {}, r.trouble)];
  else if (waits) what = [icon(p.live === 0 ? "bad" : (now() - Date.parse(r.proof.since)) / 1000 > (get("status")?.epoch_seconds ?? 0) / 4 ? "warn" : "wait", "waits"), h("span", { class: "said" }, "its proof has waited ", since(r.proof.since), `, ${count(r.proof.attempts, "attempt")}`)];
  else if (r.proof) what = [icon(r.proof.state === "delivered" ? "ok" : "bad"), h("span", {}, r.proof.state === "delivered" ? `delivered, kept by ${count(r.proof.kept_by, "gateway")}` : r.proof.state)];
  else if (r.state === "executing") what = [h("span", { class: "bar", role: "progressbar", "aria-label": `round ${r.id}`, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(100 * part(r)) }, h("i", { part: `${Math.round(100 * part(r))}%` })), h("span", {}, `${Math.round(100 * part(r))} %, ${left(r.end)} left`)];
  else what = [h("span", {}, r.state === "open" ? `takes registrations${r.start ? ` for ${left(r.start)}` : ""}` : r.state === "proving" ? "makes its proof" : r.state)];
  return h("li", { class: "round" }, h("span", {}, `round ${r.id}`), h("span", { class: "what" }, what, !waits && h("span", { class: "members" }, count(r.members, "member"))),
    waits && p.admin ? h("button", { type: "button", class: "quiet", "data-key": `r${p.name}/${r.id}`, "aria-label": `Offer the proof of round ${r.id} of ${p.name} again`, onclick: () => actions.rebroadcast(p, r) }, "Offer again") : h("span", {}));
}

const slotState = { live: "ok", candidate: "wait", suspect: "warn", dead: "bad" };

function poet(p) {
  const free = Math.max(0, p.slots - p.gateways.filter((g) => g.state !== "candidate").length);
  return h("article", { class: "poet", "aria-label": p.name },
    h("h3", {}, icon(p.state), p.name),
    h("p", { class: "text" }, p.text || `${count(p.live, "live gateway")}, ${p.undelivered ? `${count(p.undelivered, "proof")} in the outbox for up to ${span(p.oldest)}` : "empty outbox"}, room for ${p.storage.fit > 999 ? "more than 999 rounds" : count(p.storage.fit, "round")} (${bytes(p.storage.free)} free)`),
    (p.crash || p.starts > 0) && h("p", { class: "text" }, p.starts > 0 && `started again ${p.starts === 1 ? "once" : `${p.starts} times`} within a day`, p.starts > 0 && p.crash && "; ",
      p.crash && ["died ", since(p.crash.at), ` ago (${p.crash.reason}), `, report(p.crash.id, p.name)]),
    !p.admin && h("p", { class: "text" }, "The watch does not know its admin API: rounds and gateways are counted only."),
    p.admin && [
      h("p", { class: "label" }, "Rounds and their proofs"),
      h("ul", {}, p.rounds.map((r) => round(p, r))),
      h("p", { class: "label" }, `Gateway slots (${p.slots})`),
      h("ul", { class: "slots" }, p.gateways.map((g) => h("li", { class: `slot ${slotState[g.state] ?? ""}` }, icon(slotState[g.state] ?? "unknown", g.state),
        h("span", {}, g.addr, h("small", {}, g.state, g.state !== "live" && g.state !== "candidate" && g.last_success && [", well ", since(g.last_success), " ago"], g.trouble && g.state !== "live" && `: ${g.trouble}`)))),
        Array.from({ length: free }, () => h("li", { class: "slot free" }, "free slot"))),
      h("button", { type: "button", "data-key": `g${p.name}`, "aria-label": `Set the gateways of ${p.name}`, onclick: () => actions.setGateways(p) }, "Set gateways…"),
    ]);
}

export function poets() {
  const all = [...parts].filter(([k]) => k.startsWith("poet/")).map(([, v]) => v);
  all.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const list = $("poets-list");
  if (!all.length) { list.keyedBy = null; list.replaceChildren(h("p", { class: "none" }, icon("unknown"), "No PoET is watched.")); return; }
  if (!list.keyedBy?.size) list.replaceChildren();
  keyed(list, all, (p) => p.name, () => h("div", { class: "poet" }), (el, p) => replaceIf(el, [p, Math.floor(now() / 1000)], () => [...poet(p).childNodes]));
}

// Nodes.
const page = 25;
let from = 0, matching = [];
const steps = { initializing: "fills its space", registering: "registers", waiting: "waits for a round", fetching: "fetches a proof", proving: "proves its space", publishing: "publishes", idle: "idle", off: "off", "": "" };
const rank = ["bad", "warn", "unknown", "wait", "ok"];

export function nodes() {
  const order = get("order") ?? [], form = $("nodes-filter");
  form.hidden = order.length <= 12;
  const want = form.elements.text.value.trim().toLowerCase(), trouble = form.elements.trouble.checked;
  matching = order.map((n) => get(`node/${n}`)).filter((n) => n && (!trouble || n.state !== "ok") && (!want || `${n.name} ${n.text} ${n.root} ${n.id} ${n.step.name}`.toLowerCase().includes(want)));
  if (order.length > page) matching.sort((a, b) => rank.indexOf(a.state) - rank.indexOf(b.state));
  from = Math.min(from, Math.max(0, Math.floor((matching.length - 1) / page) * page));
  keyed($("nodes-rows"), matching.slice(from, from + page), (n) => n.name,
    (n) => h("tr", {}, h("td", {}, h("span", { class: "name" }, h("span", {}), h("a", { href: `#smesher/${encodeURIComponent(n.name)}` }, n.name)), h("span", { class: "text" })), ["n", "hash", "n", "n", "", "n", "n", "n", "n", "n", ""].map((c) => h("td", { class: c }))),
    (tr, n) => {
      const td = tr.children, gone = Boolean(n.seen);
      setIcon(td[0].firstChild.firstChild, n.state);
      text(td[1], n.applied >= (get("status")?.first_layer ?? 0) && n.applied || "-"); text(td[2], n.root || "-"); text(td[3], n.peers); text(td[4], n.atx ?? "-");
      text(td[5], n.step.name === "initializing" ? `${steps.initializing}, ${Math.round(100 * (n.step.progress ?? 0))} %` : steps[n.step.name] ?? n.step.name);
      text(td[6], n.memory ? bytes(n.memory) : "-");
      text(td[7], n.cpu?.toFixed(2) ?? "-");
      text(td[8], n.disk == null ? "-" : bytes(n.disk) + (n.full ? `, full in ${span(n.full)}` : ""));
      text(td[9], n.started && !gone ? span(now() / 1000 - n.started) : "-");
      text(td[10], n.starts ?? "-");
      replaceIf(td[11], n.crash ?? null, () => n.crash ? [report(n.crash.id, n.name, n.crash.reason), " ", since(n.crash.at), " ago", n.crash.of > 1 ? `, ${n.crash.of} known` : ""] : "-");
      attr(td[11], "title", n.crash?.text);
      const said = td[0].lastChild;
      text(said, n.text + (gone ? ` (last seen ${clockTime(n.seen)} UTC)` : ""));
      said.hidden = !n.text;
    });
  const pages = $("nodes-pages");
  pages.hidden = matching.length <= page;
  text(pages.children[1], `${from + 1} to ${Math.min(from + page, matching.length)} of ${matching.length}`);
  pages.children[0].disabled = from === 0;
  pages.children[2].disabled = from + page >= matching.length;
  versions(order);
  const others = get("programs") ?? [];
  text($("programs"), !order.length ? "No node is watched." : others.length ? "Watched besides: " + others.map((p) => `${p.name}${p.name === p.job ? "" : ` (${p.job})`}${p.state === "ok" ? "" : p.state === "bad" ? " does not answer" : " was not asked yet"}`).join(", ") + "." : "");
}

// versions says which programs run; who has another than most is named.
function versions(order) {
  const by = new Map();
  for (const name of order) { const v = get(`node/${name}`)?.version; if (v) by.set(v, [...(by.get(v) ?? []), name]); }
  const all = [...by].sort((a, b) => b[1].length - a[1].length);
  text($("versions"), all.length ? "Version: " + all.map(([v, of], i) => `${v}${i ? ` (${of.slice(0, 3).join(", ")}${of.length > 3 ? ` and ${of.length - 3} more` : ""})` : ""}`).join(", ") + "." : "");
}

// The log.
export function log() {
  const form = $("log-filter"), kind = form.elements.kind.value, want = form.elements.text.value.trim().toLowerCase();
  const all = under("event/").sort((a, b) => b.id - a.id).filter((e) => (!kind || e.kind === kind) && (!want || `${e.who ?? ""} ${e.text}`.toLowerCase().includes(want)));
  keyed($("log-rows"), all.slice(0, 150), (e) => e.id, (e) => h("li", {},
    h("time", { datetime: e.at, title: dateTime(e.at) }, clockTime(e.at)), icon(e.state || "ok"), h("a", { class: "who", href: place(e) }, e.who || e.kind),
    h("span", {}, e.text, " ", e.alert && [h("a", { href: `/runbook/${e.alert}`, target: "_blank", rel: "noopener", "aria-label": `runbook of ${e.alert}` }, "runbook"), " "],
      e.crash && [report(e.crash, e.who), " "],
      h("button", { type: "button", class: "link", "aria-label": `Copy the curl call of ${e.who || e.kind}`, onclick: (ev) => copy(ev.currentTarget, call(e)) }, "curl"))));
}

// Where a line of the log leads, and what a program would ask for the same.
const isNode = (e) => parts.has(`node/${e.who}`);
const place = (e) => isNode(e) ? `#smesher/${encodeURIComponent(e.who)}` : { alert: "#alerts", network: "#layers", epoch: "#atxs", node: "#nodes" }[e.kind] ?? "#poets";
const call = (e) => e.crash ? `/crash/${encodeURIComponent(e.crash)}` : isNode(e) ? `/model/node/${encodeURIComponent(e.who)}` : parts.has(`poet/${e.who}`) ? `/model/poet/${encodeURIComponent(e.who)}` : { alert: "/model/alerts", epoch: "/model/epochs" }[e.kind] ?? "/model/status";

async function copy(button, path) {
  const line = `curl -s '${new URL(path, location.origin)}'`;
  try {
    await navigator.clipboard.writeText(line);
    text(button, "copied");
    setTimeout(() => text(button, "curl"), 1500);
  } catch { prompt("The call:", line); } // a page without TLS from elsewhere may not copy
}

export function start() {
  for (const [id, show] of [["nodes-filter", nodes], ["log-filter", log]]) {
    $(id).addEventListener("input", show);
    $(id).addEventListener("submit", (e) => e.preventDefault());
  }
  const [before, , next] = $("nodes-pages").children;
  before.addEventListener("click", () => { from = Math.max(0, from - page); nodes(); });
  next.addEventListener("click", () => { from += page; nodes(); });
}
