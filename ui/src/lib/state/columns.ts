/** How many columns of a monospace font a text takes. */

const TAB = 8;

/** First and last code points of what takes two columns: East Asian Width W and F, rounded to blocks, and emoji. */
const WIDE: readonly (readonly [number, number])[] = [
  [0x1100, 0x115f],
  [0x2e80, 0x303e],
  [0x3041, 0xa4cf],
  [0xa960, 0xa97c],
  [0xac00, 0xd7a3],
  [0xf900, 0xfaff],
  [0xfe30, 0xfe6f],
  [0xff01, 0xff60],
  [0xffe0, 0xffe6],
  [0x1f300, 0x1f64f],
  [0x1f680, 0x1f6ff],
  [0x1f900, 0x1f9ff],
  [0x20000, 0x3fffd],
];

/** Of what is drawn on the character before it, or not at all: combining marks, joiners, variation selectors. */
const NONE: readonly (readonly [number, number])[] = [
  [0x300, 0x36f],
  [0x200b, 0x200f],
  [0x20d0, 0x20ff],
  [0xfe00, 0xfe0f],
];

const ASCII = /^[ -~]*$/;

const within = (blocks: typeof WIDE, code: number) => blocks.some(([first, last]) => code >= first && code <= last);

function widthOf(code: number): number {
  // Most text ends here, without a look at the blocks.
  if (code < 0x300) return 1;
  if (within(NONE, code)) return 0;
  return within(WIDE, code) ? 2 : 1;
}

/** A tab goes to the next column that 8 divides, as it does on the screen. */
export function columnsOf(text: string): number {
  if (ASCII.test(text)) return text.length;
  let columns = 0;
  for (const character of text) {
    if (character === "\t") columns += TAB - (columns % TAB);
    else columns += widthOf(character.codePointAt(0) ?? 0);
  }
  return columns;
}
