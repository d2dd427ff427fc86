// One series: its chart, the values at the cursor, and its table.

import { el, name, table, visible } from "./dom.js";
import { markLines } from "./marks.js";
import { hasScale, number, total, valueOf } from "./numbers.js";
import { draw, MARGIN } from "./plotly.js";
import { bucketStart, moment, span, zone } from "./times.js";
import { lines } from "./traces.js";
import { followPointer } from "./pointer.js";

let numbers = 0;

/** Why a bucket has no values: the log holds nothing of its time, or nothing of this series; "" if it has some. */
function nothing(bucket) {
  if (bucket.missing) return "nothing recorded at all";
  return bucket.last === undefined && bucket.sum === undefined ? "no sample" : "";
}

export class Chart {
  /** Make an empty chart, of a series or, with a *title*, of several; *actions* are remove(key), cursor(at or null), zoom(from, to) and explain(key, at, width_s). */
  constructor(key, actions, title = null) {
    this.key = key;
    this.isOfSeveral = title !== null;
    this.points = null;
    this.index = null;
    const id = `chart-${++numbers}`;
    this.canvas = el("div", { class: "canvas" });
    this.marks = el("div", { class: "marks" });
    this.cursor = el("div", { class: "cursor", hidden: true });
    this.selection = el("div", { class: "selection", hidden: true });
    this.chosen = el("div", { class: "chosen", hidden: true });
    this.plot = el(
      "div",
      { class: "plot", role: "slider", tabindex: 0, "aria-labelledby": id, "aria-valuemin": 0, "aria-valuenow": 0 },
      this.canvas,
      el("div", { class: "over" }, this.chosen, this.marks, this.cursor, this.selection),
    );
    this.readout = el("dl", { class: "readout" });
    this.problem = el("p", { class: "problem", hidden: true });
    this.values = el("details", { class: "values", ontoggle: () => this.#fillTable() }, el("summary", { text: "Table" }));
    this.unit = el("span", { class: "quiet" });
    this.element = el(
      "section",
      { class: "chart card", "aria-labelledby": id },
      el("header", {}, el("h2", { id }, title ?? name(key)), this.unit, this.readout,
        title ? null : el("button", { type: "button", class: "remove", "aria-label": `Remove ${visible(key)}`, text: "×", onclick: () => actions.remove(key) })),
      this.plot,
      this.problem,
      this.values,
    );
    followPointer(this, actions);
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(this.plot);
  }

  /** Remove the chart from the page, and free what plotly holds of it. */
  remove() {
    this.resized.disconnect();
    globalThis.Plotly?.purge(this.canvas);
    this.element.remove();
  }

  /** Show points as the view says, or *shown* lines; the cursor stays where it was. */
  show(points, choice, shown = lines(points, choice)) {
    this.points = points;
    this.lines = shown;
    this.starts = points.buckets.map((bucket) => Date.parse(bucket.at));
    this.unit.textContent = this.isOfSeveral ? "" : `${points.type}, ${visible(points.unit)}`;
    this.problem.hidden = true;
    this.plot.setAttribute("aria-valuemax", Math.max(0, points.buckets.length - 1));
    this.element.classList.toggle("empty", points.buckets.every((bucket) => bucket.missing));
    this.draw();
    this.showCursor(this.at ?? null);
    this.#fillTable();
  }

  fail(message) {
    this.problem.textContent = message;
    this.problem.hidden = false;
  }

  async draw() {
    const width = this.plot.clientWidth;
    if (!this.points || !width) return;
    try {
      await draw(this.canvas, this.points, this.lines, width);
    } catch (error) {
      this.fail(error.message);
      this.values.open = true;
    }
  }

  /** Put the marks of the window over the chart. */
  showMarks(marks) {
    const shares = marks.map((mark) => this.#share(Date.parse(mark.at)));
    this.marks.replaceChildren(...markLines(marks, shares, this.plot.clientWidth - MARGIN.l - MARGIN.r));
  }

  /** Highlight the bucket that is explained, if it is in this window. */
  showChosen(at) {
    const index = at === null ? -1 : this.indexOf(at);
    this.chosen.hidden = index < 0;
    if (index < 0) return;
    this.chosen.style.left = `${100 * this.#share(this.starts[index])}%`;
    this.chosen.style.width = `${100 / this.starts.length}%`;
  }

  /** Show the values of the bucket that holds a moment; for null the total, or the latest values. */
  showCursor(at) {
    this.at = at;
    const index = at === null ? -1 : this.indexOf(at);
    this.cursor.hidden = index < 0;
    this.index = index < 0 ? null : index;
    if (!this.points) return;
    if (index >= 0) {
      const middle = this.starts[index] + this.points.width_s * 500;
      this.cursor.style.left = `${100 * this.#share(middle)}%`;
      this.plot.setAttribute("aria-valuenow", index);
    }
    this.plot.setAttribute("aria-valuetext", index < 0 ? "no bucket selected" : this.describe(index));
    this.readout.replaceChildren(...this.#readout(index));
  }

  /** The number of the bucket that holds a moment; -1 if none does. */
  indexOf(at) {
    if (!this.points) return -1;
    const index = Math.floor((at - this.starts[0]) / (this.points.width_s * 1_000));
    return index >= 0 && index < this.starts.length ? index : -1;
  }

  /** The key of the series to explain at a bucket: of several the one with the greatest value, of shares the first. */
  keyAt(index) {
    const greatest = this.lines.reduce((one, other) => ((other.values[index] ?? -Infinity) > (one.values[index] ?? -Infinity) ? other : one));
    return (greatest.unit === "share" ? this.lines[0] : greatest).key ?? this.key;
  }

  /** Whether it shows a series. */
  has(key) {
    return this.key === key || this.lines?.some((line) => line.key === key);
  }

  /** A bucket in words. */
  describe(index) {
    const bucket = this.points.buckets[index];
    const when = span(this.starts[index], this.starts[index] + this.points.width_s * 1_000);
    const what = nothing(bucket) || this.lines.map((line) => this.#value(line, index)).join(", ");
    return `${when}: ${what}${bucket.partial ? ", still filling" : ""}`;
  }

  /** The moment under a pixel of the page. */
  momentAt(clientX) {
    const box = this.plot.getBoundingClientRect();
    const share = (clientX - box.left - MARGIN.l) / (box.width - MARGIN.l - MARGIN.r);
    const [from, to] = [Date.parse(this.points.since), Date.parse(this.points.until)];
    return from + Math.min(Math.max(share, 0), 1 - 1e-9) * (to - from);
  }

  #share(at) {
    const [from, to] = [Date.parse(this.points.since), Date.parse(this.points.until)];
    return (at - from) / (to - from);
  }

  #start(index) {
    const { width_s, since, until } = this.points;
    return bucketStart(this.starts[index], width_s * 1_000, Date.parse(since), Date.parse(until));
  }

  #unit(line) {
    return line.unit ?? this.points.unit;
  }

  #value(line, index) {
    return `${line.name} ${valueOf(this.key, line.values[index], this.#unit(line))}`;
  }

  #readout(index) {
    if (index >= 0 && nothing(this.points.buckets[index])) {
      return [el("div", {}, el("dt", { class: "quiet", text: this.#start(index) }), el("dd", { text: nothing(this.points.buckets[index]) }))];
    }
    const shown = index >= 0 ? index : this.lines[0].values.findLastIndex((value) => value !== null);
    if (shown < 0) return [el("div", {}, el("dt", { class: "quiet", text: "no observation in this window" }))];
    const isTotal = index < 0 && this.lines[0].adds;
    const items = this.lines.map((line) => {
      const value = isTotal ? total(line.values) : line.values[shown];
      const swatch = el("span", { class: "swatch" });
      if (line.hue) swatch.style.background = `var(--${line.hue})`;
      return el("div", {}, el("dt", {}, line.hue ? swatch : null, isTotal && !line.key ? "total" : visible(line.name)),
        el("dd", { text: valueOf(line.key ?? this.key, value, this.#unit(line)) }));
    });
    const when = isTotal ? null : el("div", {}, el("dt", { class: "quiet", text: `${index < 0 ? "latest, " : ""}${this.#start(shown)}` }));
    return when ? [when, ...items] : items;
  }

  #fillTable() {
    if (!this.values.open || !this.points) return;
    const heads = [`Bucket (${zone()})`, ...this.lines.map((line) => (line.unit || !hasScale(this.points.unit) ? line.name : `${line.name}, ${this.points.unit}`)), ""];
    const rows = this.points.buckets.map((bucket, index) => [
      moment(this.starts[index], 0),
      ...this.lines.map((line) => (line.values[index] === null ? "" : String(Number(line.values[index].toPrecision(6))))),
      [nothing(bucket), bucket.partial ? "still filling" : ""].filter(Boolean).join(", "),
    ]).reverse();
    this.values.querySelector(".scrolled")?.remove();
    const caption = `${visible(this.key)} by ${this.points.resolution}, newest first`;
    this.values.append(el("div", { class: "scrolled", tabindex: 0, role: "region", "aria-label": `Values of ${visible(this.key)}` },
      table(caption, heads, rows, this.lines.map((_, index) => index + 1))));
  }
}
