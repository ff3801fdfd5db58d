// The first frame is the HTML's. What makes it live comes when that is painted, or when it
// is not going to be: in a tab that nobody sees, or a browser that does not tell.
try { const t = localStorage.getItem("theme"); if (t) document.documentElement.dataset.theme = t; } catch { /* no storage: the system's */ }

let begun = false;
function begin() {
  if (begun) return;
  begun = true;
  import("./app.js");
}
try { new PerformanceObserver(begin).observe({ type: "paint", buffered: true }); } catch { begin(); }
setTimeout(begin, 300); // ms
