// Elements made of text, never of markup: whatever a key or an error says, it is shown and not parsed.

/** Characters from which a name may be cut where there is little room; then it has its whole as a title. */
const LONG = 60;

/** Make an element: properties, `data-`/`aria-` attributes and listeners (`onclick`), then children or text. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "text") element.textContent = value;
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Show a name of the user's as it is, also when it is written from right to left or has marks that turn the text. */
export const name = (text) =>
  el("bdi", { class: "name", title: text.length > LONG ? visible(text) : null }, visible(text).split(/(?<=[.:])/).flatMap((part, index) => (index ? [el("wbr"), part] : [part])));

/** The parts of a sentence of the server's: what stands between backticks in it is a command or a setting. */
export const sentence = (text) => String(text).split("`").map((part, index) => (index % 2 ? el("code", { text: part }) : part));

/** Make what can't be seen visible: controls, zero-width and turning marks become their code points. */
export const visible = (text) =>
  String(text).replace(
    /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g,
    (mark) => `⟨U+${mark.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );

export const byId = (id) => document.getElementById(id);

/** Tell a screen reader, politely. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** Make a table; each row is a list of cells, which are text or elements; numeric columns are set to the right. */
export function table(caption, heads, rows, numeric = []) {
  const side = (index) => (numeric.includes(index) ? "number" : null);
  return el(
    "table",
    {},
    el("caption", { text: caption }),
    el("thead", {}, el("tr", {}, heads.map((head, index) => el("th", { scope: "col", class: side(index), text: head })))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, index) => el("td", { class: side(index) }, cell))))),
  );
}

/** Call *action* once nobody has called for so many milliseconds. */
export function debounced(action, wait_ms) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...given), wait_ms);
  };
}
