// Events as rows of a table, for the panel and the live view.

import { dashboardUrl } from "./api.js";
import { el, name } from "./dom.js";
import { hasScale, number } from "./numbers.js";
import { moment } from "./times.js";

const STATES = { succeeded: "good", failed: "bad", retrying: "warn" };

/** A job's page in the dashboard. */
export const jobLink = (id, text = id) => el("a", { class: "name job", href: dashboardUrl(`jobs/${id}`), text });

/** Heads of a table of events; narrow tables have the first four. */
export const HEADS = ["Time", "What", "Took", "Job", "Worker", "Position"];

/** One event as cells, as many as there are heads; *showJob*(id, opener) shows its job. */
export function cells(event, showJob) {
  return [
    el("time", { datetime: event.at, title: event.at, text: moment(Date.parse(event.at)) }),
    event.kind === "job" ? job(event) : observation(event),
    event.kind === "job" ? took(event) : "",
    event.job_id ? el("span", { class: "links" }, jobLink(event.job_id, `…${event.job_id.slice(-8)}`), history(event.job_id, showJob)) : "",
    name(event.worker),
    el("span", { class: "quiet", text: `${event.position}:${event.index ?? 0}` }),
  ];
}

function job(event) {
  return el("span", {}, el("span", { class: `state ${STATES[event.state] ?? ""}`, text: event.state }), " ", name(event.func), " ",
    el("span", { class: "quiet" }, "on ", name(event.queue), event.attempt > 1 ? `, attempt ${event.attempt}` : ""),
    event.error ? el("span", { class: "error" }, name(event.error)) : null);
}

function observation(event) {
  return el("span", {}, el("span", { class: "state", text: event.kind }), " ", name(event.key), " = ",
    el("b", { text: number(event.value, event.unit) }), hasScale(event.unit) ? null : el("span", { class: "quiet" }, " ", name(event.unit)));
}

function took(event) {
  const parts = [["ran", event.run_s], ["waited", event.wait_s]].filter(([, seconds]) => seconds !== undefined);
  return parts.map(([verb, seconds]) => el("span", { class: "took" }, el("span", { class: "quiet", text: `${verb} ` }), number(seconds, "seconds")));
}

/** A button that shows the history of a job. */
const history = (id, showJob) => el("button", { type: "button", class: "small", "aria-label": `History of job ${id}`, text: "history", onclick: (event) => showJob(id, event.target) });
