// The events view: live, newest on top, or those of a window, in the order of the ledger.

import { ask, SignedOut } from "./api.js";
import { announce, debounced, el, table } from "./dom.js";
import { cells, HEADS } from "./events.js";
import { whole } from "./numbers.js";
import { RANGES, span } from "./times.js";

const POLL_MS = 1_500;
const PAGE = 200;
/** Full pages in a row after which a live view skips to the end. */
const FULL_PAGES = 5;
const MAX_ROWS = 300;
/** Batches before the end at which a live view starts; it goes back to MAX_BACK while it has fewer than FEW rows. */
const BACK = 20, MAX_BACK = 20_000, FEW = 20;

const NARROW = matchMedia("(max-width: 640px)");

const FIELDS = [
  ["kind", "Kind", ["job", "counter", "gauge", "histogram"]],
  ["state", "State", ["succeeded", "failed", "retrying"]],
  ["prefix", "Start of a key"],
  ["key", "Key"],
  ["func", "Function"],
  ["queue", "Queue"],
  ["worker_id", "Worker"],
  ["error", "Error"],
];

export class Tail {
  /** Build it into *root*; *change*(changes, push) changes the view, *showJob*(id, opener) shows a job. */
  constructor(root, { change, showJob }) {
    this.root = root;
    this.change = change;
    this.showJob = showJob;
    this.view = null;
    this.isStarted = false;
    this.shown = null;
    this.paused = false;
    this.#build();
    setInterval(() => this.#isLive() && !this.paused && !document.hidden && this.load(), POLL_MS);
  }

  /** Load events from now on, while this view is shown. */
  start() {
    this.isStarted = true;
  }

  /** Load them no more. */
  stop() {
    this.isStarted = false;
  }

  /** Show the events of the view; if its filters or its window changed, start again. */
  show(view) {
    this.view = view;
    if (view.view !== "events" || !this.isStarted) return;
    for (const [field] of FIELDS) this.fields[field].value = view.filters[field] ?? "";
    this.when.querySelector('[value="window"]')?.remove();
    if (view.since !== null) this.when.prepend(el("option", { value: "window", text: span(view.since, view.until) }));
    this.when.value = view.since === null ? "live" : "window";
    const wanted = JSON.stringify([view.filters, view.since, view.until]);
    if (wanted === this.shown) return;
    this.shown = wanted;
    this.#begin();
  }

  /** Load the next page, unless one is on its way: two would begin at the same position. */
  load() {
    if (!this.busy) this.#load();
  }

  async #load() {
    const { view } = this;
    const { signal } = this.asked;
    const window = view.since === null ? {} : { since: new Date(view.since).toISOString(), until: new Date(view.until).toISOString() };
    this.busy = true;
    try {
      const page = await ask("events", { after: this.next, limit: PAGE, ...view.filters, ...window }, signal);
      this.next = page.next;
      this.#add(page);
      this.full = page.events.length === PAGE ? this.full + 1 : 0;
      if (this.#isLive() && this.full === FULL_PAGES) this.#skip();
      this.problem.textContent = "";
      if (!page.more && this.#looksFurtherBack()) return await this.#load();
      if (page.more && (this.#isLive() ? !this.paused : !page.events.length)) return await this.#load();
    } catch (error) {
      if (error.name === "AbortError" || error instanceof SignedOut) return undefined;
      this.problem.textContent = error.message;
    } finally {
      if (!signal.aborted) this.busy = false;
    }
    return undefined;
  }

  #isLive() {
    const { view } = this;
    return this.isStarted && view?.view === "events" && view.since === null && this.shown !== null;
  }

  #begin() {
    this.asked?.abort();
    this.asked = new AbortController();
    const live = this.view.since === null;
    this.back = live ? BACK : MAX_BACK;
    this.next = live ? `-${BACK}` : "";
    this.total = this.full = 0;
    this.gaps.replaceChildren();
    this.busy = false;
    this.more.hidden = true;
    this.pause.hidden = !live;
    this.body.replaceChildren();
    this.#tell();
    this.load();
  }

  /** Start again further back if a filter has found little so far; return whether it did. */
  #looksFurtherBack() {
    const enough = this.total >= FEW || this.back >= MAX_BACK || this.paused;
    if (enough) {
      this.back = MAX_BACK;
      return false;
    }
    this.back *= 10;
    this.next = `-${this.back}`;
    this.total = 0;
    this.body.replaceChildren();
    return true;
  }

  /** Skip to the end: more events arrive than anyone can read. */
  #skip() {
    this.gaps.replaceChildren(el("li", { text: `Events arrive faster than they are shown: some after position ${this.next} are left out. Use filters, or choose a window to see all of them.` }));
    this.next = `-${Math.ceil(BACK / 10)}`;
    this.full = 0;
  }

