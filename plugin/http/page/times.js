// Format times: in UTC, as the buckets are, or in the browser's zone if that was chosen.

export const SECOND = 1_000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;

/** Ranges that end now, by their name in the address. */
export const RANGES = {
  "15m": [15 * MINUTE, "Last 15 minutes"],
  "1h": [HOUR, "Last hour"],
  "6h": [6 * HOUR, "Last 6 hours"],
  "24h": [DAY, "Last 24 hours"],
  "7d": [7 * DAY, "Last 7 days"],
  "30d": [30 * DAY, "Last 30 days"],
  "90d": [90 * DAY, "Last 90 days"],
};

const KEY = "metrics-log.zone";
/** Whether times are shown in the browser's zone instead of in UTC. */
const isLocal = globalThis.localStorage?.getItem(KEY) === "local";  // there is none where tests run this in node

const format = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: isLocal ? undefined : "UTC", ...options });
const CLOCK = format({ hour: "2-digit", minute: "2-digit" });
const CLOCK_S = format({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DATE = format({ day: "numeric", month: "short" });
const YEAR = format({ day: "numeric", month: "short", year: "numeric" });
const ZONE = format({ timeZoneName: "short" });

export const clock = (ms) => CLOCK.format(ms);
export const date = (ms) => DATE.format(ms);

/** The name of the zone that times are shown in, as it is at a moment. */
export const zone = (ms = Date.now()) => (isLocal ? ZONE.formatToParts(ms).find((part) => part.type === "timeZoneName").value : "UTC");
export const clockWithSeconds = (ms) => `${CLOCK_S.format(ms)} ${zone(ms)}`;

const isSameDay = (one_ms, other_ms) => YEAR.format(one_ms) === YEAR.format(other_ms);
const isMidnight = (ms) => ms % MINUTE === 0 && CLOCK.format(ms) === "00:00";

/** Let *select* choose the zone: UTC, as the buckets are, or the browser's; the page, whose view is in its address, is loaded again. */
export function chooseZone(select) {
  select.value = isLocal ? "local" : "utc";
  select.addEventListener("change", () => {
    localStorage.setItem(KEY, select.value);
    location.reload();
  });
}

const ISO = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?$/;

/** Parse a moment in ISO 8601, in UTC if it names no zone; null if it is malformed. */
export function parseMoment(text) {
  const found = ISO.exec(text);
  const at = found ? Date.parse(found[1] && !found[4] ? `${text}Z` : text) : NaN;
  return Number.isFinite(at) ? at : null;
}

/** Day and time; the time alone if it is today. */
export function moment(ms, now_ms = Date.now()) {
  return isSameDay(ms, now_ms) ? clockWithSeconds(ms) : `${YEAR.format(ms)}, ${clockWithSeconds(ms)}`;
}

/** A bucket or a window, with its day. */
export function span(from_ms, to_ms) {
  const sameDay = isSameDay(from_ms, to_ms - 1);
  if (isMidnight(from_ms) && isMidnight(to_ms)) {
    return sameDay ? YEAR.format(from_ms) : `${DATE.format(from_ms)} – ${YEAR.format(to_ms - 1)}`;
  }
  const end = sameDay ? CLOCK.format(to_ms) : `${DATE.format(to_ms)} ${CLOCK.format(to_ms)}`;
  return `${DATE.format(from_ms)} ${CLOCK.format(from_ms)} – ${end} ${zone(from_ms)}`;
}

/** The start of a bucket of a window, as short as it is clear: with its day unless the whole window is of one day. */
export function bucketStart(at_ms, width_ms, from_ms, to_ms) {
  if (width_ms >= DAY && !isLocal) return YEAR.format(at_ms);
  return isSameDay(from_ms, to_ms - 1) ? CLOCK.format(at_ms) : `${DATE.format(at_ms)} ${CLOCK.format(at_ms)}`;
}

/** The shortest range that ends now and has a moment in it. */
export function rangeSince(from_ms, now_ms = Date.now()) {
  const fitting = Object.entries(RANGES).find(([, [length_ms]]) => now_ms - length_ms <= from_ms);
  return (fitting ?? Object.entries(RANGES).at(-1))[0];
}

/** How long ago, roughly. */
export function ago(ms, now_ms = Date.now()) {
  const past = Math.max(0, now_ms - ms);
  return past < SECOND ? "just now" : `${length(past)} ago`;
}

/** A length of time, in its largest unit or two, each less than one of the next. */
export function length(ms) {
  const [s, min, h] = [SECOND, MINUTE, HOUR].map((unit) => Math.round(ms / unit));
  if (s < 60) return `${s} s`;
  if (min < 60) return `${min} min`;
  return min < 24 * 60 ? two(min, 60, "h", "min") : two(h, 24, "d", "h");
}

function two(count, size, large, small) {
  const rest = count % size;
  return `${Math.floor(count / size)} ${large}${rest ? ` ${rest} ${small}` : ""}`;
}

const STEPS = [1, 2, 5, 10, 15, 30].map((n) => n * MINUTE)
  .concat([1, 2, 3, 6, 12].map((n) => n * HOUR))
  .concat([1, 2, 5, 7, 14, 30, 60].map((n) => n * DAY));

/** Where the time axis is labelled, at most *max* times: [ms, text]. */
export function timeTicks(from_ms, to_ms, max) {
  const step = STEPS.find((one) => (to_ms - from_ms) / one <= max) ?? STEPS.at(-1);
  const ticks = [];
  const offset = isLocal ? -new Date(from_ms).getTimezoneOffset() * MINUTE : 0; // so that a day begins at a label
  for (let at = Math.ceil((from_ms + offset) / step) * step - offset; at <= to_ms; at += step) {
    ticks.push([at, isMidnight(at) ? date(at) : clock(at)]);
  }
  return ticks;
}
