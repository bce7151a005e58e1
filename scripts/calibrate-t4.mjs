/**
 * Refits `hardware-profiles/t4.json` to FlexGen's published throughputs: `npm run calibrate:t4` (builds first).
 * Starts from `calibration/t4-start.json`; rows and free constants come from `calibration/t4-published.json`.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import Table from 'cli-table3';
import { format, resolveConfig } from 'prettier';
import { calibrate, comparedRow, quantityAt } from '../dist/cost-model/calibration.js';
import { readPublishedRows } from '../dist/cost-model/published-rows.js';
import { checkHardwareProfile } from '../dist/hardware/check-profile.js';

const profiles = new URL('../hardware-profiles/', import.meta.url);
const readJson = async (name) => JSON.parse(await readFile(new URL(name, profiles), 'utf8'));

const start = checkHardwareProfile(await readJson('calibration/t4-start.json'));
const { fit, holdOut, free } = readPublishedRows(await readJson('calibration/t4-published.json'));
const { hardware, rows, iterations } = await calibrate(start, fit, free);

const target = fileURLToPath(new URL('t4.json', profiles));
await writeFile(target, await format(JSON.stringify(hardware), { ...(await resolveConfig(target)), parser: 'json' }));

const percent = (error) => `${(100 * error).toFixed(1)} %`;
const compared = [
  ['fitted', rows],
  ['held out', holdOut.map((observation) => comparedRow(hardware, observation))],
];
const table = new Table({ head: ['run', 'published', 'predicted', 'error', ''], style: { head: [], border: [] } });
for (const [used, ofUse] of compared)
  for (const { name, observed, predicted, error } of ofUse)
    table.push([name, observed.toFixed(2), predicted.toPrecision(3), percent(error), used]);
console.log(table.toString());

for (const [used, ofUse] of compared) {
  const errors = ofUse.map(({ error }) => Math.abs(error)).sort((a, b) => a - b);
  const median = (errors[(errors.length - 1) >> 1] + errors[errors.length >> 1]) / 2;
  console.log(`${used}: median error ${percent(median)}, worst ${percent(errors.at(-1))}`);
}
for (const { path } of free) {
  const { value, spread } = quantityAt(hardware, path);
  console.log(
    `${path}: ${quantityAt(start, path).value.toPrecision(3)} -> ${value.toPrecision(3)} +- ${percent(spread)}`,
  );
}
console.log(`wrote hardware-profiles/t4.json (${iterations} iterations)`);
