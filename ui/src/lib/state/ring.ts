/** The last `capacity` of the values that were pushed, by their numbers: the first ever has number 0. */
export class Ring<T> {
  /** The number of the oldest value that is kept. */
  first = 0;
  /** The number that the next value gets. */
  next = 0;
  readonly #slots: T[] = [];
  readonly #capacity: number;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  get length(): number {
    return this.next - this.first;
  }

  push(values: readonly T[]): void {
    for (const value of values) {
      this.#slots[this.next % this.#capacity] = value;
      this.next += 1;
    }
    this.first = Math.max(this.first, this.next - this.#capacity);
  }

  /** The value of that number, while it is kept. */
  at(number: number): T | undefined {
    return number >= this.first && number < this.next ? this.#slots[number % this.#capacity] : undefined;
  }
}
