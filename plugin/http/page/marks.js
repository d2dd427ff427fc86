// Draw marks over a chart: a line each, with its text on the side that has room for it.

import { el, visible } from "./dom.js";

/** Pixels per letter, about; a text with fewer pixels than LEAST is left out, since the list of marks has it. */
const LETTER = 6.3, LEAST = 34, SPACE = 6;

/** Lines for *marks*, which stand at *shares* (0 to 1) of an area so many pixels wide. */
export function markLines(marks, shares, width) {
  let taken = 0;
  return marks.map((mark, index) => {
    const text = visible(mark.text);
    const at = shares[index] * width;
    const [before, behind] = [at - taken - SPACE, ((shares[index + 1] ?? 1) * width) - at - SPACE];
    const wanted = text.length * LETTER;
    const left = behind < wanted && before > behind;
    const room = left ? before : behind;
    taken = left ? at : at + SPACE + Math.min(wanted, behind) + SPACE;
    const line = el("div", { class: `mark${left ? " left" : ""}`, title: text },
      room < Math.min(LEAST, wanted) ? null : el("span", { text }));
    line.style.left = `${100 * shares[index]}%`;
    if (line.firstChild) line.firstChild.style.maxWidth = `${room}px`;
    return line;
  });
}
