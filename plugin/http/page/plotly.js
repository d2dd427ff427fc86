// Draw charts with plotly, whose script is loaded from its Python package with the first chart.

import { timeTicks } from "./times.js";
import { number, ticks } from "./numbers.js";
import { color } from "./theme.js";
import { divided, drawnBy, reach, traces } from "./traces.js";

/** Space around the plotting area, pixels; the cursor and the marks lie over the same area. */
export const MARGIN = { l: 54, r: 10, t: 8, b: 22 };
export const HEIGHT = 168;

const SCRIPT = new URL("plotly.min.js", import.meta.url);
let loading;

/** Load plotly once; the error, if it is not installed, says what to do. */
export function loadPlotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = SCRIPT.href;
    script.onload = () => resolve(globalThis.Plotly);
    script.onerror = async () => {
      const answer = await fetch(SCRIPT).catch(() => null);
      reject(new Error(answer && !answer.ok ? await answer.text() : "plotly's script can't be loaded"));
    };
    document.head.append(script);
  });
  return loading;
}

/** Draw the lines of a series into *element*, *width* pixels wide; plotly handles no pointer events. */
export async function draw(element, points, shown, width) {
  const Plotly = await loadPlotly();
  const [from, to] = [Date.parse(points.since), Date.parse(points.until)];
  const by = drawnBy(shown);
  const drawn = divided(shown, by);
  const [low, high] = reach(drawn);
  const unit = shown[0].unit ?? points.unit;
  const vertical = ticks(low, high);
  const horizontal = timeTicks(from, to, Math.max(2, Math.floor(width / 80)));
  const axis = { fixedrange: true, zeroline: false, showline: false, tickfont: { color: color("quiet"), size: 11 } };
  await Plotly.react(element, traces(points, drawn), {
    width, height: HEIGHT, margin: { ...MARGIN, pad: 0 }, barmode: "overlay",
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif" }, hovermode: false, showlegend: false,
    xaxis: {
      // Not "date": plotly places milliseconds by the browser's own clock, where it is put back two hours on one spot.
      ...axis, type: "linear", range: [from, to], showgrid: false, tickmode: "array",
      tickvals: horizontal.map(([at]) => at), ticktext: horizontal.map(([, text]) => text),
    },
    yaxis: { ...axis, range: [0, 1], visible: false },
    yaxis2: {
      ...axis, overlaying: "y", side: "left", range: [low, high], gridcolor: color("grid"), tickmode: "array",
      tickvals: vertical, ticktext: vertical.map((value) => (by === 1 ? number(value, unit) : `${Number(value.toPrecision(3))}e${Math.round(Math.log10(by))}`)),
    },
    shapes: points.buckets.filter((bucket) => bucket.partial).map((bucket) => ({
      type: "rect", layer: "below", xref: "x", yref: "paper", y0: 0, y1: 1, x0: Date.parse(bucket.at),
      x1: Date.parse(bucket.at) + points.width_s * 1_000, fillcolor: color("partial"), line: { width: 0 },
    })),
  }, { staticPlot: true, displayModeBar: false, responsive: false });
}
