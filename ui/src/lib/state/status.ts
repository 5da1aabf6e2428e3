/** What the engine says of how a container is and since when, which is English, in the window's language. */
import { say, type Word } from "../words/index.svelte";

/** The engine's lines, and what stands in their places: how a container ended, and how long ago something was. */
const LINES: readonly (readonly [RegExp, Word])[] = [
  [/^Up (?<time>.+) \(Paused\)$/, "statusPaused"],
  [/^Up (?<time>.+)$/, "statusUp"],
  [/^Restarting \((?<code>-?\d+)\) (?<time>.+) ago$/, "statusRestarting"],
  [/^Exited \((?<code>-?\d+)\) (?<time>.+) ago$/, "statusExited"],
  [/^Created$/, "statusCreated"],
  [/^Dead$/, "statusDead"],
  [/^Removal In Progress$/, "statusRemoving"],
];

/** Its words for a length of time, which it never gives in two units. */
const TIMES: readonly (readonly [RegExp, Word])[] = [
  [/^Less than a second$/, "timeInstant"],
  [/^1 second$/, "timeSecond"],
  [/^(?<count>\d+) seconds$/, "timeSeconds"],
  [/^About a minute$/, "timeMinute"],
  [/^(?<count>\d+) minutes$/, "timeMinutes"],
  [/^About an hour$/, "timeHour"],
  [/^(?<count>\d+) hours$/, "timeHours"],
  [/^(?<count>\d+) days$/, "timeDays"],
  [/^(?<count>\d+) weeks$/, "timeWeeks"],
  [/^(?<count>\d+) months$/, "timeMonths"],
  [/^(?<count>\d+) years$/, "timeYears"],
];

type Say = typeof say;

/** The first of these that a text is, in words; nothing where it is none. */
function translated(text: string, known: readonly (readonly [RegExp, Word])[], tell: Say): string | null {
  for (const [shape, word] of known) {
    const found = shape.exec(text);
    if (found === null) continue;
    const { time, ...values } = found.groups ?? {};
    return tell(word, time === undefined ? values : { ...values, time: translated(time, TIMES, tell) ?? time });
  }
  return null;
}

/** What an engine of another version says otherwise stays as it is. */
export function statusWords(status: string, tell: Say = say): string {
  return translated(status, LINES, tell) ?? status;
}
