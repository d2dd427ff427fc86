// A new installation: say why there are no numbers yet, and choose the first series to show.

import { ask, SignedOut } from "./api.js";
import { byId, el } from "./dom.js";
import { whole } from "./numbers.js";
import { DAY, rangeSince } from "./times.js";

const AGAIN_MS = 1_000;
/** Series that are shown first, if they exist and the address names none. */
const FIRST = ["global:status:succeeded", "global:status:failed"];
const MAX_SERIES = 4;

/** The series to start with: the states of jobs, the times of queues, or else any; [] if there is none. */
export async function firstKeys() {
  const [states, queues] = [await ask("series", { prefix: "global:status", limit: 20 }), await ask("series", { prefix: "queue:", limit: 50 })];
  const known = states.series.map((one) => one.key);
  const times = queues.series.filter((one) => one.type === "histogram").map((one) => one.key);
  const keys = [...FIRST.filter((key) => known.includes(key)), ...times.slice(0, 2)];
  if (keys.length) return keys;
  const { series } = await ask("series", { limit: MAX_SERIES });
  return series.map((one) => one.key);
}

/** The shortest range that has all points of the series from the last day; null if there are none. */
export async function fittingRange(keys) {
  const answers = await Promise.all(keys.map((key) => ask("points", { key, resolution: "5min", range: DAY / 1_000 })));
  const first = answers.map(({ buckets }) => buckets.find((bucket) => bucket.sum || bucket.last !== undefined)).filter(Boolean).map(({ at }) => Date.parse(at));
  return first.length ? rangeSince(Math.min(...first)) : null;
}

/** Say why there are no numbers until there are series, whose keys are returned, or *goesOn* returns false. */
export async function firstNumbers(goesOn) {
  const note = byId("nothing");
  while (goesOn()) {
    try {
      const keys = await firstKeys();
      if (keys.length) return keys;
      tell(note, reasons(await ask("status")));
    } catch (error) {
      if (error instanceof SignedOut) throw error;
      tell(note, [error.message]);
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
  return [];
}

function tell(note, sentences) {
  note.hidden = false;
  const shown = sentences.join("\n");
  if (note.dataset.shown === shown) return; // a screen reader hears it once
  note.dataset.shown = shown;
  note.replaceChildren(el("h2", { text: "There are no numbers yet" }), ...sentences.map((text) => el("p", { text })));
}

/** Sentences on why the log has no series, and what happens next. */
export function reasons(status) {
  const waiting = status.pending_batches;
  const next = "This page shows them as soon as they are folded.";
  if (waiting && !status.folded_by) {
    return [`${waiting === 1 ? "One batch" : `${whole(waiting)} batches`} of events wait, and no worker has folded any yet: a worker does within 5 s of its start. If none runs, start one, or run \u201cchancy-metrics fold\u201d.`, next];
  }
  if (waiting) return [`${waiting === 1 ? "One batch" : `${whole(waiting)} batches`} of events wait for the next fold.`, next];
  if (!status.position && !status.ordered_position) {
    return ["Nothing has been recorded yet. A worker records each attempt of a job, and everything your code observes. The first numbers appear about 5 s later, and new ones after each sync_interval.", next];
  }
  return ["All recorded numbers have expired, and nothing has been recorded since.", next];
}
