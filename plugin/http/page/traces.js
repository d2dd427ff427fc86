// Turn the points of a series into lines, and lines into plotly's traces; pure functions.

import { color } from "./theme.js";

const MAX_MARKED = 90;
/** Colors of lines in one chart; more lines are dotted. */
const HUES = 6;
const STATES = [["succeeded", "good"], ["completed", "good"], ["failed", "bad"], ["retrying", "warn"]];

/** The lines of a series: what the readout, the table and the chart show of it; *sums* are those of all counters shown. */
export function lines(points, choice, sums = []) {
  const { buckets, type } = points;
  const of = (field) => buckets.map((bucket) => bucket[field] ?? null);
  if (type === "gauge") return [{ name: "last", values: of("last"), style: "line", hue: "gauge" }];
  const counted = type === "counter" ? "sum" : "count";
  const how = type === "counter" ? choice.counters : choice.histograms;
  const bar = { style: "bar", hue: hueOf(points), unit: "count" };
  if (how === "count") return [{ ...bar, name: "count", values: of(counted), adds: true }];
  if (how === "rate") return [{ ...bar, name: "per second", values: rates(points, counted) }];
  if (how === "share") return [{ ...bar, name: "share", values: of("sum").map((sum, index) => (sum !== null && sums[index] ? sum / sums[index] : null)), unit: "share" }];
  if (how === "percentiles") {
    return [
      { name: "p50", values: of("p50"), style: "line", hue: "p50" },
      { name: "p95", values: of("p95"), style: "band", above: of("p50"), hue: "p95" },
      { name: "p99", values: of("p99"), style: "band", above: of("p95"), hue: "p99" },
      ...averages(buckets),
      { name: "count", values: of("count"), style: "none", unit: "count" },
    ];
  }
  return [
    { name: "avg", values: of("avg"), style: "line", hue: "p50" },
    { name: "min", values: of("min"), style: "none" },
    { name: "max", values: of("max"), style: "band", above: of("min"), hue: "p99" },
    { name: "count", values: of("count"), style: "none", unit: "count" },
  ];
}

/** One line for each of several series of one type and unit: of histograms p95, or the average. */
export function together(several, choice, sums) {
  const states = several.map(hueOf);
  const areStates = !states.includes("counter") && new Set(states).size === states.length;
  return several.map((points, index) => {
    const all = lines(points, choice, sums);
    const main = all.find((line) => line.name === "p95") ?? all[0];
    return {
      ...main, name: several.length > 1 && main.name === "p95" ? `${points.key}, p95` : points.key, key: points.key, style: "line",
      hue: areStates ? states[index] : `series-${index % HUES}`, dash: index < HUES ? "solid" : "dot",
    };
  });
}

/** The sum of several counters in each bucket. */
export function sumsOf(counters) {
  const [first] = counters;
  return first ? first.buckets.map((_, index) => counters.reduce((sum, { buckets }) => sum + (buckets[index]?.sum ?? 0), 0)) : [];
}

/** The line of the buckets of which no percentiles are known, as imported ones are; none if there are no such buckets. */
function averages(buckets) {
  const values = buckets.map((bucket) => (bucket.p50 === undefined ? bucket.avg ?? null : null));
  return values.some((value) => value !== null) ? [{ name: "avg", values, style: "line", hue: "counter" }] : [];
}

/** Values per second; of the bucket that is still filling, per second of it that has passed. */
function rates(points, field) {
  const now = Date.parse(points.generated_at);
  return points.buckets.map((bucket) => {
    const value = bucket[field];
    if (value === undefined) return null;
    const passed_s = bucket.partial ? Math.max(1, (now - Date.parse(bucket.at)) / 1_000) : points.width_s;
    return value / Math.min(passed_s, points.width_s);
  });
}

const hueOf = (points) => STATES.find(([state]) => points.key.endsWith(`:${state}`))?.[1] ?? "counter";

/** What values are divided by to be drawn: plotly leaves out, or can't scale, what is near the ends of float64. */
export function drawnBy(shown) {
  const peak = shown.flatMap((line) => line.values).reduce((most, value) => Math.max(most, Math.abs(value ?? 0)), 0);
  const isPlain = peak === 0 || (peak > 1e-290 && peak < 1e290);
  return isPlain ? 1 : Math.max(10 ** Math.floor(Math.log10(peak)), Number.MIN_VALUE);
}

/** The lines with every value divided. */
export const divided = (shown, by) => (by === 1 ? shown : shown.map((line) => ({
  ...line, values: line.values.map((one) => one && one / by), above: line.above?.map((one) => one && one / by),
})));

/** Lowest and highest value on the axis, with some room; from 0 where nothing lies below it. */
export function reach(shown) {
  const values = shown.filter((line) => line.style !== "none").flatMap((line) => line.values.concat(line.above ?? []))
    .filter((value) => value !== null);
  if (!values.length) return [0, 1];
  const low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  if (low >= 0) return [0, high * 1.08 || 1];
  const room = (high - low) * 0.08 || Math.abs(high) * 0.08 || 1;
  return [low - room, Math.max(high + room, 0)];
}

