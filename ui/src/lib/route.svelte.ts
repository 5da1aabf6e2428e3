/** Where the window is: `#/containers/ID/logs`. The address is the only place that remembers it. */
export const SCREENS = ["containers", "compose", "images", "builds", "volumes", "networks", "registries", "machine"] as const;
export type Screen = (typeof SCREENS)[number];

export interface Place {
  screen: Screen;
  /** What is shown at the side: a container's id, or `new` for the form. */
  item: string | null;
  tab: string | null;
}

export function readPlace(hash: string): Place {
  const [screen, item, tab] = hash.replace(/^#\/?/, "").split("/");
  const known = SCREENS.find((candidate) => candidate === screen);
  if (known === undefined) return { screen: "containers", item: null, tab: null };
  return { screen: known, item: item || null, tab: tab || null };
}

export function href(screen: Screen, item?: string | null, tab?: string | null): string {
  return `#/${[screen, item, tab].filter(Boolean).join("/")}`;
}

export class Route {
  place = $state<Place>(readPlace(""));

  /** Follows the address until the returned function is called. */
  follow(): () => void {
    const read = () => {
      this.place = readPlace(location.hash);
    };
    read();
    window.addEventListener("hashchange", read);
    return () => window.removeEventListener("hashchange", read);
  }
}
