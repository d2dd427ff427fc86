// The overview: what each queue, function and worker did in a range that ends now, in tables that lead to the charts.

import { ask, SignedOut } from "./api.js";
import { reasons } from "./beginning.js";
import { announce, debounced, el } from "./dom.js";
import { OverviewTable } from "./overview-table.js";
import { clockWithSeconds, rangeSince, RANGES, span } from "./times.js";

/** Between two loads; while there is nothing; and a load may take this share of the time. */
const REFRESH_MS = 10_000, EMPTY_MS = 1_000, SHARE = 0.1;

export class Overview {
  /** Build it into *root*; *change*(changes, push) changes the view. */
  constructor(root, { change }) {
    this.root = root;
    this.change = change;
    this.view = null;
    this.isStarted = false;
    this.wanted = null;
    this.#build();
  }

  /** Load the tables from now on, while this view is shown; *fits*: choose a range that fits what is recorded. */
  start({ fits }) {
    this.isStarted = true;
    this.fits = fits;
  }

  /** Load them no more. */
  stop() {
    this.isStarted = false;
    clearTimeout(this.timer);
  }

  /** Show the tables of the view; load them if it asks for others. */
  async show(view) {
    this.view = view;
    this.range.value = view.range;
    if (document.activeElement !== this.find) this.find.value = view.find;
    clearTimeout(this.timer);
    if (view.view !== "overview" || !this.isStarted) return;
    for (const one of this.tables) one.follow(view);
    await this.load();
  }

  /** Load all tables, and again after a while. */
  async load() {
    clearTimeout(this.timer);
    this.loading?.abort();
    const { signal } = (this.loading = new AbortController());
    const began = performance.now();
    let isEmpty = true;
    this.root.setAttribute("aria-busy", "true");
    try {
      const range = RANGES[this.view.range][0] / 1_000;
      const pages = await Promise.all(this.tables.map((one) => ask("overview", { range, ...one.asked(this.view) }, signal)));
      if (signal.aborted) return;
      isEmpty = !pages.some((page) => page.table !== "workers" && page.matching) && !this.view.find;
      if (this.#fit(pages[0])) return;
      pages.forEach((page, index) => this.tables[index].show(page, this.view));
      this.#tell(pages[0]);
      await this.#explain(pages[0], isEmpty, signal);
      this.problem.textContent = "";
    } catch (error) {
      if (error.name === "AbortError" || error instanceof SignedOut) return;
      this.problem.textContent = error.message;
    } finally {
      if (!signal.aborted) this.root.removeAttribute("aria-busy");
    }
    this.timer = setTimeout(() => this.#reload(), isEmpty ? EMPTY_MS : Math.max(REFRESH_MS, (performance.now() - began) / SHARE));
  }

  #reload() {
    if (document.hidden) this.timer = setTimeout(() => this.#reload(), EMPTY_MS);
    else if (this.isStarted && this.view.view === "overview") this.load();
  }

  /** Choose the shortest range that has all that is recorded, once and if the address names none. */
  #fit(page) {
    if (!this.fits || !page.recorded_since) return false;
    this.fits = false;
    const fitting = rangeSince(Date.parse(page.recorded_since));
    if (RANGES[fitting][0] >= RANGES[this.view.range][0]) return false;
    this.change({ range: fitting }, false);
    return true;
  }

  #tell(page) {
    const [since, until] = [page.since, page.until].map((at) => Date.parse(at));
    this.window.textContent = `${span(since, until)}, in buckets of ${page.resolution}. As of ${clockWithSeconds(Date.parse(page.generated_at))}.`;
  }

  /** Say why there is nothing, if there is nothing. */
  async #explain(page, isEmpty, signal) {
    for (const one of this.tables) one.element.hidden = isEmpty;
    if (!isEmpty) {
      if (!this.note.hidden) announce("The first numbers are there");
      this.note.hidden = true;
      return;
    }
    const [title, ...sentences] = reasons(await ask("status", {}, signal), page.recorded_since !== null);
    this.note.hidden = false;
    if (this.note.dataset.title !== title) this.note.replaceChildren(el("h2", { text: title }), el("div")); // a screen reader hears it once
    this.note.dataset.title = title;
    this.note.lastChild.replaceChildren(...sentences.map((text) => el("p", { text })));
  }

  #build() {
    this.range = el("select", { id: "overview-range", onchange: (event) => this.#choose(event.target.value) },
      Object.entries(RANGES).map(([value, [, text]]) => el("option", { value, text })));
    const changed = debounced(() => this.change({ find: this.find.value.trim() }, false), 200);
    this.find = el("input", { id: "find", type: "search", autocomplete: "off", spellcheck: "false", maxlength: 1_024, placeholder: "Any part of a name", oninput: changed });
    this.window = el("p", { class: "quiet" });
    this.problem = el("p", { class: "problem", role: "alert" });
    this.note = el("div", { id: "nothing", class: "card", role: "status", hidden: true });
    this.tables = ["queues", "functions", "workers"].map((table) => new OverviewTable(table, { change: this.change, load: () => this.load() }));
    this.root.append(
      el("form", { class: "tools", "aria-label": "Range and filter", onsubmit: (event) => event.preventDefault() },
        el("div", {}, el("label", { for: "overview-range", text: "Range" }), this.range),
        el("div", {}, el("label", { for: "find", text: "Find" }), this.find)),
      this.window, this.problem, this.note, ...this.tables.map((one) => one.element),
    );
  }

  #choose(range) {
    this.fits = false;
    this.change({ range }, true);
  }
}
