// The page over made-up networks, in a browser.
import { createServer } from "node:http";
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { after, before, test } from "node:test";
import { axe, launch, open, program, until } from "./browser.mjs";

const fixture = process.env.PAGE_FIXTURE;
const shots = process.env.PAGE_SHOTS; // a folder for screenshots, if they are wanted
const patience = 120_000; // the machine may be busy
const timed = process.env.TWEEDLE_NIGHTLY; // the machine is quiet: times are judged too

let browser, served, url;
before(async () => { browser = await launch(); served = program(fixture); url = await served.url; });
after(async () => { await browser?.close(); await served?.stop(); });

const scene = (name, nodes = 5, more = {}) => fetch(`${url}/scene`, { method: "POST", body: new URLSearchParams({ scene: name, nodes, ...more }) });

const verdicts = {
  well: "All is well", empty: "Nothing is watched yet", before: "Before genesis", early: "All is well",
  warned: "It works, with warnings", incident: "The network stands still", forked: "Something is broken",
};

const looks = [["light", 1440], ["dark", 1440], ["light", 768], ["dark", 390]];

for (const [name, nodes, of] of [...Object.keys(verdicts).map((n) => [n, 5, looks]), ["well", 1, looks.slice(3)], ["warned", 30, looks.slice(2, 3)], ["well", 500, looks.slice(0, 1)], ["incident", 500, looks.slice(1, 2)]]) {
  test(`${name}, ${nodes} nodes: it is told, and reachable for everybody`, async () => {
    await scene(name, nodes);
    for (const [colorScheme, width] of of) {
      const { page, wrong, close } = await open(browser, url, { colorScheme, viewport: { width, height: 900 } });
      await page.waitForFunction((v) => document.getElementById("verdict-text").textContent === v && document.querySelectorAll("#chain li").length === 7, verdicts[name]);
      assert.deepEqual(await axe(page), [], `${colorScheme}, ${width} wide`);
      assert.deepEqual(wrong, [], `${colorScheme}, ${width} wide`);
      const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(wider, 0, `${width} wide: the page scrolls sideways`);
      if (shots) { mkdirSync(shots, { recursive: true }); await page.screenshot({ path: `${shots}/${name}-${nodes}-${width}-${colorScheme}.png`, fullPage: nodes < 500 }); }
      await close();
    }
  });
}

test("shapes and words say what colours say", async () => {
  await scene("incident");
  const { page, close } = await open(browser, url);
  await page.waitForSelector("#chain .bad");
  const words = await page.$$eval("#chain svg", (all) => all.map((s) => s.getAttribute("aria-label")));
  assert.deepEqual(words, ["broken", "well", "broken", "well", "broken", "well", "well"]);
  const shapes = await page.$$eval("#chain svg", (all) => all.map((s) => [s.firstChild.tagName, s.firstChild.getAttribute("d")].join()));
  assert.notEqual(shapes[0], shapes[1]);
  await page.click("#grid-table summary");
  const table = await page.$eval("#grid-table table", (t) => t.innerText);
  assert.match(table, /node does not answer/);
  assert.match(table, /late: not applied/);
  await close();
});

