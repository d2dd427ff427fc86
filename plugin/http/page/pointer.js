// Mouse, touch and keyboard on a chart: they move the shared cursor, zoom, and explain a bucket.

import { MARGIN } from "./plotly.js";

/** Pixels a pointer may move between down and up and still be a click. */
const STILL = 5;

/** Let pointer and keyboard act on *chart*. */
export function followPointer(chart, actions) {
  let from = null;
  const { plot } = chart;

  plot.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !chart.points) return;
    from = event.clientX;
    plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointermove", (event) => {
    if (!chart.points) return;
    actions.cursor(chart.momentAt(event.clientX));
    if (from !== null) select(chart, from, event.clientX);
  });
  plot.addEventListener("pointerup", (event) => {
    if (from === null) return;
    const [left, right] = [Math.min(from, event.clientX), Math.max(from, event.clientX)];
    end();
    if (right - left <= STILL) actions.explain(chart, chart.indexOf(chart.momentAt(event.clientX)));
    else actions.zoom(chart.momentAt(left), chart.momentAt(right));
  });
  plot.addEventListener("pointercancel", end);
  plot.addEventListener("pointerleave", () => from === null && document.activeElement !== plot && actions.cursor(null));
  plot.addEventListener("blur", () => actions.cursor(null));
  plot.addEventListener("keydown", (event) => press(chart, actions, event) && event.preventDefault());

  function end() {
    from = null;
    chart.selection.hidden = true;
  }
}

function select(chart, from, to) {
  const box = chart.plot.getBoundingClientRect();
  const inside = (x) => Math.min(Math.max(x - box.left, MARGIN.l), box.width - MARGIN.r) - MARGIN.l;
  chart.selection.hidden = Math.abs(to - from) <= STILL;
  chart.selection.style.left = `${inside(Math.min(from, to))}px`;
  chart.selection.style.width = `${inside(Math.max(from, to)) - inside(Math.min(from, to))}px`;
}

/** Do what a key asks for; whether it asked for anything. */
function press(chart, actions, event) {
  if (!chart.points?.buckets.length || event.ctrlKey || event.metaKey || event.altKey) return false;
  if (event.key === "Escape") {
    if (chart.index === null) return false;
    actions.cursor(null);
    return true;
  }
  const last = chart.starts.length - 1;
  const index = chart.index ?? last + 1;
  const step = event.shiftKey ? 10 : 1;
  const goes = {
    ArrowLeft: index - step, ArrowDown: index - step, ArrowRight: index + step, ArrowUp: index + step,
    PageDown: index - 10, PageUp: index + 10, Home: 0, End: last,
  };
  if (event.key in goes) {
    actions.cursor(chart.starts[Math.min(Math.max(goes[event.key], 0), last)]);
    return true;
  }
  if (event.key === "Enter" || event.key === " ") {
    if (chart.index !== null) actions.explain(chart, chart.index);
    return true;
  }
  if (event.key === "+" || event.key === "-") {
    const [since, until] = [chart.starts[0], Date.parse(chart.points.until)];
    const middle = chart.starts[chart.index ?? Math.floor(last / 2)];
    const half = ((until - since) / 2) * (event.key === "+" ? 0.5 : 2);
    actions.zoom(middle - half, middle + half);
    return true;
  }
  return false;
}
