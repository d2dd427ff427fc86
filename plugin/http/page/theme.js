// Dark or light: the system's choice, or the reader's for this page.

const KEY = "metrics-log.theme";

/** Set the theme up; *changed* is called whenever colors are others. */
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

/** A color of colors.css, as it is now. */
export const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
