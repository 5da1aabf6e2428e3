import { mount, unmount } from "svelte";
import App from "./App.svelte";
import "./app.css";
import { connect } from "./lib/host";
import Opening from "./lib/parts/Opening.svelte";
import { recallMachine } from "./lib/state/last-machine";
import { chosenTheme, showTheme } from "./lib/state/theme";

const target = document.getElementById("app");
if (target) {
  showTheme(chosenTheme());
  const opening = mount(Opening, { target });
  const host = await connect();
  // Before anything is shown, so that nobody takes one machine for the other.
  await recallMachine(host);
  await unmount(opening);
  let shown: Record<string, unknown> = {};
  const show = (): void => {
    shown = mount(App, { target, props: { host, switched } });
  };
  /** What the page knows is about one machine. For another one it begins anew. */
  const switched = (): void => {
    void unmount(shown);
    show();
  };
  show();
}
