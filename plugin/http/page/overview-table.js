// One table of the overview: its columns, their order, its rows, and a page of them at a time.

import { announce, byId, el, name, visible } from "./dom.js";
import { jobs, number, percent, rate, whole } from "./numbers.js";
import { sparkline } from "./sparkline.js";
import { ago, length } from "./times.js";
import { ORDERS, write } from "./view.js";

const MAX_KEYS = 12;
/** Rows of a page: the few queues leave the functions in sight. */
const PAGE = { queues: 12, functions: 50, workers: 12 };
const TITLES = { queues: "Queues", functions: "Functions", workers: "Workers" };
/** The filter of events by a row's name. */
const FILTERS = { queues: "queue", functions: "func", workers: "worker_id" };
/** A session is seen every 60 s while it lives: it is called alive for so long, and silent after that. */
const ALIVE_MS = 90_000, SILENT_MS = 180_000;

const seconds = (value) => number(value, "seconds");
const times = (field) => ["p50", "p95", "p99"].map((quantile) => ({
  order: `${field}.${quantile}`, head: quantile, text: (row) => seconds(row[field]?.[quantile]),
}));

/** Columns in groups: a group without a title has one column. */
const COLUMNS = {
  depth: [null, [{ order: "depth", head: "Due", hint: "Jobs that were due at the last sample", text: (row) => jobs(row.depth) }]],
  oldest: [null, [{ order: "oldest_wait", head: "Oldest wait", hint: "How long the first due job had waited at the last sample", text: (row) => seconds(row.oldest_wait_s) }]],
  count: ["Attempts", [
    { order: "count", head: "count", text: (row) => number(row.count) },
    { order: null, head: "rate", text: (row) => rate(row.rate_per_s) },
    { order: "change", head: "change", hint: "Against the range before, per second", text: change },
    { order: null, head: "trend", hint: "Count of each bucket", node: (row) => sparkline(row.counts) },
  ]],
  failed: ["Failures", [
    { order: "failed", head: "failed", hint: "Jobs that failed for good", node: failed },
    { order: "failure_ratio", head: "share", hint: "Of the jobs that ended", node: ratio, how: (row) => (row.failed ? "bad" : "") },
    { order: "retried", head: "retried", hint: "Attempts that failed and are followed by another", text: (row) => number(row.retried) },
  ]],
  run: ["Run", [...times("run"), { order: "run.sum_s", head: "sum", text: (row) => seconds(row.run?.sum_s) }]],
  wait: ["Wait", times("wait")],
  total: ["Total", times("total")],
  seen: [null, [{ order: "seen_at", head: "Last seen", text: seen, how: (row, context) => (isSilent(row, context.now) ? "bad" : "") }]],
  ran: ["Run", [
    { order: null, head: "at once", hint: "Jobs that ran at the same time, on average", text: (row) => number(row.busy) },
    { order: null, head: "sum", text: (row) => seconds(row.run_s) },
  ]],
};
/** The server puts workers in order by name and last sight alone: it would have to read the points of all of them. */
const UNORDERED = ["count", "failed"];
const SHOWN = {
  queues: ["depth", "oldest", "count", "failed", "wait", "run", "total"],
  functions: ["failed", "count", "run", "wait", "total"],
  workers: ["seen", "count", "failed", "ran"],
};

/** The groups of columns of a table. */
const groupsOf = (table) => SHOWN[table].map((group) => {
  const [title, columns] = COLUMNS[group];
  if (table !== "workers" || !UNORDERED.includes(group)) return [title, columns];
  return [title, columns.filter((column) => column.order !== "change").map((column) => ({ ...column, order: null }))];
});

const isSilent = (row, now) => row.seen_at !== null && row.ended_at === null && now - Date.parse(row.seen_at) > SILENT_MS;

/** Whether a worker lives, or for how long it has not been seen. */
function seen(row, { now }) {
  if (row.seen_at === null) return "–";
  if (row.ended_at !== null) return `ended ${ago(Date.parse(row.ended_at), now)}`;
  const seen_ms = Date.parse(row.seen_at);
  if (isSilent(row, now)) return `silent for ${length(now - seen_ms)}`;
  return now - seen_ms > ALIVE_MS ? `seen ${ago(seen_ms, now)}` : "alive";
}

function change(row) {
  if (row.change === null) return row.count_before === 0 && row.count ? "new" : "–";
  const share = Math.round(row.change * 100);
  return `${share > 0 ? "+" : share < 0 ? "−" : "±"}${whole(Math.abs(share))} %`;
}

/** The share of failures, as a link to its chart. */
function ratio(row, context) {
  if (row.failure_ratio === null) return "–";
  const shown = percent(row.failure_ratio);
  const keys = row.keys.filter((key) => /:(failed|succeeded)$/.test(key));
  return row.failed && context.filter !== "worker_id" && keys.length > 1 ? context.link({ view: "charts", keys: keys.toReversed(), counters: "share", charts: "together" }, shown, `${shown} of ${visible(row.name)} failed: show it over time`, "bad") : shown;
}

/** The failed jobs, as a link to their events. */
function failed(row, context) {
  if (!row.failed) return number(row.failed);
  return context.link({ view: "events", filters: { [context.filter]: row.name, state: "failed" } }, number(row.failed), `${row.failed} failed of ${visible(row.name)}: show their events`, "bad");
}

export class OverviewTable {
  /** *change*(changes, push) changes the view, *load*() loads the tables again. */
  constructor(table, { change, load }) {
    this.table = table;
    this.change = change;
    this.load = load;
    this.after = 0;
    this.columns = groupsOf(table).flatMap(([, columns]) => columns.map((column, index) => ({ ...column, begins: index === 0 })));
    this.#build();
  }

