// The charts of the selected series: they share a window and a cursor, and are reloaded while the window ends now.

import { ask, SignedOut } from "./api.js";
import { byId, el, name, visible } from "./dom.js";
import { Chart } from "./chart.js";
import { clockWithSeconds, length, moment, parseMoment, RANGES, span } from "./times.js";
import { lines, sumsOf, together } from "./traces.js";

export const MAX_CHARTS = 12;
const REFRESH_MS = 5_000;
const MAX_MARKS = 30;

export class Charts {
  /** *change*(changes, push) changes the view, *explain*(chart, index) explains a bucket. */
  constructor({ change, explain }) {
    this.change = change;
    this.view = null;
    this.resolutions = [];
    this.isStarted = false;
    this.keys = [];
    this.points = new Map();
    this.shown = new Map();
    this.loading = null;
    setInterval(() => this.#isLive() && this.load(), REFRESH_MS);
    this.actions = {
      remove: (key) => change({ keys: this.view.keys.filter((one) => one !== key) }, true),
      cursor: (at) => this.shown.forEach((chart) => chart.showCursor(at)),
      zoom: (from, to) => this.zoom(from, to),
      explain: (chart, index) => index >= 0 && explain(chart, index),
    };
  }

  /** Refresh the charts from now on; *resolutions* are those that the server keeps. */
  start(resolutions) {
    this.resolutions = resolutions;
    this.isStarted = true;
  }

  /** Refresh them no more. */
  stop() {
    this.isStarted = false;
  }

  /** Take over the view, and highlight the bucket that it explains. */
  follow(view) {
    this.view = view;
    this.#showChosen();
  }

  /** Load the series of the view, and show them. */
  async show() {
    this.keys = this.view.keys.slice(0, MAX_CHARTS);
    for (const key of this.points.keys()) if (!this.keys.includes(key)) this.points.delete(key);
    if (!this.#waitsForAll()) this.#arrange(this.keys.map((key) => [key, [key]]));
    byId("legend").hidden = !this.keys.length;
    await this.load();
  }

  /** Load the points of all series; a later call aborts an earlier one. */
  async load() {
    this.loading?.abort();
    const { signal } = (this.loading = new AbortController());
    const { view, keys } = this;
    const asked = this.#window();
    const failed = new Map();
    byId("charts").setAttribute("aria-busy", "true");
    try {
      await Promise.all(keys.map(async (key) => {
        try {
          const points = await ask("points", { key, worker_id: view.worker, ...asked }, signal);
          if (signal.aborted) return;
          this.points.set(key, points);
          if (!this.#waitsForAll()) this.shown.get(key)?.show(points, this.view);
          this.#showChosen();
        } catch (error) {
          if (error.name === "AbortError" || error instanceof SignedOut) throw error;
          this.points.delete(key);
          failed.set(key, error.message);
        }
      }));
      if (this.#waitsForAll()) this.redraw();
      for (const [key, message] of failed) this.shown.get(key)?.fail(message);
      this.#tellWindow();
      await this.#loadMarks(signal);
      byId("charts-problem").textContent = [...failed].filter(([key]) => !this.shown.has(key)).map(([, message]) => message).join(" ");
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof SignedOut)) byId("charts-problem").textContent = error.message;
    } finally {
      if (!signal.aborted) byId("charts").removeAttribute("aria-busy");
    }
  }

  /** Show the loaded points again, as the view says now. */
  redraw() {
    const { view } = this;
    const loaded = this.keys.map((key) => this.points.get(key)).filter(Boolean);
    const counters = loaded.filter((points) => points.type === "counter");
    const sums = view.counters === "share" ? sumsOf(counters) : [];
    if (view.charts === "each") {
      this.#arrange(this.keys.map((key) => [key, [key]]));
      for (const points of loaded) this.shown.get(points.key)?.show(points, view, lines(points, view, sums));
    } else {
      const groups = Object.groupBy(loaded, (points) => `${points.type}s in ${points.unit}`);
      this.#arrange(Object.entries(groups).map(([title, several]) => [title, several.map((points) => points.key)]));
      for (const [title, several] of Object.entries(groups)) this.shown.get(title).show(several[0], view, together(several, view, sums));
    }
    this.#showChosen();
  }

  /** Whether what is shown of one series depends on others. */
  #waitsForAll() {
    return this.view.charts === "together" || this.view.counters === "share";
  }

  /** Make the charts those of *wanted*, pairs of an id and keys, in this order; those that are there stay. */
  #arrange(wanted) {
    const ids = wanted.map(([id]) => id);
    for (const [id, chart] of this.shown) {
      if (ids.includes(id)) continue;
      chart.remove();
      this.shown.delete(id);
    }
    for (const [id] of wanted) {
      if (!this.shown.has(id)) this.shown.set(id, new Chart(id, this.actions, this.view.charts === "together" ? visible(id) : null));
    }
    const elements = ids.map((id) => this.shown.get(id).element);
    const there = [...byId("charts").children];
    if (elements.some((one, index) => one !== there[index]) || elements.length !== there.length) byId("charts").replaceChildren(...elements);
  }

