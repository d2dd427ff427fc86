// Format numbers for people; a missing one is a dash.

const SCALES = {
  seconds: [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"], [1e-3, "ms"], [1e-6, "µs"]],
  bytes: [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]],
};
const PLAIN = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** Whether numbers of this unit are shown with a scaled unit, such as ms or MB. */
export const hasScale = (unit) => unit in SCALES;

/** A value to three digits in the largest scale it fills once rounded, counts below a million in full. */
export function number(value, unit = "count") {
  if (value === null || value === undefined) return "–";
  if (unit === "share") return percent(value);
  const scales = SCALES[unit] ?? PLAIN;
  const space = hasScale(unit) ? " " : "";
  if (value === 0) return `0${space}${scales.find(([size]) => size === 1)[1]}`;
  const size = Math.abs(value);
  if (!hasScale(unit) && Number.isInteger(value) && size < 1_000_000) return WHOLE.format(value);
  if (!hasScale(unit) && size >= 1e15) return value.toExponential(2);
  if (!hasScale(unit) && size < 1) return size < 1e-3 ? value.toExponential(1) : String(rounded(value));
  let index = scales.findIndex(([least]) => size >= least);
  if (index < 0) index = scales.length - 1;
  // 59.99 s are a minute, and 999.9 MB a gigabyte.
  if (index > 0 && rounded(size / scales[index][0]) * scales[index][0] >= scales[index - 1][0] * (1 - 1e-9)) index -= 1;
  const [least, suffix] = scales[index];
  return `${written(rounded(value / least))}${suffix ? space + suffix : ""}`;
}

/** A share in percent, to two digits; only none is 0 %, and only all is 100 %. */
export function percent(share) {
  if (share === 0 || share === 1) return `${share * 100} %`;
  return `${Number(Math.min(Math.max(share * 100, 0.01), 99.99).toPrecision(2))} %`;
}

/** A number per second, as one of at least 1 per second, minute or hour, or else per day. */
export function rate(per_s) {
  if (!per_s) return "0";
  const [length_s, unit] = [[1, "s"], [60, "min"], [3_600, "h"]].find(([length_s]) => rounded(per_s * length_s) >= 1) ?? [86_400, "d"];
  return `${number(rounded(per_s * length_s))}/${unit}`;
}

/** Counting the jobs of a queue stops here: a depth of so many is at least so many. */
const MOST_JOBS = 100_000;
const DEPTH = /^queue:.*:depth:(pending|running|retrying|scheduled)$/s;

/** How many jobs a queue holds. */
export const jobs = (count) => (count >= MOST_JOBS ? `≥ ${whole(count)}` : whole(count));

/** A value of a series. */
export const valueOf = (key, value, unit) => (value >= MOST_JOBS && unit === "jobs" && DEPTH.test(key) ? jobs(value) : number(value, unit));

const rounded = (value) => Number(value.toPrecision(3));
/** Past the largest scale, and below the smallest, the digits would not fit. */
const written = (value) => (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3 ? value.toExponential() : String(value));

/** Return the sum, capped at the largest number, as the server's sums are. */
export function total(values) {
  const sum = values.reduce((before, one) => before + (one ?? 0), 0);
  return Math.max(-Number.MAX_VALUE, Math.min(Number.MAX_VALUE, sum));
}

export const whole = (value) => (value === null || value === undefined ? "–" : WHOLE.format(value));

/** Two to six round numbers from *low* to *high*. */
export function ticks(low, high) {
  const rough = high / 5 - low / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((one) => one >= rough) ?? rough;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high * (1 + 1e-9); at += 1) found.push(at * step);
  return found;
}