  #add(page) {
    const live = this.view.since === null;
    const rows = page.events.map((event) => el("tr", {}, cells(event, this.showJob).map((cell) => el("td", {}, cell))));
    this.total += rows.length;
    if (live) {
      this.body.prepend(...rows.reverse());
      while (this.body.rows.length > MAX_ROWS) this.body.lastElementChild.remove();
    } else {
      this.body.append(...rows);
    }
    this.more.hidden = live || !page.more;
    for (const gap of page.gaps) this.gaps.append(el("li", { text: gap }));
    this.#tell();
  }

  #tell() {
    const live = this.view.since === null;
    const how = live ? (this.paused ? "Paused" : "Live, newest first") : "In the order of the ledger";
    this.summary.textContent = `${how}: ${this.total === 1 ? "1 event" : `${whole(this.total)} events`}${this.next && !this.next.startsWith("-") ? `, searched up to position ${this.next}` : ""}`;
  }

  #build() {
    const changed = debounced(() => this.change({ filters: this.#filters() }, true), 250);
    this.fields = {};
    const fields = FIELDS.map(([field, label, choices]) => {
      const id = `filter-${field}`;
      this.fields[field] = choices
        ? el("select", { id, onchange: changed }, el("option", { value: "", text: "Any" }), choices.map((one) => el("option", { value: one, text: one })))
        : el("input", { id, type: "text", autocomplete: "off", spellcheck: "false", maxlength: 1_024, oninput: changed });
      return el("div", {}, el("label", { for: id, text: label }), this.fields[field]);
    });
    this.when = el("select", { id: "when", onchange: () => this.#chooseTime() }, el("option", { value: "live", text: "Live" }),
      Object.entries(RANGES).map(([value, [, text]]) => el("option", { value, text })));
    this.pause = el("button", { type: "button", "aria-pressed": "false", text: "Pause", onclick: () => this.#pause() });
    this.summary = el("p", { class: "quiet", id: "events-summary" });
    this.problem = el("p", { class: "problem", role: "alert" });
    this.gaps = el("ul", { class: "quiet gaps" });
    this.more = el("button", { type: "button", text: "Load more", hidden: true, onclick: () => this.load() });
    const listed = table("Events", HEADS, []);
    this.body = listed.tBodies[0];
    this.root.append(
      el("form", { class: "tools", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
        el("div", {}, el("label", { for: "when", text: "When" }), this.when),
        NARROW.matches ? el("details", { class: "filters" }, el("summary", { text: "Filters" }), el("div", { class: "tools" }, fields)) : fields,
        el("div", { class: "buttons" }, this.pause, el("button", { type: "button", text: "Clear filters", onclick: () => this.change({ filters: {} }, true) }))),
      this.summary, this.problem, this.gaps,
      el("div", { class: "card events all", tabindex: 0, role: "region", "aria-label": "Events" }, listed),
      this.more,
    );
  }

  #filters() {
    return Object.fromEntries(FIELDS.map(([field]) => [field, this.fields[field].value.trim()]).filter(([, value]) => value));
  }

  #chooseTime() {
    if (this.when.value === "window") return;
    const length_ms = RANGES[this.when.value]?.[0];
    const until = Math.ceil(Date.now() / 60_000) * 60_000;
    this.change(length_ms ? { since: until - length_ms, until } : { since: null, until: null }, true);
  }

  #pause() {
    this.paused = !this.paused;
    this.pause.setAttribute("aria-pressed", String(this.paused));
    this.pause.textContent = this.paused ? "Resume" : "Pause";
    announce(this.paused ? "Paused" : "Live");
    this.#tell();
    if (!this.paused) this.load();
  }
}