  /** Take over the view; another order or filter begins at the first row. */
  follow(view) {
    const wanted = JSON.stringify([view.range, view.find, view[this.table]]);
    if (wanted !== this.wanted) this.after = 0;
    this.wanted = wanted;
  }

  /** What to ask the server for. */
  asked(view) {
    const order = view[this.table] || ORDERS[this.table];
    return {
      table: this.table, order: order.replace(/^-/, ""), direction: order.startsWith("-") ? "descending" : "ascending",
      search: view.find, after: this.after, limit: PAGE[this.table],
    };
  }

  /** Show a page of rows; the focus stays on the row and the link that has it. */
  show(page, view) {
    const order = view[this.table] || ORDERS[this.table];
    for (const [column, head] of this.heads) {
      const isFirst = order.replace(/^-/, "") === column;
      if (isFirst) head.setAttribute("aria-sort", order.startsWith("-") ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
    const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
    this.body.replaceChildren(...page.rows.map((row) => this.#row(row, view, Date.parse(page.generated_at))));
    if (focused) [...this.body.querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === focused)?.focus({ preventScroll: true });
    this.none.textContent = page.matching ? "" : view.find ? "No name contains these words." : "Nothing in this range.";
    this.scrolled.hidden = !page.matching;
    this.#page(page);
  }

  #row(row, view, now) {
    const filter = FILTERS[this.table];
    const link = (changes, text, label, how) => {
      const target = { ...view, ...changes };
      return el("a", {
        href: `?${write(target)}`, class: how, "aria-label": label, "data-focus": `${row.name} ${label}`,
        onclick: (event) => this.#follow(event, changes),
      }, text);
    };
    const charts = { view: "charts", keys: row.keys.slice(0, MAX_KEYS), worker: this.table === "workers" ? row.name : "" };
    const context = { filter, link, now };
    return el("tr", {},
      el("th", { scope: "row" }, link(charts, name(row.name), `Charts of ${visible(row.name)}`)),
      this.columns.map(({ text, node, how, begins }) => el("td", { class: `number ${how?.(row, context) ?? ""}${begins ? " begins" : ""}` }, node ? node(row, context) : text(row, context))),
    );
  }

  #follow(event, changes) {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    byId("main").focus({ preventScroll: true }); // not the first field of the other view, which would open its list
    this.change(changes, true);
    scrollTo(0, 0);
  }

  #page(page) {
    const last = this.after + page.rows.length;
    this.count.textContent = page.next !== null || this.after ? `${whole(this.after + 1)} to ${whole(last)} of ${whole(page.matching)}` : whole(page.matching);
    this.pager.hidden = page.next === null && !this.after;
    this.before.disabled = this.after === 0;
    this.behind.disabled = page.next === null;
    this.uncertain.hidden = page.certain;
  }

  #move(by) {
    this.after = Math.max(0, this.after + by);
    this.load();
  }

  #sort(column, head) {
    const is = head.getAttribute("aria-sort");
    const order = is === "descending" || (!is && column === "name") ? column : `-${column}`;
    announce(`In the order of ${head.textContent}, ${order.startsWith("-") ? "greatest" : "least"} first`);
    this.change({ [this.table]: order === ORDERS[this.table] ? "" : order }, false);
  }

  #build() {
    const id = `overview-${this.table}`;
    this.heads = new Map();
    const head = ({ order, head: text, hint }, properties = {}) => {
      const button = order ? el("button", { type: "button", title: hint, text, onclick: () => this.#sort(order, cell) }) : el("span", { text });
      const cell = el("th", { scope: "col", title: order ? null : hint, ...properties }, button);
      if (order) this.heads.set(order, cell);
      return cell;
    };
    const groups = groupsOf(this.table);
    this.body = el("tbody");
    this.count = el("span", { class: "quiet" });
    this.none = el("p", { class: "quiet none" });
    this.uncertain = el("p", { class: "quiet", text: "So many rows have similar times that only the most promising were compared: some of them may be missing here." , hidden: true });
    this.scrolled = el("div", { class: "scrolled", tabindex: 0, role: "region", "aria-labelledby": id },
      el("table", {},
        el("caption", { class: "unseen", text: `${TITLES[this.table]}: the buttons in the heads change the order` }),
        el("thead", {},
          el("tr", {}, head({ order: "name", head: "Name" }, { rowspan: 2 }),
            groups.map(([title, columns]) => (title === null
              ? head(columns[0], { rowspan: 2, class: "number begins" })
              : el("th", { scope: "colgroup", colspan: columns.length, class: "group begins", text: title })))),
          el("tr", {}, groups.filter(([title]) => title !== null).flatMap(([, columns]) => columns.map((column, index) => head(column, { class: `number${index ? "" : " begins"}` }))))),
        this.body));
    this.before = el("button", { type: "button", text: "Previous", onclick: () => this.#move(-PAGE[this.table]) });
    this.behind = el("button", { type: "button", text: "Next", onclick: () => this.#move(PAGE[this.table]) });
    this.pager = el("div", { class: "pager", role: "group", "aria-label": `Pages of ${TITLES[this.table].toLowerCase()}` }, this.before, this.behind);
    this.element = el("section", { class: "card overview", "aria-labelledby": id, hidden: true },
      el("header", {}, el("h2", { id, text: TITLES[this.table] }), this.count), this.none, this.uncertain, this.scrolled, this.pager);
  }
}
