// What a model can do with what is in the form. Pure.

/** What the form can offer beside prompt, size and number, by the names of requests. */
const PARAMETERS = ['negative_prompt', 'steps', 'seed', 'cfg_scale', 'scheduler', 'strength', 'loras'];
const NAMES = {
  negative_prompt: 'negative prompt', steps: 'choice of steps', seed: 'choice of seed', cfg_scale: 'guidance',
  scheduler: 'scheduler',
};
/** Where a model says nothing about itself, the sidecar's word counts. */
const UNKNOWN = {tasks: null, parameters: PARAMETERS.filter((name) => name !== 'loras'), size: true, max_images: 16, min_images: 0, defaults: {}};

/** What kind of request the references and the mask make. */
export function taskOf({references, mask}) {
  if (!references) return 'generate';
  return mask ? 'inpaint' : 'edit';
}

/**
 * What `model` (an entry of `/v1/models`, or null) offers for `references` pictures with or without a `mask`:
 * which of them count, and what the form may ask for.
 */
export function abilities(model, {references = 0, mask = false} = {}) {
  const own = model?.capabilities?.by_task ? model.capabilities : null;
  const can = (task) => !own || task in own.by_task;
  const takesMask = own ? can('inpaint') && own.mask !== false : true;
  const takesReferences = can('edit') || can('inpaint');
  const most = takesReferences ? own?.max_images ?? UNKNOWN.max_images : 0;
  const used = Math.min(references, most);
  const task = taskOf({references: used, mask: mask && takesMask});
  const of = own ? own.by_task[task] : UNKNOWN;
  const parameters = of?.parameters ?? [];
  return {
    task,
    /** Why this model cannot do that, if so. */
    problem: of ? tooFew(of, used) : cannot(model, task, can),
    used,
    most,
    takesMask: takesMask && used > 0,
    takes: Object.fromEntries(PARAMETERS.map((name) => [name, parameters.includes(name)])),
    takesSize: of?.size ?? false,
    multiple: own?.size?.multiple ?? 8,
    maxPixels: own?.size?.max_pixels ?? 4_194_304,
    maxPictures: own?.max_n ?? 4,
    maxLoras: own?.max_loras ?? 0,
    schedulers: own?.schedulers ?? [],
    defaults: {...own?.defaults, ...of?.defaults},
  };
}

function cannot(model, task, can) {
  if (task === 'generate') {
    return can('edit') ? `${model.id} edits pictures: add a reference.`
      : `${model.id} repaints parts of a picture: add a reference and paint a mask on it.`;
  }
  return task === 'edit' ? `${model.id} repaints parts of a picture: paint a mask on the reference.`
    : `${model.id} cannot do this: choose another model.`;
}

function tooFew(of, used) {
  return used < (of.min_images ?? 0) ? `This model needs at least ${of.min_images} references.` : null;
}

/** One line on what a model can do. */
export function describe(model) {
  const own = model?.capabilities;
  if (!own?.by_task) return model ? 'This model does not say what it can do.' : '';
  const {generate, edit, inpaint} = own.by_task;
  const verbs = [generate && 'makes', edit && 'edits', inpaint && !edit && 'repaints'].filter(Boolean);
  const most = own.max_images;
  const without = Object.keys(NAMES).filter((name) => !own.parameters?.includes(name)).map((name) => NAMES[name]);
  return [
    verbs.length > 1 ? capital(verbs.join(' and ')) : `${capital(verbs[0])} pictures`,
    most > 0 && (most === 1 ? '1 reference' : `up to ${most} references`),
    inpaint && 'masks',
    without.length > 0 && `no ${list(without)}`,
  ].filter(Boolean).join(' · ');
}

const capital = (words) => words[0].toUpperCase() + words.slice(1);

/** As in `steps, seed or guidance`. */
function list(words) {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} or ${words.at(-1)}`;
}

/** The model to begin with: what requests without one get, else the first that makes pictures from words, else the first. */
export function firstModel(models) {
  const makes = (model) => !model.capabilities?.by_task || 'generate' in model.capabilities.by_task;
  const byDefault = models.find((model) => model.default === true);
  return (byDefault ?? models.find(makes) ?? models[0])?.id ?? '';
}
