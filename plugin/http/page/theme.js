// Dark or light: the system's theme, or the one chosen on this page.

const KEY = "metrics-log.theme";

/** Apply the theme; *changed* is called whenever the colors change. */
export function followTheme(select, changed) {
  const apply = (theme) => {
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", theme);
  };
  select.value = localStorage.getItem(KEY) ?? "auto";
  if (!select.value) select.value = "auto";
  apply(select.value);
  select.addEventListener("change", () => {
    localStorage.setItem(KEY, select.value);
    apply(select.value);
    changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}

const probe = document.documentElement.appendChild(document.createElement("i"));
probe.hidden = true;

/** A color of colors.css as it is now, for plotly: rgb() of the theme's half of its light-dark(). */
export function color(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}