  /** Show a window, widened to whole minutes. */
  zoom(from, to) {
    const since = Math.floor(from / 60_000) * 60_000;
    this.change({ since, until: Math.max(since + 60_000, Math.ceil(to / 60_000) * 60_000) }, true);
  }

  /** Show a window twice as long that ends by now. */
  zoomOut() {
    const [first] = this.shown.values();
    if (!first?.points) return;
    const [since, until] = [Date.parse(first.points.since), Date.parse(first.points.until)];
    const half = (until - since) / 2;
    const end = Math.min(until + half, Date.parse(first.points.generated_at));
    this.zoom(end - 4 * half, end);
  }

  /** Highlight the bucket that is explained, in the chart of its series. */
  #showChosen() {
    const { of, at } = this.view;
    this.shown.forEach((chart) => chart.showChosen(chart.has(of) ? parseMoment(at) : null));
  }

  #isLive() {
    const { view } = this;
    return this.isStarted && view?.view === "charts" && view.since === null && !document.hidden && this.shown.size;
  }

  /** The window to ask for, at the view's resolution or the finest that keeps it and has at most 400 buckets. */
  #window() {
    const { view, resolutions } = this;
    const [length_ms] = RANGES[view.range];
    const now = Date.now();
    const [since, until] = view.since === null ? [now - length_ms, now] : [view.since, view.until];
    const readable = resolutions.filter((one) => (until - since) / 1_000 / one.width_s <= 400);
    const kept = readable.filter((one) => since >= now - (one.kept_s + 2 * one.width_s) * 1_000);
    const fitting = kept[0] ?? readable.at(-1) ?? resolutions.at(-1);
    const resolution = view.resolution === "auto" ? fitting.name : view.resolution;
    if (view.since === null) return { resolution, range: length_ms / 1_000 };
    return { resolution, since: new Date(since).toISOString(), until: new Date(until).toISOString() };
  }

  #tellWindow() {
    const loaded = [...this.shown.values()].find((chart) => chart.points)?.points;
    const note = byId("window");
    if (!loaded) return note.replaceChildren();
    const [since, until] = [Date.parse(loaded.since), Date.parse(loaded.until)];
    const { view } = this;
    const asked = view.since ?? Date.now() - RANGES[view.range][0];
    const kept = Date.parse(loaded.kept_since);
    const cut = asked + loaded.width_s * 1_000 < kept ? ` ${loaded.resolution} buckets are kept since ${moment(kept)} only.` : "";
    const worker = view.worker ? [" Only worker ", name(view.worker), "."] : [];
    note.replaceChildren(
      `${span(since, until)}, ${loaded.buckets.length} buckets of ${loaded.resolution} (${length(until - since)}).${cut}`,
      ...worker,
      view.since === null ? ` As of ${clockWithSeconds(Date.parse(loaded.generated_at))}.` : "",
    );
  }

  async #loadMarks(signal) {
    const loaded = [...this.shown.values()].filter((chart) => chart.points);
    if (!loaded.length) return;
    const { since, until } = loaded[0].points;
    const { marks } = await ask("marks", { since, until, limit: MAX_MARKS }, signal);
    for (const chart of loaded) chart.showMarks(marks);
    byId("marks").hidden = !marks.length;
    byId("marks-list").replaceChildren(
      ...marks.map((mark) => el("li", {}, el("time", { datetime: mark.at, text: moment(Date.parse(mark.at)) }), " ", name(mark.text))),
    );
  }
}
