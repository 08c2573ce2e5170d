// What other places hand to Make: a picture to use as a reference, or settings to make a picture again.

const pending = [];
let receiver = null;

function hand(item) {
  pending.push(item);
  receiver?.();
  if (location.hash !== '#make') location.hash = '#make';
}

/** Adds a picture of the store to the references, and shows Make. */
export function useAsReference(name) {
  hand({reference: name});
}

/** Fills the form with the settings of a stored picture, and shows Make. With `run` it is generated at once. */
export function makeAgain(settings, {run = false} = {}) {
  hand({settings, run});
}

/** Make is there: `take` is called for each thing handed over, now and later. */
export function receiveHandoffs(take) {
  receiver = () => {
    while (pending.length) take(pending.shift());
  };
  receiver();
}
