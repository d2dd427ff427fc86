// A new installation: why there are no numbers yet and when the first ones come, and the charts to begin with.

import { ask } from "./api.js";
import { whole } from "./numbers.js";

/** Series that are shown first, if they exist and the address names none. */
const FIRST = ["global:status:succeeded", "global:status:failed"];
const MAX_SERIES = 4;
/** Sync intervals after which some worker folds, unless none runs. */
const PATIENCE = 1.5;

/** The series to start with: the states of jobs, the times of queues, or else any; [] if there is none. */
export async function firstKeys() {
  const [states, queues] = [await ask("series", { prefix: "global:status", limit: 20 }), await ask("series", { prefix: "queue:", limit: 50 })];
  const known = states.series.map((one) => one.key);
  const times = queues.series.filter((one) => one.type === "histogram" && one.unit === "seconds").map((one) => one.key);
  const keys = [...FIRST.filter((key) => known.includes(key)), ...times.slice(0, 2)];
  if (keys.length) return keys;
  const { series } = await ask("series", { limit: MAX_SERIES });
  return series.map((one) => one.key);
}

/** A title and sentences on why there is nothing to show, and what happens next; *isRecorded*: something else was. */
export function reasons(status, isRecorded) {
  const waiting = status.pending_batches;
  const batches = waiting === 1 ? "One batch of events waits" : `${whole(waiting)} batches of events wait`;
  const left_s = Math.ceil(PATIENCE * status.sync_interval_s - status.oldest_waiting_s);
  const start = "If no worker runs, start one, or run \u201cchancy-metrics fold\u201d.";
  if (waiting && left_s > 0) return [`First numbers within ${left_s} s`, `${batches} to be folded.`, start];
  if (waiting) return ["The first numbers are late", `${batches}, and nobody has folded any for ${whole(status.oldest_waiting_s)} s. ${start}`];
  if (isRecorded) return ["No job has ended in this range", "A worker records each attempt of a job when it ends. Choose a longer range, or look at the charts of what else was recorded."];
  if (!status.position && !status.ordered_position) {
    const within_s = Math.ceil(PATIENCE * status.sync_interval_s);
    return [
      "There are no numbers yet",
      "Nothing has been recorded. A worker records each attempt of a job when it ends, and everything that your code observes.",
      `This page shows the first numbers within ${within_s} s of the first job, mostly sooner.`,
    ];
  }
  return ["There are no numbers any more", "All recorded numbers have expired, and nothing has been recorded since.", "This page shows new ones as soon as they are folded."];
}
