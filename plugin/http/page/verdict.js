// What the strip says of a status, as text: pure, so that it can be tested without a browser.

import { number, whole } from "./numbers.js";
import { ago, length } from "./times.js";

/** The word for the whole, and whether it is a good one. Where nobody has looked it does not stand alone. */
export function verdict(status) {
  if (status.unhealthy.length) return ["bad", "Unhealthy"];
  return ["good", status.not_looked_at.length ? "Healthy, as far as anybody has looked" : "Healthy"];
}

/** Facts with their values, a name of the user's apart from what follows it, and "warn" or "bad" where they are that. */
export function facts(status) {
  const { completeness, verified } = status;
  const now = Date.parse(status.at);
  const faults = verified ? verified.different + verified.found : 0;
  return [
    ["Lag", status.oldest_waiting_s < 0.05 ? "none" : length(status.oldest_waiting_s * 1_000), status.unhealthy.length && status.pending_batches ? "warn" : ""],
    ["Position", `${whole(status.position)}${status.ordered_position > status.position ? ` of ${whole(status.ordered_position)}` : ""}`],
    ["Folded by", status.folded_by ? [status.folded_by, ` ${ago(Date.parse(status.folded_at), now)}`] : "nobody yet"],
    ...(status.replayed_at ? [["Standby, as of", ago(Date.parse(status.replayed_at), now)]] : []),
    ["Events", `${number(status.events_per_s)}/s`],
    ["Holes", whole(completeness.holes), completeness.holes ? "bad" : ""],
    ...(completeness.set_aside ? [["Set aside", whole(completeness.set_aside), "bad"]] : []),
    ["Dead letters", whole(completeness.dead_letters), completeness.dead_letters ? "bad" : ""],
    ["Failing rules", whole(completeness.failing_rules.length), completeness.failing_rules.length ? "bad" : ""],
    ["Unclean ends", whole(completeness.ended_uncleanly), completeness.ended_uncleanly ? "warn" : ""],
    ...held("Lost at an end", completeness.lost, "bad"),
    ...held("Uncertain", completeness.uncertain, "warn"),
    ...held("In memory", completeness.in_memory, "warn"),
    ["Dropped", whole(completeness.dropped), completeness.dropped ? "warn" : ""],
    ["Drift", faults || verified?.share.whole ? whole(faults) : "not checked", faults ? "bad" : ""],
    ["Compared", verified ? percent(verified.share.whole) : "nothing"],
    ["Last verify", lastVerify(status, now)],
    ["Last check", ...lastCheck(status.checked, now)],
    ["Log", number(status.log_bytes, "bytes")],
    ["Series", whole(status.series)],
  ];
}

/** What sessions held or lost, by kind; no fact where that is nothing. */
function held(term, kinds, how) {
  const words = { observations: "observations", job_updates: "job updates", dropped: "dropped from a full buffer" };
  const parts = Object.entries(kinds).filter(([, count]) => count).map(([kind, count]) => `${whole(count)} ${words[kind] ?? kind}`);
  return parts.length ? [[term, parts.join(", "), how]] : [];
}

function lastVerify({ verified, version }, now) {
  if (!verified) return "never";
  const when = ago(Date.parse(verified.at), now);
  return verified.version === version ? when : `${when}, of version ${verified.version}`;
}

/** When the log was checked, and whether that found what nobody has given up. */
function lastCheck(checked, now) {
  if (!checked) return ["never"];
  const open = checked.found - checked.given_up;
  return [ago(Date.parse(checked.at), now) + (open ? `, ${whole(open)} found` : ""), open ? "bad" : ""];
}

/** A share: 0 % and 100 % are nothing and all, not nearly so. */
function percent(share) {
  if (share <= 0) return "nothing";
  return share >= 1 ? "100 %" : `${Math.min(Math.max(share * 100, 0.1), 99.9).toFixed(1)} %`;
}
