// What was painted, as strokes and rectangles, so that it can be undone and drawn again at any size. Pure.

const UNDOABLE = 200;
/** About 8 MB. More than a day of painting; the mask is handed over before it is reached. */
const MAX_NUMBERS = 1_000_000;

const weight = (operation) => operation.points?.length ?? 4;

/** Operations: `{kind: 'stroke', erase, size, points}`, `{kind: 'rectangle', erase, left, …}`, `{kind: 'clear'}`, `{kind: 'invert'}`. */
export class History {
  /** Too old to be undone. */
  #settled = [];
  #done = [];
  #undone = [];

  constructor(first) {
    if (first) this.#settled.push(first);
  }

  get operations() {
    return [...this.#settled, ...this.#done];
  }

  get canUndo() {
    return this.#done.length > 0;
  }

  get canRedo() {
    return this.#undone.length > 0;
  }

  get isFull() {
    return this.operations.reduce((sum, operation) => sum + weight(operation), 0) > MAX_NUMBERS;
  }

  add(operation) {
    this.#undone = [];
    this.#done.push(operation);
    if (this.#done.length > UNDOABLE) {
      const oldest = this.#done.shift();
      // Nothing below it shows any more.
      if (oldest.kind === 'clear') this.#settled = [];
      else this.#settled.push(oldest);
    }
  }

  undo() {
    const operation = this.#done.pop();
    if (operation) this.#undone.push(operation);
    return operation ?? null;
  }

  redo() {
    const operation = this.#undone.pop();
    if (operation) this.#done.push(operation);
    return operation ?? null;
  }
}