/** Plotly's traces: hatched ranges in which nothing was recorded first, then the lines over them. */
export function traces(points, shown) {
  const width = points.width_s * 1_000;
  const starts = points.buckets.map((bucket) => Date.parse(bucket.at));
  const partial = points.buckets.map((bucket) => Boolean(bucket.partial));
  const drawn = shown.filter((line) => line.style !== "none");
  return [
    missing(points.buckets, starts, width),
    ...drawn.toReversed().flatMap((line) =>
      line.style === "bar" ? [bars(line, starts, width, partial)]
      : line.style === "band" ? [band(line, starts, width), ...edge(line, starts, width, partial)]
      : edge(line, starts, width, partial)),
    zeros(drawn[0], starts, width),
  ];
}

const base = { showlegend: false, hoverinfo: "skip", yaxis: "y2" };

/** One hatched bar for each run of buckets that ended without anything in the log, from top to bottom. */
function missing(buckets, starts, width) {
  const runs = [];
  buckets.forEach((bucket, index) => {
    if (!bucket.missing || bucket.partial) return;
    const last = runs.at(-1);
    if (last && last[0] + last[1] === starts[index]) last[1] += width;
    else runs.push([starts[index], width]);
  });
  return {
    ...base, type: "bar", yaxis: "y", x: runs.map(([at]) => at), y: runs.map(() => 1), offset: 0,
    width: runs.map(([, length]) => length),
    marker: {
      color: "rgba(0,0,0,0)", line: { width: 0 },
      pattern: { shape: "/", size: 6, solidity: 0.18, fgcolor: color("hatch"), bgcolor: "rgba(0,0,0,0)" },
    },
  };
}

function bars(line, starts, width, partial) {
  return {
    ...base, type: "bar", x: starts, y: line.values, offset: width * 0.06, width: width * 0.88,
    marker: { color: color(line.hue), opacity: partial.map((is) => (is ? 0.45 : 0.9)), line: { width: 0 } },
  };
}

/** The area between two lines, run by run: where nothing was observed there is none. */
function band(line, starts, width) {
  const x = [], y = [];
  for (const run of runsOf(line.values)) {
    const at = run.map((index) => starts[index] + width / 2);
    const [up, down] = [run.map((index) => line.values[index]), run.map((index) => line.above[index])];
    if (run.length === 1) {
      at.splice(0, 1, at[0] - width * 0.3, at[0] + width * 0.3);
      up.push(up[0]);
      down.push(down[0]);
    }
    x.push(...at, ...at.toReversed(), null);
    y.push(...up, ...down.toReversed(), null);
  }
  return { ...base, type: "scatter", mode: "none", x, y, fill: "toself", fillcolor: color(`${line.hue}-fill`) };
}

/** A line through the middle of each bucket; to the bucket that is still filling it is dotted. */
function edge(line, starts, width, partial) {
  const runs = runsOf(line.values);
  const alone = new Set(runs.filter((run) => run.length === 1).map(([index]) => index));
  const marked = (index) => starts.length <= MAX_MARKED || alone.has(index);
  const x = starts.map((at) => at + width / 2);
  const stroke = { color: color(line.hue), width: line.style === "band" ? 1 : 1.8, dash: line.dash };
  const solid = {
    ...base, type: "scatter", mode: "lines+markers", connectgaps: false, x,
    y: line.values.map((value, index) => (partial[index] ? null : value)), line: stroke,
    marker: { color: stroke.color, size: x.map((_, index) => (line.style === "line" && marked(index) ? 5 : 0)) },
  };
  const last = partial.indexOf(true);
  if (last < 0 || line.values[last] === null) return [solid];
  const from = line.values[last - 1] === undefined || line.values[last - 1] === null ? last : last - 1;
  const dotted = {
    ...base, type: "scatter", mode: "lines+markers", x: x.slice(from, last + 1), y: line.values.slice(from, last + 1),
    line: { ...stroke, dash: "dot" },
    marker: { symbol: "circle-open", color: stroke.color, size: [...Array(last - from).fill(0), 7] },
  };
  return [solid, dotted];
}

/** A flat line where bars are 0: others were recorded then, and nothing of this series. */
function zeros(line, starts, width) {
  const of = line.style === "bar" ? runsOf(line.values.map((value) => (value === 0 ? 0 : null))) : [];
  const x = of.flatMap((run) => [starts[run[0]], starts[run.at(-1)] + width, null]);
  return {
    ...base, type: "scatter", mode: "lines", x, y: x.map((at) => (at === null ? null : 0)), cliponaxis: false,
    line: { color: color(line.hue), width: 2 },
  };
}

function runsOf(values) {
  const runs = [];
  values.forEach((value, index) => {
    if (value === null) return;
    if (index && values[index - 1] !== null && runs.length) runs.at(-1).push(index);
    else runs.push([index]);
  });
  return runs;
}
