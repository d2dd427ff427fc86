// A row of small bars, one a bucket: of what the log holds nothing is shaded.

import { byId } from "./dom.js";

const WIDTH = 72, HEIGHT = 20; // as the template in index.html has it

/** Bars for *counts*, of which null is unknown; the numbers beside it say the same to a screen reader. */
export function sparkline(counts) {
  const most = Math.max(1, ...counts.map((count) => count ?? 0));
  const step = WIDTH / counts.length;
  const bar = (at, height, width = step * 0.86) => `M${(at * step).toFixed(2)} ${HEIGHT}v${(-height).toFixed(2)}h${width.toFixed(2)}v${height.toFixed(2)}z`;
  const drawn = byId("sparkline").content.firstElementChild.cloneNode(true);
  const [known, unknown] = drawn.children;
  known.setAttribute("d", counts.map((count, at) => (count === null ? "" : bar(at, count ? Math.max(1.5, (count / most) * HEIGHT) : 0.75))).join(""));
  unknown.setAttribute("d", counts.map((count, at) => (count === null ? bar(at, HEIGHT, step) : "")).join(""));
  return drawn;
}
