// The strip that says how the log is: what waits, who folds, what is missing, whether replay and what is stored agree.

import { ask, SignedOut } from "./api.js";
import { announce, byId, el, name } from "./dom.js";
import { number, whole } from "./numbers.js";
import { ago, length } from "./times.js";

const REFRESH_MS = 5_000;

export class StatusStrip {
  constructor(page) {
    this.page = page;
    this.wasWell = null;
    setInterval(() => page.signedIn && !document.hidden && this.load(), REFRESH_MS);
  }

  /** Ask and show; an answer that does not come is shown as a problem of its own. */
  async load() {
    try {
      this.#show(await ask("status"));
    } catch (error) {
      if (!(error instanceof SignedOut)) this.#render("bad", "No status", [], [error.message]);
    }
  }

  #show(status) {
    const { completeness, verified } = status;
    const now = Date.parse(status.at);
    const faults = verified ? verified.different + verified.found : 0;
    const facts = [
      ["Lag", status.oldest_waiting_s < 0.05 ? "none" : length(status.oldest_waiting_s * 1_000), status.unhealthy.length && status.pending_batches ? "warn" : ""],
      ["Position", `${whole(status.position)}${status.ordered_position > status.position ? ` of ${whole(status.ordered_position)}` : ""}`],
      ["Folded by", status.folded_by ? [name(status.folded_by), ` ${ago(Date.parse(status.folded_at), now)}`] : "nobody yet"],
      ["Events", `${number(status.events_per_s)}/s`],
      ["Holes", whole(completeness.holes), completeness.holes ? "bad" : ""],
      ["Dead letters", whole(completeness.dead_letters), completeness.dead_letters ? "bad" : ""],
      ["Failing rules", whole(completeness.failing_rules.length), completeness.failing_rules.length ? "bad" : ""],
      ["Dropped", whole(completeness.dropped), completeness.dropped ? "warn" : ""],
      ["Drift", verified ? whole(faults) : "not checked", faults ? "bad" : ""],
      ["Last verify", verified ? ago(Date.parse(verified.at), now) : "never"],
      ["Log", number(status.log_bytes, "bytes")],
      ["Series", whole(status.series)],
    ];
    const well = !status.unhealthy.length;
    this.#render(well ? "good" : "bad", well ? "Healthy" : "Unhealthy", facts, status.unhealthy);
    if (this.wasWell !== null && this.wasWell !== well) announce(well ? "The log is healthy again" : `The log is unhealthy: ${status.unhealthy[0]}`);
    this.wasWell = well;
  }

  #render(state, word, facts, problems) {
    byId("status").replaceChildren(
      el("p", { class: `health ${state}` }, el("span", { class: "dot", "aria-hidden": "true" }), word),
      el("dl", {}, facts.map(([term, value, how]) => el("div", { class: how ?? "" }, el("dt", { text: term }), el("dd", {}, value)))),
      problems.length ? el("ul", { class: "problem" }, problems.map((text) => el("li", { text }))) : "",
    );
  }
}
