// Turn a status into the texts of the status strip; pure functions.

import { number, whole } from "./numbers.js";
import { ago, length } from "./times.js";

/** Whether the status is good, and a word for it, which says so if something was never checked. */
export function verdict(status) {
  if (status.unhealthy.length) return ["bad", "Unhealthy"];
  if (!status.series) return ["new", "No numbers yet"];
  return ["good", status.not_looked_at.length ? "Healthy as far as checked" : "Healthy"];
}

/** Terms with their values and "warn", "bad" or nothing; a value that starts with a user's name is [name, rest]. */
export function facts(status) {
  const { completeness, verified } = status;
  const now = Date.parse(status.at);
  const faults = verified ? verified.different + verified.found : 0;
  return [
    ["Lag", status.oldest_waiting_s < 0.05 ? "none" : length(status.oldest_waiting_s * 1_000), status.unhealthy.length && status.pending_batches ? "warn" : ""],
    ["Position", `${whole(status.position)}${status.ordered_position > status.position ? ` of ${whole(status.ordered_position)}` : ""}`],
    ["Folded by", status.folded_by ? [status.folded_by, ` ${ago(Date.parse(status.folded_at), now)}`] : "no worker yet"],
    ...(status.replayed_at ? [["Standby, as of", ago(Date.parse(status.replayed_at), now)]] : []),
    ["Events", `${number(status.events_per_s)}/s`],
    ["Holes", whole(completeness.holes), completeness.holes ? "bad" : ""],
    ...(completeness.set_aside ? [["Set aside", whole(completeness.set_aside), "bad"]] : []),
    ["Dead letters", whole(completeness.dead_letters), completeness.dead_letters ? "bad" : ""],
    ["Failing rules", whole(completeness.failing_rules.length), completeness.failing_rules.length ? "bad" : ""],
    ["Unclean ends", whole(completeness.ended_uncleanly), completeness.ended_uncleanly ? "warn" : ""],
    ...held("Lost at a stop", completeness.lost, "bad"),
    ...held("Uncertain", completeness.uncertain, "warn"),
    ...held("In memory", completeness.in_memory, "warn"),
    ["Dropped", whole(completeness.dropped), completeness.dropped ? "warn" : ""],
    ...(completeness.dropped_job_updates ? [["Dropped job updates", whole(completeness.dropped_job_updates), "bad"]] : []),
    ["Drift", faults || verified?.share.whole ? whole(faults) : "not checked", faults ? "bad" : ""],
    ["Compared", verified ? percent(verified.share.whole) : "nothing"],
    ["Last verify", lastVerify(status, now)],
    ["Last check", ...lastCheck(status.checked, now)],
    ["Log", number(status.log_bytes, "bytes")],
    ["Series", whole(status.series)],
  ];
}

/** What sessions held or lost, by kind; nothing if that is nothing. */
function held(term, kinds, how) {
  const words = { observations: "observations", job_updates: "job updates", dropped: "dropped observations", dropped_job_updates: "dropped job updates" };
  const parts = Object.entries(kinds).filter(([, count]) => count).map(([kind, count]) => `${whole(count)} ${words[kind] ?? kind}`);
  return parts.length ? [[term, parts.join(", "), how]] : [];
}

function lastVerify({ verified, version }, now) {
  if (!verified) return "never";
  const when = ago(Date.parse(verified.at), now);
  return verified.version === version ? when : `${when}, of version ${verified.version}`;
}

/** When the log was checked, and how many findings are not given up. */
function lastCheck(checked, now) {
  if (!checked) return ["never"];
  const open = checked.found - checked.given_up;
  return [ago(Date.parse(checked.at), now) + (open ? `, ${whole(open)} found` : ""), open ? "bad" : ""];
}

/** A share as a percentage; only none is "nothing", and only all is 100 %. */
function percent(share) {
  if (share <= 0) return "nothing";
  return share >= 1 ? "100 %" : `${Math.min(Math.max(share * 100, 0.1), 99.9).toFixed(1)} %`;
}
