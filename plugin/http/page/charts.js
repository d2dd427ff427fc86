// The charts of the selected series: they share a window and a cursor, and are reloaded while the window ends now.

import { ask, SignedOut } from "./api.js";
import { byId, el, name } from "./dom.js";
import { Chart } from "./chart.js";
import { clockWithSeconds, length, moment, parseMoment, RANGES, span } from "./times.js";

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

  /** Make the charts those of the view, in its order, and load them. */
  async show() {
    const keys = this.view.keys.slice(0, MAX_CHARTS);
    for (const [key, chart] of this.shown) {
      if (!keys.includes(key)) {
        chart.remove();
        this.shown.delete(key);
      }
    }
    for (const key of keys) if (!this.shown.has(key)) this.shown.set(key, new Chart(key, this.actions));
    byId("charts").replaceChildren(...keys.map((key) => this.shown.get(key).element));
    byId("legend").hidden = !keys.length;
    await this.load();
  }

  /** Load the points of all charts; a later call aborts an earlier one. */
  async load() {
    this.loading?.abort();
    const { signal } = (this.loading = new AbortController());
    const { view } = this;
    const asked = this.#window();
    byId("charts").setAttribute("aria-busy", "true");
    try {
      await Promise.all([...this.shown.values()].map(async (chart) => {
        try {
          const points = await ask("points", { key: chart.key, worker_id: view.worker, ...asked }, signal);
          if (signal.aborted) return;
          chart.show(points, view);
          this.#showChosen();
        } catch (error) {
          if (error.name === "AbortError" || error instanceof SignedOut) throw error;
          chart.fail(error.message);
        }
      }));
      this.#tellWindow();
      await this.#loadMarks(signal);
    } catch (error) {
      if (error.name !== "AbortError" && !(error instanceof SignedOut)) byId("charts-problem").textContent = error.message;
    } finally {
      if (!signal.aborted) byId("charts").removeAttribute("aria-busy");
    }
  }

  /** Show the loaded points again, as the view says now. */
  redraw() {
    for (const chart of this.shown.values()) if (chart.points) chart.show(chart.points, this.view);
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
    this.shown.forEach((chart) => chart.showChosen(chart.key === of ? parseMoment(at) : null));
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
    byId("charts-problem").textContent = "";
  }
}
