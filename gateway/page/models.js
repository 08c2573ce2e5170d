// The models that make pictures, and what each can do.
import {api} from './api.js';
import {live} from './live.js';

let models = [];
let loading = null;
const listeners = new Set();

/** The models as last loaded: `{id, family, variant, capabilities}`. */
export const imageModels = () => models;

export const modelById = (id) => models.find((model) => model.id === id);

export function onModels(listener) {
  listeners.add(listener);
}

/** Loads the list; a call while one runs shares it. Keeps the old list if it fails. */
export function loadModels() {
  loading ??= load().finally(() => { loading = null; });
  return loading;
}

async function load() {
  try {
    const {data} = await api('/v1/models');
    const images = data.filter((model) => model.capabilities?.tasks || model.owned_by === live.hello?.images_class);
    // Only ready backends are listed: one that is not ready for a moment has its models still.
    if (!images.length || JSON.stringify(images) === JSON.stringify(models)) return;
    models = images;
    for (const listener of listeners) listener(models);
  } catch {
    // The card says what is wrong; it is asked again when that changes.
  }
}

live.on('readiness', loadModels);
live.on('hello', loadModels);
