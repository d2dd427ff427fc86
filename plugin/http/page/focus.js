// Keep the keyboard's focus: if its element is removed, hidden or disabled, the nearest one that is left takes it.

const TAKES_FOCUS = "a[href], button, input, select, textarea, summary, [tabindex]";

/** Keep the focus from falling back to the start of the document; *main* takes it if no other element can. */
export function keepFocus(main) {
  let focused = null, around = [];
  addEventListener("focusin", ({ target }) => {
    focused = target;
    around = ancestors(target);
  });
  const changes = new MutationObserver(() => {
    if (focused && document.activeElement === document.body && !canHaveFocus(focused)) {
      nearest(around, main).focus({ preventScroll: true });
    }
  });
  changes.observe(document.body, { subtree: true, childList: true, attributeFilter: ["hidden", "disabled"] });
}

function ancestors(element) {
  const found = [];
  for (let one = element.parentElement; one && one !== document.body; one = one.parentElement) found.push(one);
  return found;
}

const canHaveFocus = (element) => element.isConnected && element.checkVisibility() && !element.disabled;

function nearest(around, main) {
  for (const one of around.filter((one) => one.isConnected && one.checkVisibility())) {
    const next = [...one.querySelectorAll(TAKES_FOCUS)].find((inside) => canHaveFocus(inside) && inside.tabIndex >= 0);
    if (next) return next;
  }
  return main;
}
