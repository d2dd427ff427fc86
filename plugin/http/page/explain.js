// The panel: a bucket recomputed from its events, or the history of one job.

import { ask, SignedOut } from "./api.js";
import { announce, byId, el, name, table, visible } from "./dom.js";
import { cells, HEADS, jobLink } from "./events.js";
import { number, whole } from "./numbers.js";
import { moment, span } from "./times.js";

const VALUES = [["count", "count"], ["sum", "sum"], ["last", "last"], ["minimum", "min"], ["average", "avg"], ["maximum", "max"], ["p50", "p50"], ["p95", "p95"], ["p99", "p99"]];
const GROUPS = [["by_func", "Function"], ["by_queue", "Queue"], ["by_state", "State"], ["by_error", "Error"], ["by_worker", "Worker"]];
const GROUP_ROWS = 6;

/** What a counter adds up; its least and greatest additions, unless they differ, would only push the jobs down. */
const OF_COUNTERS = ["count", "sum"];

/** Whether all events have the same, and something, in a field. */
const isShared = (found, field) => found[field].length === 1 && found[field][0][0] !== "" && found[field][0][1] === found.events;

export class Explanation {
  /** *change*(changes, push) changes the view, *showJob*(id, opener) shows a job. */
  constructor({ change, showJob }) {
    this.change = change;
    this.showJob = showJob;
    this.view = null;
    this.panel = byId("panel");
    this.opener = null;
    this.shown = "";
    addEventListener("keydown", (event) => event.key === "Escape" && !event.defaultPrevented && !this.panel.hidden && this.#close());
  }

  /** Show what the view says: a bucket, a job, or nothing. */
  show(view) {
    this.view = view;
    const { of, at, width, job, worker } = view;
    const wanted = job ? `job ${job}` : of && at ? JSON.stringify([of, at, width, worker]) : "";
    if (wanted === this.shown) return;
    this.shown = wanted;
    this.asked?.abort();
    if (!wanted) this.#giveFocusBack();
    this.panel.hidden = !wanted;
    document.body.classList.toggle("with-panel", Boolean(wanted));
    if (!wanted) return;
    this.asked = new AbortController();
    if (job) this.#load(name(job), `jobs/${encodeURIComponent(job)}`, {}, (life) => this.#jobHistory(life));
    else this.#load(name(of), "explain", { key: of, at, resolution: width || "1min", worker_id: worker }, (found) => this.#bucket(found));
  }

  async #load(title, path, parameters, render) {
    const { signal } = this.asked;
    const heading = el("h2", { id: "panel-title", tabindex: -1 }, title);
    const body = el("div", { class: "body", "aria-live": "off" }, el("p", { class: "quiet", text: "Loading …" }));
    this.panel.replaceChildren(
      el("header", {}, heading, el("button", { type: "button", class: "close", "aria-label": "Close", text: "×", onclick: () => this.#close() })),
      body,
    );
    this.panel.scrollTop = 0;
    heading.focus();
    try {
      body.replaceChildren(...render(await ask(path, parameters, signal)).filter(Boolean));
    } catch (error) {
      if (error.name === "AbortError" || error instanceof SignedOut) return;
      body.replaceChildren(el("p", { class: "problem", role: "alert", text: error.message }));
    }
  }

  #bucket(found) {
    const [since, until] = [Date.parse(found.since), Date.parse(found.until)];
    announce(visible(found.sentence));
    return [
      el("p", { class: "quiet" }, `${span(since, until)}, ${found.resolution}, `, found.worker_id ? name(found.worker_id) : "all workers"),
      this.#verdict(found),
      this.#values(found),
      found.marks.length ? this.#section("Marks nearby", el("ul", {}, found.marks.map((mark) => el("li", {}, `${moment(Date.parse(mark.at))} `, name(mark.text))))) : null,
      this.#shared(found),
      ...GROUPS.map(([field, title]) => (isShared(found, field) ? null : this.#group(title, found[field], found.events))),
      this.#events(found.failed, "Failed or retrying, last recorded first", "failed"),
      this.#events(found.largest, found.largest.some((event) => event.kind === "job") ? "Slowest" : "Largest"),
      this.#events(found.first, "First"),
      found.events ? this.#allButton(found, since, until) : null,
      el("p", { class: "quiet", text: `Version ${found.version} up to position ${whole(found.position)}; computed in ${number(found.took_s, "seconds")}.` }),
    ];
  }

  #verdict(found) {
    if (found.equal === null || (found.equal && (found.left_out.batches || found.left_out.rules.length))) return el("p", { class: "verdict", text: found.sentence });
    return el("p", { class: `verdict ${found.equal ? "good" : "bad"}` }, el("span", { "aria-hidden": "true", text: found.equal ? "✓ " : "≠ " }), found.sentence);
  }

  #values(found) {
    const { stored, recomputed, unit, kind } = found;
    if (!stored && !recomputed) return null;
    const show = (value, field) => (value ? number(value[field], field === "count" || (kind === "counter" && unit === "count") ? "count" : unit) : "–");
    const rows = VALUES.filter(([field]) => kind !== "counter" || found.equal === false || OF_COUNTERS.includes(field)).filter(([field]) => (stored?.[field] ?? recomputed?.[field] ?? null) !== null)
      .map(([field, label]) => [label, show(stored, field), show(recomputed, field)]);
    return table(`${kind} in ${visible(unit)}`, ["", "Stored", "Recomputed"], rows, [1, 2]);
  }

  /** What all events have in common, in a line, so that the jobs are in sight. */
  #shared(found) {
    const shared = GROUPS.filter(([field]) => isShared(found, field));
    if (!shared.length) return null;
    const items = shared.map(([field, title]) => el("div", {}, el("dt", { text: title }), el("dd", {}, name(found[field][0][0]))));
    return this.#section(found.events === 1 ? "It has" : "All have", el("dl", { class: "shared" }, items));
  }

  #group(title, shares, events) {
    if (shares.length < 1 || (shares.length === 1 && shares[0][0] === "")) return null;
    const rows = shares.slice(0, GROUP_ROWS).map(([what, count]) => {
      const bar = el("span", { class: "bar", "aria-hidden": "true" });
      bar.style.width = `${(100 * count) / Math.max(events, 1)}%`;
      return el("li", {}, bar, what === "" ? el("span", { class: "quiet", text: "none" }) : name(what), el("b", { text: whole(count) }));
    });
    const rest = shares.length - rows.length;
    const section = this.#section(title, el("ul", { class: "shares" }, rows), rest > 0 ? el("p", { class: "quiet", text: `and ${whole(rest)} more` }) : null);
    section.classList.add("group");
    return section;
  }

