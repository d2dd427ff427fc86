// The view as the address holds it: the same address shows the same view.

import { parseMoment, RANGES } from "./times.js";

/** How each table of the overview is put in order where the address does not say: "-" is descending. */
export const ORDERS = { queues: "-depth", functions: "-failed", workers: "-seen_at" };
const ONE_OF = {
  view: ["overview", "charts", "events"],
  range: Object.keys(RANGES),
  resolution: ["auto", "1min", "5min", "1hour", "1day"],
  counters: ["count", "rate", "share"],
  histograms: ["percentiles", "spread", "count", "rate"],
  charts: ["each", "together"],
};
const DEFAULTS = { range: "24h", resolution: "auto", counters: "count", histograms: "percentiles", charts: "each" };
const TEXTS = ["worker", "of", "at", "width", "job", "find", ...Object.keys(ORDERS)];
export const FILTERS = ["kind", "prefix", "key", "func", "queue", "state", "worker_id", "error"];
const MOMENTS = ["since", "until"];

/** What is shown where the address does not say: charts if it has any. */
const usual = (view) => (view.keys.length || view.since !== null ? "charts" : "overview");

/** Parse a view from the query of an address; values that are not allowed become defaults. */
export function parse(query) {
  const given = new URLSearchParams(query);
  const view = { ...DEFAULTS, keys: [...new Set(given.getAll("key"))], filters: {} };
  for (const [name, allowed] of Object.entries(ONE_OF)) {
    if (allowed.includes(given.get(name))) view[name] = given.get(name);
  }
  for (const name of TEXTS) view[name] = given.get(name) ?? "";
  for (const name of FILTERS) if (given.get(`event_${name}`)) view.filters[name] = given.get(`event_${name}`);
  for (const name of MOMENTS) view[name] = parseMoment(given.get(name) ?? "");
  if (view.since === null || view.until === null || view.since >= view.until) view.since = view.until = null;
  view.view ??= usual(view);
  return view;
}

/** Write a view as the query of an address; defaults are left out. */
export function write(view) {
  const query = new URLSearchParams();
  for (const key of view.keys) query.append("key", key);
  for (const name of Object.keys(ONE_OF)) if (view[name] !== (DEFAULTS[name] ?? usual(view))) query.set(name, view[name]);
  for (const name of TEXTS) if (view[name]) query.set(name, view[name]);
  for (const name of FILTERS) if (view.filters[name]) query.set(`event_${name}`, view.filters[name]);
  if (view.since !== null) for (const name of MOMENTS) query.set(name, new Date(view[name]).toISOString());
  return query.toString();
}
