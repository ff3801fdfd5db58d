// What changes something. Each needs the watch's token, which is asked for once and kept by
// this page alone until it is closed.
import { $, h, text } from "./dom.js";

let token = "";

async function call(method, url, body) {
  const res = await fetch(url, {
    method, headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` }, body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (res.ok) return;
  if (res.status === 401) token = "";
  throw new Error((await res.text()).trim() || res.statusText);
}

// ask shows a form. What it returns is done when it is sent; a failure is shown in the form.
function ask(title, fields, button, send) {
  const dialog = $("ask");
  const error = h("p", { class: "error", role: "alert" });
  const needs = token === "";
  const submit = h("button", { class: "main", type: "submit" }, button);
  const form = h("form", { method: "dialog" }, fields,
    needs && h("label", {}, "Token of the watch: the content of the file “token” in its data folder", h("input", { type: "password", name: "token", required: true, autocomplete: "off" })),
    error,
    h("div", { class: "buttons" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), submit));
  form.addEventListener("submit", async (e) => {
    e.preventDefault();
    const values = Object.fromEntries(new FormData(form));
    if (needs) token = values.token.trim();
    submit.disabled = true;
    try {
      await send(values);
      dialog.close();
    } catch (err) {
      text(error, err.message);
      if (!token && !needs) { dialog.close(); ask(title, fields, button, send); } // it was replaced
    } finally { submit.disabled = false; }
  });
  dialog.replaceChildren(h("h2", { id: "ask-title" }, title), form);
  dialog.showModal();
}

export function setGateways(poet) {
  const box = h("textarea", { name: "addresses", spellcheck: "false" });
  box.value = poet.gateways.map((g) => g.addr).join("\n");
  ask(`Gateways of ${poet.name}`, [
    h("p", {}, "One address, host:port, a line. They replace those that there are, and waiting proofs go to them at once."),
    h("label", {}, "Addresses of nodes' gRPC doors", box),
  ], "Set gateways", (v) => call("POST", `/poets/${encodeURIComponent(poet.name)}/gateways`, { addresses: v.addresses.split(/[\s,]+/).filter(Boolean) }));
}

export function rebroadcast(poet, round) {
  ask(`Offer the proof of round ${round.id} again?`, [
    h("p", {}, `${poet.name} offers it to every gateway. That is harmless: who has it already says so.`),
  ], "Offer it again", () => call("POST", `/poets/${encodeURIComponent(poet.name)}/rebroadcast`, { round: round.id }));
}

export function silence(alert) {
  const who = h("input", { name: "by", required: true, autocomplete: "username" });
  try { who.value = localStorage.getItem("by") ?? ""; } catch { /* it is typed */ }
  ask(`Silence ${alert.name}${alert.program ? ` of ${alert.program}` : ""}`, [
    h("p", {}, "Nobody is told of it until then. It stays on this page."),
    h("label", {}, "For", h("select", { name: "hours" }, h("option", { value: 1 }, "1 hour"), h("option", { value: 4 }, "4 hours"), h("option", { value: 24 }, "1 day"), h("option", { value: 168 }, "1 week"))),
    h("label", {}, "Your name", who),
    h("label", {}, "Why", h("input", { name: "comment", required: true, autocomplete: "off" })),
  ], "Silence", async (v) => {
    const ends = new Date(Date.now() + v.hours * 3600e3);
    await call("POST", "/api/v2/silences", {
      matchers: Object.entries(alert.labels).map(([name, value]) => ({ name, value, isRegex: false, isEqual: true })),
      startsAt: new Date().toISOString(), endsAt: ends.toISOString(), createdBy: v.by, comment: v.comment,
    });
    try { localStorage.setItem("by", v.by); } catch { /* it is typed the next time */ }
  });
}

export function endSilence(alert) {
  ask(`End the silence of ${alert.name}?`, [h("p", {}, `${alert.silence.by} set it: ${alert.silence.comment}`)], "End it",
    () => call("DELETE", `/api/v2/silence/${encodeURIComponent(alert.silence.id)}`));
}
