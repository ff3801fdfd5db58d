import * as live from "./live.js";
import { $ } from "./dom.js";
import * as views from "./views.js";
import * as lists from "./lists.js";
import * as grid from "./grid.js";
import * as smesher from "./smesher.js";

// Which view shows which keys.
const shows = [
  [(k) => k === "status" || k === "chain", views.verdict],
  [(k) => k === "epochs", views.epochs],
  [(k) => k === "order" || k.startsWith("layer/"), grid.update],
  [(k) => k === "order" || k.startsWith("poet/"), lists.poets],
  [(k) => k === "alerts", lists.alerts],
  [(k) => k === "order" || k === "programs" || k.startsWith("node/"), lists.nodes],
  [(k) => k.startsWith("event/"), lists.log],
];

live.onChange((keys) => {
  const all = [...keys];
  for (const [wants, show] of shows) if (all.some(wants)) show();
});

const tickEvery = 500; // ms
setInterval(() => { views.clock(); lists.ticks(); }, tickEvery);

// The theme is the system's until somebody chooses, see main.js.
const theme = $("theme");
const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
function label() { theme.textContent = dark() ? "Light" : "Dark"; grid.restyle(); }
theme.addEventListener("click", () => {
  const t = dark() ? "light" : "dark";
  document.documentElement.dataset.theme = t;
  try { localStorage.setItem("theme", t); } catch { /* it holds for this page */ }
  label();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
label();

$("rest").hidden = false; // the first frame is painted, see main.js
lists.start();
grid.start();
smesher.start();
live.begin();
live.connect();
