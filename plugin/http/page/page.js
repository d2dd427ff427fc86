// Start here: signing in, the view in the address, and the parts of the page that show it.

import { firstKeys } from "./beginning.js";
import { ask, forgetToken, onTokenChange, signIn, signedOut, SignedOut, token } from "./api.js";
import { byId } from "./dom.js";
import { Charts } from "./charts.js";
import { Controls } from "./controls.js";
import { keepFocus } from "./focus.js";
import { Explanation } from "./explain.js";
import { Overview } from "./overview.js";
import { Picker } from "./picker.js";
import { StatusStrip } from "./status.js";
import { Tail } from "./tail.js";
import { followTheme } from "./theme.js";
import { chooseZone } from "./times.js";
import { ORDERS, parse, write } from "./view.js";

const VIEWS = ["overview", "charts", "events"];

class Page {
  constructor() {
    this.view = parse(location.search);
    this.signedIn = false;
    const change = (changes, push) => this.change(changes, push);
    const showJob = (id, opener) => this.showJob(id, opener);
    this.charts = new Charts({ change, explain: (chart, index) => this.explain(chart, index) });
    this.picker = new Picker(change);
    this.controls = new Controls({ change, zoomOut: () => this.charts.zoomOut() });
    this.status = new StatusStrip();
    this.explanation = new Explanation({ change, showJob });
    this.overview = new Overview(byId("overview-view"), { change });
    this.tail = new Tail(byId("events-view"), { change, showJob });
    keepFocus(byId("main"));
    chooseZone(byId("zone"));
    followTheme(byId("theme"), () => this.charts.redraw());
    addEventListener("popstate", () => this.#open(parse(location.search)));
    signedOut.addEventListener("refused", () => this.#askToSignIn());
    onTokenChange(() => (token() ? this.start() : this.#askToSignIn()));
    byId("sign-in").addEventListener("submit", (event) => this.#signIn(event));
    byId("sign-out").addEventListener("click", () => {
      forgetToken();
      this.#askToSignIn();
    });
    for (const link of document.querySelectorAll("[data-view]")) {
      link.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        this.#go(link.dataset.view);
      });
    }
  }

  /** Show the view, or the form to sign in. */
  async start() {
    try {
      const { resolutions } = await ask("resolutions");
      this.signedIn = true;
      for (const id of ["status", "views", "sign-out"]) byId(id).hidden = false;
      byId("sign-in").hidden = true;
      this.charts.start(resolutions);
      this.status.start();
      this.overview.start({ fits: !new URLSearchParams(location.search).has("range") });
      this.tail.start();
      // They are those of charts: the other views tell their own problems.
      this.controls.load().catch((error) => this.view.view === "charts" && this.#fail(error));
      await this.#open(this.view);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Change the view and the address; *push* adds an entry to the browser's history. */
  change(changes, push) {
    const before = this.view;
    const view = { ...before, ...changes };
    const query = write(view);
    history[push && query !== write(before) ? "pushState" : "replaceState"](null, "", query ? `?${query}` : location.pathname);
    return this.#open(view, before);
  }

  /** Explain a bucket of a chart. */
  explain(chart, index) {
    const at = chart.points.buckets[index].at;
    this.explanation.opener = chart.plot;
    this.change({ of: chart.keyAt(index), at, width: chart.points.resolution, job: "" }, true);
  }

  /** Show the history of a job. */
  showJob(id, opener) {
    this.explanation.opener ??= opener;
    this.change({ job: id }, true);
  }

  async #open(view, before = {}) {
    this.view = view;
    for (const one of VIEWS) byId(`${one}-view`).hidden = view.view !== one;
    for (const link of document.querySelectorAll("[data-view]")) {
      if (link.dataset.view === view.view) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.controls.show(view);
    this.picker.showChosen(view.keys);
    this.explanation.show(view);
    this.charts.follow(view);
    this.tail.show(view);
    if (["view", "range", "find", ...Object.keys(ORDERS)].some((name) => view[name] !== before[name])) this.overview.show(view);
    const changed = (...names) => names.some((name) => view[name] !== before[name]);
    if (view.view !== "charts") return;
    if (changed("keys", "range", "since", "until", "resolution", "worker", "view")) await this.charts.show();
    else if (changed("counters", "histograms", "charts")) this.charts.redraw();
  }

  /** Show another view; charts begin with the first series there are. */
  async #go(view) {
    try {
      const keys = view === "charts" && !this.view.keys.length ? await firstKeys() : this.view.keys;
      this.change({ view, keys }, true);
    } catch (error) {
      this.#fail(error);
    }
  }

  async #signIn(event) {
    event.preventDefault();
    const form = event.target;
    byId("sign-in-problem").textContent = "";
    try {
      await signIn(form.elements.username.value, form.elements.password.value);
      form.reset();
      await this.start();
      byId("main").focus();
    } catch (error) {
      byId("sign-in-problem").textContent = error.message;
    }
  }

  #askToSignIn() {
    if (!byId("sign-in").hidden) return;
    this.signedIn = false;
    for (const part of [this.overview, this.charts, this.status, this.tail]) part.stop();
    for (const id of ["status", "views", "sign-out", ...VIEWS.map((one) => `${one}-view`), "panel"]) byId(id).hidden = true;
    byId("sign-in").hidden = false;
    byId("username").focus();
  }

  #fail(error) {
    if (error instanceof SignedOut) return;
    byId("charts-view").hidden = false;
    byId("charts-problem").textContent = error.message;
  }
}

new Page().start();
