// LoRAs as they are typed, one a line: `name` or `name: weight`. Pure.

const MOST_WEIGHT = 4;
const LINE = /^(.*?)(?:\s*:\s*([-+]?\d*\.?\d+))?$/;

/** As they are sent. Without a weight it is 1. */
export function readLoras(text) {
  return text.split('\n').map((line) => line.trim()).filter(Boolean).map((line) => {
    const [, name, weight] = LINE.exec(line);
    return {name, weight: weight === undefined ? 1 : Number(weight)};
  });
}

/** What is wrong with them, in words; null if nothing is. */
export function lorasProblem(text, most) {
  const loras = readLoras(text);
  if (loras.some(({name}) => !name)) return 'Write one LoRA per line, as in “name: 0.8”.';
  if (loras.some(({weight}) => Math.abs(weight) > MOST_WEIGHT)) return `The weight of a LoRA must be a number from -${MOST_WEIGHT} to ${MOST_WEIGHT}.`;
  return loras.length > most ? `This model takes at most ${most} ${most === 1 ? 'LoRA' : 'LoRAs'}.` : null;
}

const weighted = (loras, gap) => loras.map((lora) => `${lora?.name ?? lora}${gap(lora?.weight ?? 1)}`);

/** As they are typed. */
export const lorasLines = (loras) => (Array.isArray(loras) ? weighted(loras, (weight) => `: ${weight}`).join('\n') : '');

/** As they are shown. */
export const lorasText = (loras) => (Array.isArray(loras) ? weighted(loras, (weight) => ` (${weight})`).join(', ') : String(loras));
