/**
 * Components on a page of their own, for tests. What is in them is found as a person finds it, by the words of a button or a
 * field. Nothing is laid out: every element is 0 pixels large, unless a test says otherwise.
 */
import { type Component, flushSync, mount, unmount } from "svelte";
import { onTestFinished } from "vitest";
import { MemoryHost } from "./host/memory";
import { Engine, setEngine } from "./state/engine.svelte";

type Control = HTMLButtonElement | HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement;

/** A host with a machine that runs. */
export function memory(containers = 14, lines = 0): MemoryHost {
  return new MemoryHost({ containers, lines, machine: "running" });
}

const leaving = new WeakMap<Element, () => Promise<void>>();

/** Mounts a component in a window with this engine, until the test ends or leaves it; what it is on. */
export function mounted<Props extends Record<string, unknown>>(Part: Component<Props>, props: Props, engine = new Engine(memory(0))): HTMLElement {
  const target = document.body.appendChild(document.createElement("div"));
  // The window gives the engine to its parts as a context, which only a component can set.
  const InWindow: Component<Props> = (internals, given) => {
    setEngine(engine);
    return Part(internals, given);
  };
  const part = mount(InWindow, { target, props });
  const leave = async () => {
    if (!leaving.delete(target)) return;
    await unmount(part);
    target.remove();
  };
  leaving.set(target, leave);
  onTestFinished(leave);
  flushSync();
  return target;
}

/** Goes elsewhere, as a person does who has seen enough. */
export async function leave(page: Element): Promise<void> {
  await leaving.get(page)?.();
}

/** What can be read in it, with one space between words. */
export function words(within: Element | null): string {
  return (within?.textContent ?? "").replace(/\s+/g, " ").trim();
}

/** What can be read in each element that the selector finds. */
export function all(within: Element, selector: string): string[] {
  return [...within.querySelectorAll(selector)].map(words);
}

export function one<Found extends Element = HTMLElement>(within: Element, selector: string): Found {
  const [found, second] = within.querySelectorAll<Found>(selector);
  if (found === undefined || second !== undefined) throw new Error(`not one ${selector} in: ${within.innerHTML}`);
  return found;
}

/** What a button or a field is called where it is read out. */
function nameOf(control: Control): string {
  const label = control.getAttribute("aria-label") ?? (control instanceof HTMLButtonElement ? words(control) : null);
  if (label !== null) return label;
  const around = control.closest("label")?.cloneNode(true);
  if (!(around instanceof Element)) return "";
  for (const part of around.querySelectorAll("select, textarea")) part.remove();
  return words(around);
}

function offered(control: Control): boolean {
  return !control.disabled && control.closest("fieldset[disabled]") === null;
}

/** The names of all buttons in it, or of those only that can be pressed. */
export function buttons(within: Element, enabled = true): string[] {
  return [...within.querySelectorAll("button")].filter((button) => !enabled || offered(button)).map(nameOf);
}

/** The button or the field of that name. */
export function control<Found extends Control = HTMLButtonElement>(within: Element, name: string): Found {
  const found = [...within.querySelectorAll<Found>("button, input, textarea, select")].filter((one) => nameOf(one) === name);
  if (found[0] === undefined || found.length > 1) throw new Error(`${found.length} controls \`${name}\` in: ${within.innerHTML}`);
  return found[0];
}

/** Presses a button, a check box or a radio button, as long as a person could. */
export function press(within: Element, name: string): void {
  const found = control(within, name);
  if (!offered(found)) throw new Error(`\`${name}\` cannot be pressed`);
  found.click();
  flushSync();
}

/** Writes into a field. Nothing can be chosen in a list: happy-dom finds no option by `:checked`, as Svelte looks for it. */
export function fill(within: Element, name: string, value: string): void {
  const field = control<HTMLInputElement>(within, name);
  if (!offered(field)) throw new Error(`\`${name}\` cannot be typed into`);
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  flushSync();
}

/** Strikes a key; whether nobody heard it, so that the browser does what it does. */
export function strike(on: Element, key: string, held: KeyboardEventInit = {}): boolean {
  const unheard = on.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...held }));
  flushSync();
  return unheard;
}

/** What Escape does to a dialog; whether it stays. */
export function dismiss(within: Element): boolean {
  const stays = !one(within, "dialog").dispatchEvent(new Event("cancel", { cancelable: true }));
  flushSync();
  return stays;
}
