// The fields above the charts: range, resolution, worker, and how values are shown.

import { ask } from "./api.js";
import { byId, el, foldButton, visible } from "./dom.js";
import { RANGES } from "./times.js";

const option = (value, text = value) => el("option", { value, text: visible(text) });

/** Elements whose id is not the view's name for their value. */
const FIELD = { "charts-mode": "charts" };

export class Controls {
  /** *change*(changes, push) changes the view, *zoomOut*() shows twice the time. */
  constructor({ change, zoomOut }) {
    this.view = null;
    byId("range").append(...Object.entries(RANGES).map(([value, [, text]]) => option(value, text)));
    byId("resolution").append(option("auto", "Automatic"), ...["1min", "5min", "1hour", "1day"].map((one) => option(one)));
    byId("worker").append(option("", "All workers"));
    byId("range").addEventListener("change", (event) => {
      if (event.target.value) change({ range: event.target.value, since: null, until: null }, true);
    });
    for (const id of ["resolution", "worker"]) {
      byId(id).addEventListener("change", (event) => change({ [id]: event.target.value }, true));
    }
    for (const id of ["counters", "histograms", "charts-mode"]) {
      byId(id).addEventListener("change", (event) => change({ [FIELD[id] ?? id]: event.target.value }, false));
    }
    byId("chart-tools").append(foldButton(byId("chart-tools"), "Filters"));
    byId("now").addEventListener("click", () => change({ since: null, until: null }, true));
    byId("zoom-out").addEventListener("click", zoomOut);
  }

  /** Load the list of workers. */
  async load() {
    const { workers } = await ask("workers", { limit: 1_000 });
    byId("worker").replaceChildren(option("", "All workers"), ...workers.map((worker) => option(worker)));
    this.show(this.view);
  }

  /** Show the view's values. */
  show(view) {
    this.view = view;
    const range = byId("range");
    range.querySelector('[value=""]')?.remove();
    if (view.since !== null) range.prepend(option("", "Custom"));
    range.value = view.since === null ? view.range : "";
    for (const id of ["resolution", "counters", "histograms", "charts-mode"]) byId(id).value = view[FIELD[id] ?? id];
    const worker = byId("worker");
    if (![...worker.options].some((one) => one.value === view.worker)) worker.append(option(view.worker));
    worker.value = view.worker;
    byId("now").disabled = view.since === null;
  }
}
