import { mount, unmount } from "svelte";
import App from "./App.svelte";
import "./app.css";
import { connect } from "./lib/host";

const target = document.getElementById("app");
if (target) {
  const host = await connect();
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
