// A row of small bars, one a bucket: of what the log holds nothing is shaded.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 90, HEIGHT = 20;

/** Bars for *counts*, of which null is unknown; the numbers beside it say the same to a screen reader. */
export function sparkline(counts) {
  const most = Math.max(1, ...counts.map((count) => count ?? 0));
  const step = WIDTH / counts.length;
  const bar = (at, height, width = step * 0.86) => `M${(at * step).toFixed(2)} ${HEIGHT}v${(-height).toFixed(2)}h${width.toFixed(2)}v${height.toFixed(2)}z`;
  const path = (how, draw) => {
    const made = document.createElementNS(SVG, "path");
    made.setAttribute("class", how);
    made.setAttribute("d", counts.map(draw).join(""));
    return made;
  };
  const svg = document.createElementNS(SVG, "svg");
  for (const [attribute, value] of Object.entries({ width: WIDTH, height: HEIGHT, viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "sparkline", "aria-hidden": "true" })) svg.setAttribute(attribute, value);
  svg.append(
    path("known", (count, at) => (count === null ? "" : bar(at, count ? Math.max(1.5, (count / most) * HEIGHT) : 0.75))),
    path("unknown", (count, at) => (count === null ? bar(at, HEIGHT, step) : "")),
  );
  return svg;
}
