import { expect, it, vi } from "vitest";
import { type Dropped, HostError } from "../host";
import { all, buttons, control, dismiss, memory, mounted, one, press, words } from "../mounted";
import DropAsk from "./DropAsk.svelte";

const FOLDER: Dropped = { path: "/srv/shop", name: "shop", folder: true, dockerfile: false, compose: null, shared: "read-write" };

function asked(change: Partial<Dropped>) {
  const host = memory();
  const [share, done] = [vi.spyOn(host, "shareFolder"), vi.fn()];
  const dropped = { ...FOLDER, ...change };
  const page = mounted(DropAsk, { host, dropped, done });
  return { page, share, done, dropped, question: () => words(one(page, ".mono + p")) };
}

it("a folder is shared only with the yes that says so, and for reading unless that is taken away", async () => {
  const { page, share, done, dropped, question } = asked({ shared: "no" });
  expect([question(), buttons(page)]).toEqual([expect.stringContaining("Containers cannot see this folder yet."), ["Cancel", "Share and mount"]]);
  expect(control<HTMLInputElement>(page, "Containers may only read").checked).toBe(true);
  press(page, "Containers may only read");
  press(page, "Share and mount");
  await expect.poll(() => done.mock.calls).toEqual([[dropped, { kind: "mount", readOnly: false }]]);
  expect(share.mock.calls).toEqual([["/srv/shop", false]]);
});

it("a folder that is shared is not shared again, and one that is for reading stays that", async () => {
  const free = asked({});
  expect([free.question(), control<HTMLInputElement>(free.page, "Containers may only read").checked]).toEqual(["Mount it in a new container?", false]);
  const { page, share, done, dropped, question } = asked({ shared: "read-only" });
  const box = control<HTMLInputElement>(page, "Containers may only read");
  expect([question(), box.checked, box.disabled]).toEqual(["This folder is shared for reading. Mount it in a new container?", true, true]);
  press(page, "Mount");
  await expect.poll(() => done.mock.calls).toEqual([[dropped, { kind: "mount", readOnly: true }]]);
  expect(share).not.toHaveBeenCalled();
});

it("what a folder holds is offered, the most likely first, and the button says what comes of it", () => {
  const { page, question } = asked({ dockerfile: true, compose: "compose.yaml" });
  expect(question()).toBe("What is to be done with it?");
  expect(all(page, "fieldset label")).toEqual(["Bring up its compose project (compose.yaml)", "Build an image (Dockerfile)", "Mount in a new container"]);
  expect(buttons(page)).toEqual(["Cancel", "Bring up"]);
  // Only a mount is read or written by containers as a person says here.
  expect(page.querySelector("input[type=checkbox]")).toBeNull();
  press(page, "Build an image (Dockerfile)");
  expect(buttons(page)).toEqual(["Cancel", "Build"]);
  press(page, "Mount in a new container");
  expect(buttons(page)).toEqual(["Cancel", "Mount"]);
  expect(page.querySelector("input[type=checkbox]")).not.toBeNull();
});

it("says of each use that it needs the folder shared", () => {
  const { page } = asked({ dockerfile: true, compose: "compose.yaml", shared: "no" });
  expect([buttons(page), words(page)]).toEqual([["Cancel", "Share and bring up"], expect.stringContaining("Saving the project's files from this window")]);
  press(page, "Build an image (Dockerfile)");
  expect([buttons(page), words(page)]).toEqual([["Cancel", "Share and build"], expect.not.stringContaining("Saving the project's files")]);
});

it("a file can only be put away", () => {
  const { page, done, dropped } = asked({ folder: false, name: "notes.txt" });
  expect([buttons(page), words(page)]).toEqual([["Cancel"], expect.stringContaining("Only folders can be mounted.")]);
  dismiss(page);
  expect(done.mock.calls).toEqual([[dropped, null]]);
});

it("a folder that could not be shared is not used, and can be tried again", async () => {
  const { page, share, done } = asked({ shared: "no" });
  share.mockRejectedValueOnce(new HostError("/srv/shop is not yours", "Share a folder of your own.", null, "invalid"));
  press(page, "Share and mount");
  expect(buttons(page)).toEqual(["Cancel"]);
  await expect.poll(() => words(page.querySelector("[role=alert]"))).toBe("Something that was given is not valid. /srv/shop is not yours Share a folder of your own.");
  expect(done).not.toHaveBeenCalled();
  press(page, "Share and mount");
  await expect.poll(() => done.mock.calls.length).toBe(1);
  expect(page.querySelector("[role=alert]")).toBeNull();
});
