// The status strip, refreshed every 5 s; `verdict.js` makes its texts.

import { ask, SignedOut } from "./api.js";
import { announce, byId, el, foldButton, name, sentence } from "./dom.js";
import { facts, verdict } from "./verdict.js";

const REFRESH_MS = 5_000;

export class StatusStrip {
  constructor() {
    this.isStarted = false;
    this.wasWell = null;
    this.fold = foldButton(byId("status"), "Details");
    setInterval(() => this.isStarted && !document.hidden && this.load(), REFRESH_MS);
  }

  /** Load the status now, and every 5 s from now on. */
  start() {
    this.isStarted = true;
    this.load();
  }

  /** Load it no more. */
  stop() {
    this.isStarted = false;
  }

  /** Load and show the status; if that fails, show the error instead. */
  async load() {
    try {
      this.#show(await ask("status"));
    } catch (error) {
      if (!(error instanceof SignedOut)) this.#render("bad", "No status", [], [error.message]);
    }
  }

  #show(status) {
    const [state, word] = verdict(status);
    this.#render(state, word, facts(status), status.unhealthy, status.not_looked_at);
    const well = state !== "bad";
    if (this.wasWell !== null && this.wasWell !== well) announce(well ? "The log is healthy again" : `The log is unhealthy: ${status.unhealthy[0]}`);
    this.wasWell = well;
  }

  #render(state, word, facts, problems, unseen = []) {
    byId("status").replaceChildren(
      el("p", { class: `stays health ${state}` }, el("span", { class: "dot", "aria-hidden": "true" }), word),
      el("dl", {}, facts.map(([term, value, how]) => el("div", { class: how ?? "" }, el("dt", { text: term }), el("dd", {}, Array.isArray(value) ? [name(value[0]), value[1]] : value)))),
      this.fold,
      problems.length ? el("ul", { class: "stays problem" }, problems.map((text) => el("li", {}, sentence(text)))) : "",
      unseen.length ? el("p", { class: "quiet" }, sentence(`Not looked at: ${unseen.join("; ")}`)) : "",
    );
  }
}