  #events(events, title, how = null) {
    if (!events.length) return null;
    const rows = events.map((event) => cells(event, this.showJob).slice(0, 4));
    const section = this.#section(title, el("div", { class: "scrolled events", tabindex: 0, role: "region", "aria-label": title }, table(events.length === 1 ? "1 event" : `${whole(events.length)} events`, HEADS.slice(0, 4), rows)));
    if (how) section.classList.add(how);
    return section;
  }

  #allButton(found, since, until) {
    const filters = { key: found.key, ...(found.worker_id ? { worker_id: found.worker_id } : {}) };
    return el("button", { type: "button", text: found.events === 1 ? "List the event" : `List all ${whole(found.events)} events`, onclick: () =>
      this.change({ view: "events", since, until, filters, of: "", at: "", width: "" }, true) });
  }

  #jobHistory(life) {
    announce(`${life.updates.length} updates of this job`);
    const gaps = [
      ...life.pruned.map((gap) => `${gap.day ?? "Older days"} left the log, and may have had more updates of this job.`),
      ...life.unreadable.map((gap) => `The batch at position ${gap.position} can't be read: ${gap.error}`),
      life.waiting ? `${life.waiting === 1 ? "One batch waits" : `${whole(life.waiting)} batches wait`} for the next fold, and may have more updates.` : null,
    ].filter(Boolean);
    return [
      el("p", {}, jobLink(life.job_id, "Open in the dashboard")),
      life.updates.length
        ? el("div", { class: "scrolled events" }, table("One row for each attempt", HEADS.slice(0, 3), life.updates.map((event) => cells(event, this.showJob).slice(0, 3))))
        : el("p", { text: "The log has no update of this job: no attempt has ended yet, or its days have left the log." }),
      gaps.length ? el("ul", { class: "quiet" }, gaps.map((text) => el("li", { text }))) : null,
      el("p", { class: "quiet", text: `Searched up to position ${whole(life.position)}${life.first_day ? `, from ${life.first_day} on` : ""}.` }),
      this.view.of ? el("button", { type: "button", text: "Back to the bucket", onclick: () => this.change({ job: "" }, true) }) : null,
    ];
  }

  #section(title, ...content) {
    return el("section", {}, el("h3", { text: title }), ...content);
  }

  #close() {
    this.change({ of: "", at: "", width: "", job: "" }, true);
  }

  /** Return the focus, if it is in the panel, to the element that opened it. */
  #giveFocusBack() {
    if (this.panel.contains(document.activeElement)) {
      if (this.opener?.isConnected && this.opener.checkVisibility()) this.opener.focus();
      else byId("main").focus();
    }
    this.opener = null;
  }
}
