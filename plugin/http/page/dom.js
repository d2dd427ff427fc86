// Make elements from text, never from markup: a key or an error is shown, not parsed.

/** A name longer than so many characters may be cut, and has a title with all of it. */
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

/** Show a user's name as it is, even if it runs from right to left or has marks that reverse text. */
export const name = (text) =>
  el("bdi", { class: "name", title: text.length > LONG ? visible(text) : null }, visible(text).split(/(?<=[.:])/).flatMap((part, index) => (index ? [el("wbr"), part] : [part])));

/** The parts of a server's sentence; text between backticks is a command or a setting. */
export const sentence = (text) => String(text).split("`").map((part, index) => (index % 2 ? el("code", { text: part }) : part));

/** Replace invisible characters (controls, zero-width and direction marks) by their code points. */
export const visible = (text) =>
  String(text).replace(
    /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g,
    (mark) => `⟨U+${mark.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );

export const byId = (id) => document.getElementById(id);

/** A button, seen on phones alone, that unfolds what *container* folds there: all children but those that stay. */
export function foldButton(container, text) {
  container.classList.add("foldable");
  const button = el("button", { type: "button", class: "stays fold", "aria-expanded": "false", text, onclick: () => {
    button.setAttribute("aria-expanded", String(container.classList.toggle("unfolded")));
  } });
  return button;
}

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

/** Call *action* once there has been no call for *wait_ms* milliseconds. */
export function debounced(action, wait_ms) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...given), wait_ms);
  };
}
