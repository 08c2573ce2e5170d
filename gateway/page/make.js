import {cardRegion} from './card.js';
export function mount(root) { root.append(cardRegion()); }
