/**
 * The panes of the window, which a key leads through in turn: the way out of a terminal above all, which takes every
 * other key. A pane is an element with `data-pane` that holds no other.
 */
const PANES = "[data-pane]:not(:has([data-pane]))";
const FOCUSABLE = 'a[href], button:not(:disabled), input:not(:disabled), select:not(:disabled), textarea:not(:disabled), [tabindex="0"]';

/** How many panes a key leads on: Ctrl+F6 one, with Shift one back, and all others none. */
export function paneStep(event: Pick<KeyboardEvent, "key" | "ctrlKey" | "shiftKey" | "altKey" | "metaKey">): -1 | 0 | 1 {
  if (event.key !== "F6" || !event.ctrlKey || event.altKey || event.metaKey) return 0;
  return event.shiftKey ? -1 : 1;
}

/** Gives the focus to the next pane, or the one before, that has something to take it; after the last comes the first. */
export function focusPane(step: -1 | 1): void {
  const panes = [...document.querySelectorAll<HTMLElement>(PANES)];
  if (step < 0) panes.reverse();
  const at = panes.findIndex((pane) => pane.contains(document.activeElement));
  for (const pane of [...panes.slice(at + 1), ...panes.slice(0, at + 1)]) {
    const first = [...pane.querySelectorAll<HTMLElement>(FOCUSABLE)].find((element) => element.getClientRects().length > 0);
    if (first === undefined) continue;
    first.focus();
    return;
  }
}
