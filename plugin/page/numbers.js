// Numbers as people read them; what is not known is a dash.

const SCALES = {
  seconds: [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"], [1e-3, "ms"], [1e-6, "µs"]],
  bytes: [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]],
};
const PLAIN = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** Whether a number of this unit carries its unit with it. */
export const hasScale = (unit) => unit in SCALES;

/** A value to three digits, counts below a million in full. */
export function number(value, unit = "count") {
  if (value === null || value === undefined) return "–";
  if (value === 0) return hasScale(unit) ? `0 ${SCALES[unit].find(([size]) => size === 1)[1]}` : "0";
  const size = Math.abs(value);
  if (!hasScale(unit) && Number.isInteger(value) && size < 1_000_000) return WHOLE.format(value);
  const scale = (SCALES[unit] ?? PLAIN).find(([least]) => size >= least);
  if (!scale) return size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  const [least, suffix] = scale;
  return `${Number((value / least).toPrecision(3))}${suffix ? (hasScale(unit) ? " " : "") + suffix : ""}`;
}

export const whole = (value) => (value === null || value === undefined ? "–" : WHOLE.format(value));

/** Two to six round numbers from *low* to *high*. */
export function ticks(low, high) {
  const rough = (high - low) / 5 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((one) => one >= rough) ?? rough;
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high * (1 + 1e-9); at += 1) found.push(at * step);
  return found;
}
