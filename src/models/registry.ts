/** Built-in models by the names they have on the Hugging Face hub. */
import { FlexplanError } from '../errors.js';
import type { ModelConfig } from './model-config.js';
import { MODELS } from './registry-data.js';

const NAMES_IN_ERROR = 3;

export const knownModels: readonly ModelConfig[] = MODELS;

/** `facebook/opt-30b` -> `opt-30b`: people leave the owner out. */
function withoutOwner(name: string): string {
  return name.slice(name.lastIndexOf('/') + 1);
}

/** Edit distance of two short strings (insertions, deletions, substitutions). */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(substituted, previous[j]! + 1, current[j - 1]! + 1));
    }
    previous = current;
  }
  return previous[b.length]!;
}

/** The built-in names nearest to a mistyped one, nearest first. */
export function nearModelNames(name: string, count = NAMES_IN_ERROR): string[] {
  const wanted = withoutOwner(name).toLowerCase();
  return knownModels
    .map((known) => ({ known: known.name, distance: editDistance(wanted, withoutOwner(known.name).toLowerCase()) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, count)
    .map(({ known }) => known);
}

/**
 * The shape of a built-in model. Case does not matter, and the owner may be left out (`opt-30b`).
 * Throws `bad-input` with the nearest names when there is no such model.
 */
export function findModel(name: string): ModelConfig {
  const wanted = name.trim().toLowerCase();
  const found =
    knownModels.find((known) => known.name.toLowerCase() === wanted) ??
    knownModels.find((known) => withoutOwner(known.name).toLowerCase() === wanted);
  if (found) return found;
  throw new FlexplanError(
    'bad-input',
    `expected a built-in model, a folder or a config.json, got "${name}"; the nearest names are ` +
      `${nearModelNames(name).join(', ')} (flexplan models lists all)`,
  );
}
