// The page over a real testnet: what it changes is changed.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { axe, launch, open, until } from "./browser.mjs";

const bin = process.env.PAGE_BIN;
const shots = process.env.PAGE_SHOTS;
const patience = 240_000; // the machine may be busy

let dir, up, url, browser, token;
const tweedle = (...args) => execFileSync(join(bin, "tweedle"), args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
const status = () => JSON.parse(tweedle("testnet", "status", "--json", "--dir", dir));
const gatewaysOf = (name) => status().poets.find((p) => p.name === name).gateways?.map((g) => g.addr).sort();

before(async () => {
  dir = mkdtempSync(join(tmpdir(), "page-"));
  up = spawn(join(bin, "tweedle"), ["testnet", "up", "--dir", dir, "--nodes", "3", "--poets", "1", "--json"], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  up.stdout.on("data", (b) => { text += b; });
  const first = JSON.parse((await until("the first line of up", patience, () => text.includes("\n") && text)).split("\n")[0]);
  assert.equal(first.type, "start");
  url = first.page;
  assert.match(url, /^http:\/\/127\.0\.0\.1:\d+$/, "the first event has the page's address");
  assert.equal(await until("all run", patience, () => { const s = status(); return s.nodes.length === 3 && s.poets[0]?.gateways?.length === 3 && s.page; }), url);
  token = readFileSync(join(dir, "watch", "data", "token"), "utf8").trim();
  browser = await launch();
});

after(async () => {
  await browser?.close();
  if (up && up.exitCode === null) await new Promise((resolve) => { up.on("exit", resolve); up.kill("SIGINT"); });
  if (dir) rmSync(dir, { recursive: true, force: true });
});

test("a real network is shown, its gateways are set, an alert is silenced", { timeout: 2 * patience }, async (t) => {
  const { page, wrong } = await open(browser, url);
  await page.waitForFunction(() => document.querySelectorAll("#nodes-rows tr").length === 3 && document.querySelectorAll("#poets-list .slot:not(.free)").length === 3, null, { timeout: patience });
  await page.waitForFunction(() => /^\d+$/.test([...document.querySelectorAll("#clock dd")][0]?.textContent ?? ""), null, { timeout: patience });
  assert.deepEqual(await axe(page), []);

  // Gateways: one of three is left out, by the page, and the PoET has two.
  const was = gatewaysOf("poet-1"), left = was.slice(0, 2);
  await page.click('button[aria-label="Set the gateways of poet-1"]');
  await page.fill("#ask textarea", left.join("\n"));
  await page.fill('#ask input[name="token"]', token);
  await page.click('#ask button[type="submit"]');
  await page.waitForSelector("#ask:not([open])", { state: "attached", timeout: patience });
  await until("the PoET has the gateways that were set", patience, () => JSON.stringify(gatewaysOf("poet-1")) === JSON.stringify(left));
  await page.waitForFunction(() => /an operator set its gateways/.test(document.getElementById("log-rows").textContent), null, { timeout: patience });
  assert.match(readFileSync(join(dir, "watch", "log"), "utf8"), /an operator set gateways through the page/);
  t.diagnostic(`gateways of poet-1: ${was.join(" ")}, then ${gatewaysOf("poet-1").join(" ")}`);

  // The same from elsewhere changes nothing.
  for (const [headers, code] of [[{}, 401], [{ Authorization: `Bearer ${token}`, Origin: "http://evil.example" }, 403], [{ Authorization: `Bearer ${token}`, "Sec-Fetch-Site": "cross-site" }, 403]]) {
    for (const [path, body] of [["/poets/poet-1/gateways", { addresses: was }], ["/api/v2/silences", {}]]) {
      const res = await fetch(url + path, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) });
      assert.equal(res.status, code, `${path} with ${Object.keys(headers)}`);
    }
  }
  assert.deepEqual(gatewaysOf("poet-1"), left);

  // A proof is offered again, as a program would ask for it.
  const round = await until("a proof", patience, async () => { const m = await (await fetch(`${url}/model`)).json(); return m["poet/poet-1"].rounds.find((r) => r.proof)?.id; });
  const again = await fetch(`${url}/poets/poet-1/rebroadcast`, { method: "POST", headers: { "Content-Type": "application/json", Authorization: `Bearer ${token}` }, body: JSON.stringify({ round }) });
  assert.equal(again.status, 200, await again.text());

  // A node dies; its alert is silenced by the page, which does not ask for the token again.
  tweedle("testnet", "kill", "node-3", "--dir", dir);
  await page.waitForSelector('button[aria-label="Silence NodeCrashed node-3"]', { timeout: patience });
  await page.waitForFunction(() => document.body.dataset.state === "bad" || document.body.dataset.state === "warn", null, { timeout: patience });
  if (shots) await page.screenshot({ path: `${shots}/live-crashed.png`, fullPage: true });
  await page.click('button[aria-label="Silence NodeCrashed node-3"]');
  await page.fill('#ask input[name="by"]', "ada");
  await page.fill('#ask input[name="comment"]', "we know");
  assert.equal(await page.$('#ask input[name="token"]'), null);
  await page.click('#ask button[type="submit"]');
  await page.waitForSelector('button[aria-label="End the silence of NodeCrashed node-3"]', { timeout: patience });
  const silences = await (await fetch(`${url}/api/v2/silences`)).json();
  assert.equal(silences.filter((s) => s.status.state === "active" && s.createdBy === "ada" && s.comment === "we know").length, 1);

  // What is known of its death is one click away, and stays so when it is back.
  const row = '#nodes-rows tr:has(a:text-is("node-3"))';
  const href = await page.getAttribute(`${row} td:last-child a`, "href", { timeout: patience });
  const report = await (await fetch(url + href)).text();
  assert.match(report, /^node-3 died at .*killed from outside: killed.*The last lines of its log:\n\n.*level=/s);
  tweedle("testnet", "restart", "node-3", "--dir", dir);
  await page.waitForFunction((r) => document.querySelector(r).children[10].textContent === "1", row.replace(':has(a:text-is("node-3"))', ":nth-child(3)"), { timeout: patience });
  assert.match(await page.textContent(`${row} td:last-child`), /^signal/);
  assert.match(await page.textContent(`${row} td:nth-child(9)`), /^[\d.]+ [GM]iB/);
  assert.match(await page.textContent(`${row} td:nth-child(8)`), /^\d+\.\d\d$/);

  // A smesher's view.
  await page.click('#nodes-rows a:has-text("node-1")');
  await page.waitForFunction(() => /PoET proof is due/.test(document.getElementById("smesher").textContent), null, { timeout: patience });
  assert.deepEqual(await axe(page), []);
  if (shots) await page.screenshot({ path: `${shots}/live-smesher.png` });
  await page.keyboard.press("Escape");
  assert.deepEqual(wrong, []);

  // The watch is started again, and the page is back by itself.
  tweedle("testnet", "restart", "watch", "--dir", dir);
  await page.waitForFunction(() => document.getElementById("age").textContent === "live" && /the watch looks at/.test(document.getElementById("log-rows").textContent), null, { timeout: patience });
});
