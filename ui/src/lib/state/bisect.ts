/** The first position for which `holds`, which has to hold for all that follow; `count` where it holds for none. */
export function firstWhere(count: number, holds: (position: number) => boolean): number {
  let [from, to] = [0, count];
  while (from < to) {
    const middle = Math.floor((from + to) / 2);
    if (holds(middle)) to = middle;
    else from = middle + 1;
  }
  return from;
}
