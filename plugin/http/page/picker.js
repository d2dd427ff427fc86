// Choose series: a combobox that searches while the user types, and the list of the chosen ones.

import { ask } from "./api.js";
import { announce, byId, debounced, el, name, visible } from "./dom.js";
import { MAX_CHARTS } from "./charts.js";
import { whole } from "./numbers.js";

const LISTED = 50;

export class Picker {
  /** *change*(changes, push) changes the view. */
  constructor(change) {
    this.change = change;
    this.keys = [];
    this.input = byId("search");
    this.list = byId("found");
    this.active = -1;
    this.asked = null;
    const search = debounced(() => this.search(), 120);
    this.input.addEventListener("input", search);
    this.input.addEventListener("focus", () => this.search());
    this.input.addEventListener("keydown", (event) => this.#press(event));
    this.input.addEventListener("blur", () => this.close());
    this.list.addEventListener("pointerdown", (event) => event.preventDefault()); // the input keeps the focus
  }

  /** List the series whose key has each of the words in the field. */
  async search() {
    this.asked?.abort();
    this.asked = new AbortController();
    const search = this.input.value.trim();
    try {
      const page = await ask("series", { search, limit: LISTED }, this.asked.signal);
      if (document.activeElement === this.input) this.#list(page, search);
    } catch (error) {
      if (error.name !== "AbortError") this.#say(error.message);
    }
  }

  close() {
    this.asked?.abort();
    this.list.hidden = true;
    this.active = -1;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
  }

  /** Show the chosen keys as a list from which each can be removed. */
  showChosen(keys) {
    this.keys = keys;
    const over = keys.length > MAX_CHARTS ? [el("li", { class: "problem", text: `Only the first ${MAX_CHARTS} series are drawn.` })] : [];
    byId("chosen").replaceChildren(
      ...keys.map((key) => el("li", {}, name(key), el("button", {
        type: "button", "aria-label": `Remove ${visible(key)}`, text: "×", onclick: () => this.#toggle(key),
      }))),
      ...over,
      ...(keys.length > 1 ? [el("li", { class: "all" }, el("button", { type: "button", text: "Remove all", onclick: () => this.change({ keys: [] }, true) }))] : []),
    );
  }

  #list(page, search) {
    const { keys } = this;
    this.options = page.series.map((one) => ({ ...one, keys: [one.key] }));
    const free = page.series.map((one) => one.key).filter((key) => !keys.includes(key));
    const free_count = Math.min(free.length, MAX_CHARTS - keys.length);
    if (free_count > 1) this.options.unshift({ all: `Add ${free_count === page.matching ? "all" : "the first"} ${free_count}`, keys: free.slice(0, free_count) });
    const rest = page.matching - page.series.length;
    this.list.replaceChildren(
      ...this.options.map((option, index) => el(
        "div",
        { role: "option", id: `found-${index}`, "aria-selected": String(!option.all && keys.includes(option.key)), onclick: () => this.#take(index) },
        option.all ? el("span", { text: option.all }) : name(option.key),
        el("span", { class: "quiet", text: option.all ? "" : `${option.type} · ${visible(option.unit)}` }),
      )),
    );
    if (!this.options.length) this.#say(search ? "No key contains these words" : "There are no series yet");
    else if (rest > 0) this.list.append(el("div", { class: "quiet more", role: "presentation", text: `… and ${whole(rest)} more: type to narrow the list` }));
    this.#open();
    announce(`${whole(page.matching)} series`);
  }

  #say(text) {
    this.options = [];
    this.list.replaceChildren(el("div", { role: "option", "aria-disabled": "true", "aria-selected": "false", class: "quiet", text }));
    this.#open();
  }

  #open() {
    this.active = -1;
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.input.removeAttribute("aria-activedescendant");
  }

  #press(event) {
    const last = (this.options?.length ?? 0) - 1;
    if (event.key === "Escape") return this.close();
    if (event.key === "Enter") {
      event.preventDefault();
      const exact = this.options?.findIndex((option) => option.key === this.input.value.trim()) ?? -1;
      const index = this.active >= 0 ? this.active : exact >= 0 ? exact : last === 0 ? 0 : -1;
      return index >= 0 && this.#take(index);
    }
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return undefined;
    event.preventDefault();
    if (this.list.hidden) return this.search();
    const step = event.key === "ArrowDown" ? 1 : -1;
    return this.#activate(Math.min(Math.max(this.active + step, 0), last));
  }

  #activate(index) {
    if (index < 0) return;
    this.list.children[this.active]?.classList.remove("active");
    this.active = index;
    const option = this.list.children[index];
    option.classList.add("active");
    option.scrollIntoView({ block: "nearest" });
    this.input.setAttribute("aria-activedescendant", option.id);
  }

  #take(index) {
    const option = this.options[index];
    if (option.all) {
      this.change({ keys: [...this.keys, ...option.keys] }, true);
      this.close();
    } else {
      this.#toggle(option.key);
      this.list.children[index].setAttribute("aria-selected", String(this.keys.includes(option.key)));
    }
  }

  #toggle(key) {
    const { keys } = this;
    const has = keys.includes(key);
    if (!has && keys.length >= MAX_CHARTS) return announce(`At most ${MAX_CHARTS} series are shown at once`);
    announce(`${visible(key)} ${has ? "removed" : "added"}`);
    return this.change({ keys: has ? keys.filter((one) => one !== key) : [...keys, key] }, true);
  }
}
