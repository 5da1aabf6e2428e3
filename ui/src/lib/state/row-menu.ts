/** Where the menu of a row opens, and where the browser's own menu is of use: nowhere but on what is typed or selected. */

export interface Spot {
  x: number;
  y: number;
  /** What gets the focus back. */
  from: HTMLElement | null;
}

/** What one types in, or reads as a terminal. */
const TYPED = "textarea, [contenteditable], .xterm, input:not([type='checkbox'], [type='radio'])";

/** Whether the browser's own menu is wanted: to copy what is selected, or to paste. */
export function keepsOwnMenu(target: EventTarget | null, selection: Selection | null = getSelection()): boolean {
  if (!(target instanceof Element)) return false;
  if (target.closest(TYPED) !== null) return true;
  return selection !== null && !selection.isCollapsed && selection.containsNode(target, true);
}

/** Whether a key asks for the menu of what has the focus. */
export function asksForMenu(event: KeyboardEvent): boolean {
  return event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey);
}

/** Where the menu that is asked for opens; null where none is, or the browser's own is wanted. */
export function menuSpot(event: MouseEvent | KeyboardEvent): Spot | null {
  const from = document.activeElement instanceof HTMLElement ? document.activeElement : null;
  if (event instanceof KeyboardEvent) {
    if (!asksForMenu(event) || !(event.target instanceof Element)) return null;
    event.preventDefault();
    const box = event.target.getBoundingClientRect();
    return { x: box.left, y: box.bottom, from };
  }
  if (keepsOwnMenu(event.target)) return null;
  event.preventDefault();
  return { x: event.clientX, y: event.clientY, from };
}

/**
 * Whether the focus goes elsewhere for good: not to another part of the row, and neither to a menu or a dialog, from which it
 * comes back, nor with the window's.
 */
export function leavesRow(event: FocusEvent, row: Element): boolean {
  const to = event.relatedTarget;
  if (!(to instanceof Element)) return document.hasFocus();
  return !row.contains(to) && to.closest("dialog, [role=menu]") === null;
}