test("the keyboard reaches every cell, and a node from it", async () => {
  await scene("forked");
  const { page, wrong, close } = await open(browser, url);
  await page.waitForSelector("#grid:not([hidden])");
  await page.focus("#grid");
  for (const k of ["End", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowLeft", "ArrowLeft"]) await page.keyboard.press(k);
  assert.match(await page.textContent("#grid-read"), /^layer \d+, node-3: differs from most \(block \w+, state \w+; most have block \w+, state \w+\)$/);
  await page.keyboard.press("Home");
  assert.match(await page.textContent("#grid-read"), /^layer \d+, node-3: /);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#smesher[open]");
  assert.match(await page.textContent("#smesher-title"), /The smesher of node-3/);
  await page.keyboard.press("Escape");
  await page.waitForSelector("#smesher:not([open])", { state: "attached" });
  assert.deepEqual(wrong.filter((w) => !/404/.test(w)), []); // the made-up node has no smesher to ask
  await close();
});

test("a crash leads to its report, a line of the log to its place and its call", async () => {
  await scene("warned");
  const { page, wrong, close } = await open(browser, url);
  await page.waitForSelector('#nodes-rows a[href^="/crash/"]');
  const cells = await page.$$eval("#nodes-rows tr:nth-child(3) td", (all) => all.map((td) => td.textContent));
  assert.equal(cells.length, await page.$$eval("#nodes thead th", (all) => all.length));
  assert.deepEqual([cells[7], cells[8], cells[10]], ["0.30", "63.3 GiB", "2"]);
  assert.match(cells[11], /^panic of the crash of node-3 .+ ago/);
  assert.match(await page.textContent("#nodes-rows tr:nth-child(2) td:nth-child(9)"), /^64\.3 GiB, full in 9\.0 h$/);
  assert.match(await page.textContent("#versions"), /^Version: v0\.9\.0\.$/);
  const res = await fetch(url + await page.getAttribute("#nodes-rows tr:nth-child(3) td:last-child a", "href"));
  assert.match(res.headers.get("content-type"), /^text\/plain/);
  assert.match(await res.text(), /^node-3 died at .*exit status 2.*applied a layer.*session\.go:71/s);
  const line = '#log-rows li:has(a[href^="/crash/"])';
  assert.match(await page.textContent(line), /node-3/);
  assert.equal(await page.getAttribute(`${line} a.who`, "href"), "#smesher/node-3");
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"], { origin: url });
  await page.click(`${line} button`);
  await page.waitForFunction((l) => document.querySelector(l).textContent === "copied", `${line} button`);
  const call = await page.evaluate(() => navigator.clipboard.readText());
  assert.match(call, new RegExp(`^curl -s '${url}/crash/node-3-\\w+'$`));
  for (const path of ["/model/node/node-3", "/model/poet/poet-1", "/model/alerts", "/model/epochs", "/model/status"]) assert.equal((await fetch(url + path)).status, 200, path);
  assert.deepEqual(wrong, []);
  await close();
});

test("old data are not shown as if they were new, and it comes back by itself", async () => {
  await scene("well");
  const { page, close } = await open(browser, url);
  await page.waitForFunction(() => document.getElementById("age").textContent === "live");
  await scene("well", 5, { paused: 1 });
  await page.waitForSelector("#stale:not([hidden])", { timeout: 20_000 });
  assert.match(await page.textContent("#stale"), /^The watch does not answer: what you see is \d+ s old|^The watch does not answer: what you see is \d+\.\d s old/);
  assert.match(await page.textContent("#age"), /^data are /);
  assert.equal(await page.textContent("#verdict-text"), "Not known now");
  assert.equal(await page.getAttribute("#verdict-icon svg", "aria-label"), "unknown");
  if (shots) await page.screenshot({ path: `${shots}/disconnected.png` });
  const found = (await axe(page)).filter((l) => !l.startsWith("color-contrast")); // what is old is grey
  assert.deepEqual(found, []);
  await scene("warned");
  await page.waitForFunction(() => document.getElementById("age").textContent === "live" && document.getElementById("stale").hidden);
  await page.waitForFunction(() => document.getElementById("verdict-text").textContent === "It works, with warnings");
  await close();
});

test("what came with the HTML is old when nothing else comes, and is all there is without scripts", async () => {
  await scene("incident");
  const silent = await browser.newContext();
  const quiet = await silent.newPage();
  quiet.setDefaultTimeout(patience);
  await quiet.route("**/events", (r) => r.abort());
  await quiet.goto(url);
  await quiet.waitForSelector("#stale:not([hidden])");
  assert.equal(await quiet.textContent("#verdict-text"), "Not known now");
  assert.equal(await quiet.textContent("#verdict-why"), "It was, when the watch answered last: The network stands still");
  await silent.close();
  const { page, wrong, close } = await open(browser, url, { javaScriptEnabled: false });
  assert.equal(await page.textContent("#verdict-text"), "The network stands still");
  assert.equal(await page.textContent("#chain .bad:first-child b"), "broken:Nodes");
  assert.match(await page.textContent("noscript"), /It was so at \d\d:\d\d:\d\d UTC/);
  if (shots) await page.screenshot({ path: `${shots}/no-script.png` });
  assert.deepEqual(wrong, []);
  await close();
});

test("it connects again after the watch was restarted", async () => {
  const first = program(fixture), at = await first.url;
  const { page, close } = await open(browser, at);
  await page.waitForFunction(() => document.getElementById("age").textContent === "live");
  await first.stop();
  await page.waitForSelector("#stale:not([hidden])", { timeout: 20_000 });
  const second = program(fixture, [new URL(at).host]);
  assert.equal(await second.url, at);
  await page.waitForFunction(() => document.getElementById("age").textContent === "live" && document.getElementById("stale").hidden, null, { timeout: 20_000 });
  await close();
  await second.stop();
});

test("what changes something asks for the token, and a wrong one is said", async () => {
  await scene("incident");
  const { page, close } = await open(browser, url);
  await page.click('button[aria-label="Set the gateways of poet-1"]');
  await page.waitForSelector("#ask[open]");
  assert.deepEqual(await axe(page), []);
  assert.equal((await page.inputValue("#ask textarea")).split("\n").length, 5);
  await page.fill('#ask input[name="token"]', "not the token");
  await page.click('#ask button[type="submit"]');
  await page.waitForFunction(() => /token/.test(document.querySelector("#ask .error").textContent));
  if (shots) await page.screenshot({ path: `${shots}/ask.png` });
  await page.keyboard.press("Escape");
  await page.click('button[aria-label="Silence NetworkStalled "]');
  assert.deepEqual(await axe(page), []);
  await page.click('#ask button:has-text("Cancel")');
  await close();
});

test("nothing of a network's words becomes HTML, and no other site's script runs", async () => {
  const { page, close } = await open(browser, url);
  const blocked = await page.evaluate(async () => {
    const tries = {};
    try { document.body.innerHTML += "<img src=x>"; tries.html = "ran"; } catch { tries.html = "blocked"; }
    try { setTimeout("globalThis.late = true", 0); } catch { /* as it should */ }
    await new Promise((r) => setTimeout(r, 50));
    tries.code = globalThis.late ? "ran" : "blocked";
    const s = document.createElement("script");
    try { s.textContent = "globalThis.ran = true"; document.head.append(s); } catch { /* as it should */ }
    tries.inline = globalThis.ran ? "ran" : "blocked";
    try { await fetch("http://127.0.0.1:1/"); tries.connect = "ran"; } catch { tries.connect = "blocked"; }
    return tries;
  });
  assert.deepEqual(blocked, { html: "blocked", code: "blocked", inline: "blocked", connect: "blocked" });
  await close();
});

// Processor time of the longest task, in ms: what the tests' machine does besides does not count.
async function longest(page, seconds) {
  const client = await page.context().newCDPSession(page);
  const tasks = [];
  client.on("Tracing.dataCollected", ({ value }) => tasks.push(...value.filter((e) => e.name === "RunTask" && e.tdur !== undefined)));
  const names = new Map();
  client.on("Tracing.dataCollected", ({ value }) => value.filter((e) => e.name === "thread_name").forEach((e) => names.set(`${e.pid}/${e.tid}`, e.args.name)));
  await client.send("Tracing.start", { transferMode: "ReportEvents", traceConfig: { includedCategories: ["toplevel", "disabled-by-default-devtools.timeline", "devtools.timeline", "__metadata"] } });
  await page.waitForTimeout(seconds * 1000);
  const done = new Promise((resolve) => client.once("Tracing.tracingComplete", resolve));
  await client.send("Tracing.end");
  await done;
  const own = tasks.filter((e) => names.get(`${e.pid}/${e.tid}`) === "CrRendererMain");
  return { count: own.length, cpu: Math.max(0, ...own.map((e) => e.tdur)) / 1000, wall: Math.max(0, ...own.map((e) => e.dur ?? 0)) / 1000 };
}

test("500 nodes and 100 layers that change each second make no task of 50 ms", async (t) => {
  await scene("forked", 500);
  const { page, close } = await open(browser, url);
  await page.waitForFunction(() => document.getElementById("age").textContent === "live");
  await page.waitForTimeout(2000);
  const task = await longest(page, 12);
  t.diagnostic(`of ${task.count} tasks the longest took ${task.cpu.toFixed(1)} ms of processor time, and ${task.wall.toFixed(1)} ms by the clock`);
  assert.ok(task.count > 50, `only ${task.count} tasks were seen`);
  assert.ok(task.cpu < 50, `${task.cpu} ms of processor time`);
  if (timed) assert.ok(task.wall < 50, `${task.wall} ms by the clock`);
  await close();
});

// A browser that has just started a process for a page needs time of its own before it paints
// anything, on a busy machine more than 100 ms; so an empty page of the same headers is opened
// beside ours, and what ours takes longer is ours.
test("the page paints its first frame within 100 ms of what an empty one takes after its HTML", async (t) => {
  await scene("well", 5);
  const { headers } = await fetch(url);
  const kept = ["content-security-policy", "cross-origin-opener-policy", "cross-origin-resource-policy", "content-type"];
  const blank = createServer((_, answer) => {
    for (const k of kept) answer.setHeader(k, headers.get(k));
    answer.end("<!doctype html><title>empty</title><p>empty");
  });
  await new Promise((listens) => blank.listen(0, "127.0.0.1", listens));
  const times = { ours: [], empty: [] };
  for (let i = 0; i < 11; i++) {
    for (const [which, at] of [["ours", url], ["empty", `http://127.0.0.1:${blank.address().port}/`]]) {
      const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, reducedMotion: "reduce" });
      const page = await context.newPage();
      await page.goto(at);
      times[which].push(await until("a first paint", 10_000, () => page.evaluate(() => {
        const paint = performance.getEntriesByName("first-contentful-paint")[0], nav = performance.getEntriesByType("navigation")[0];
        return paint && paint.startTime - nav.responseEnd;
      })));
      await context.close();
    }
  }
  blank.close();
  const median = (all) => all.toSorted((a, b) => a - b)[5];
  for (const which in times) t.diagnostic(`${which}: ${median(times[which]).toFixed(0)} ms in the median of ${times[which].map((x) => x.toFixed(0)).join(", ")}`);
  if (timed) assert.ok(median(times.ours) - median(times.empty) < 100, `${median(times.ours)} ms, and an empty page ${median(times.empty)}`);
});
