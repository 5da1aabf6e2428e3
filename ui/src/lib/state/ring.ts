/**
 * The last of the values that were pushed, by their numbers: the first ever has number 0. There are no more than
 * `capacity` of them, and together they weigh no more than `most`, unless the last alone does.
 */
export class Ring<T> {
  /** The number of the oldest value that is kept. */
  first = 0;
  /** The number that the next value gets. */
  next = 0;
  #weight = 0;
  /** A value that is dropped leaves its slot, for its memory to be had again. */
  readonly #slots: (T | undefined)[] = [];
  readonly #capacity: number;
  readonly #most: number;
  readonly #weigh: (value: T) => number;

  constructor(capacity: number, most: number, weigh: (value: T) => number) {
    [this.#capacity, this.#most, this.#weigh] = [capacity, most, weigh];
  }

  get length(): number {
    return this.next - this.first;
  }

  push(values: readonly T[]): void {
    for (const value of values) {
      if (this.length === this.#capacity) this.#drop();
      this.#slots[this.next % this.#capacity] = value;
      this.next += 1;
      this.#weight += this.#weigh(value);
      while (this.#weight > this.#most && this.length > 1) this.#drop();
    }
  }

  /** The value of that number, while it is kept. */
  at(number: number): T | undefined {
    return number >= this.first && number < this.next ? this.#slots[number % this.#capacity] : undefined;
  }

  #drop(): void {
    const value = this.at(this.first);
    if (value !== undefined) this.#weight -= this.#weigh(value);
    this.#slots[this.first % this.#capacity] = undefined;
    this.first += 1;
  }
}
