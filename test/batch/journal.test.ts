import { appendFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { beforeEach, describe, expect, test } from 'vitest';
import { Journal } from '../../src/batch/journal.js';
import { temporaryFolder } from '../engine/temporary-folder.js';

const root = temporaryFolder();
let outputPath: string;
const identity = { input: 'prompts', settings: { model: 'm' } };
const open = (changes: object = {}) => Journal.open({ outputPath, identity, overwrite: false, ...changes });
const line = (id: string) => JSON.stringify({ custom_id: id, text: 'é🙂' });

beforeEach(() => {
  outputPath = join(mkdtempSync(join(root, 'job-')), 'out.jsonl');
});

test('lines are in OUT.partial as soon as they are appended, and in OUT alone at the end', () => {
  const journal = open();
  journal.append([line('a'), line('b')]);
  expect(existsSync(outputPath)).toBe(false);
  expect(readFileSync(`${outputPath}.partial`, 'utf8')).toBe(`${line('a')}\n${line('b')}\n`);
  journal.append([]);
  journal.append([line('c')]);
  journal.finish();
  expect(readFileSync(outputPath, 'utf8')).toBe(`${line('a')}\n${line('b')}\n${line('c')}\n`);
  expect(readdirSync(join(outputPath, '..'))).toEqual(['out.jsonl']);
});

describe('resuming', () => {
  test('the same job knows what is finished', () => {
    const first = open();
    first.append([line('a'), line('b')]);
    first.suspend();
    const second = open();
    expect([...second.finishedIds]).toEqual(['a', 'b']);
    second.append([line('c')]);
    second.finish();
    expect(readFileSync(outputPath, 'utf8').split('\n')).toEqual([line('a'), line('b'), line('c'), '']);
  });

  test('cut anywhere, exactly the whole lines count and the file goes on after them', () => {
    const whole = [line('a'), line('b'), line('c')].map((text) => `${text}\n`).join('');
    const bytes = Buffer.from(whole);
    let torn = 0;
    fc.assert(
      fc.property(fc.integer({ min: 0, max: bytes.length }), (length) => {
        rmSync(`${outputPath}.partial`, { force: true });
        rmSync(outputPath, { force: true });
        open().suspend();
        writeFileSync(`${outputPath}.partial`, bytes.subarray(0, length));
        const wholeLines = bytes.subarray(0, length).toString('latin1').split('\n').length - 1;
        const journal = open();
        expect([...journal.finishedIds]).toEqual(['a', 'b', 'c'].slice(0, wholeLines));
        journal.append(['a', 'b', 'c'].slice(wholeLines).map(line));
        journal.finish();
        expect(readFileSync(outputPath, 'utf8')).toBe(whole);
        if (length > 0 && bytes[length - 1] !== 10) torn++;
      }),
    );
    expect(torn).toBeGreaterThan(20);
  });

  test('a line that a crash filled with zeros ends what counts', () => {
    const journal = open();
    journal.append([line('a')]);
    journal.suspend();
    appendFileSync(`${outputPath}.partial`, `${'\0'.repeat(20)}\n${line('b')}\n`);
    const second = open();
    expect([...second.finishedIds]).toEqual(['a']);
    second.suspend();
    expect(readFileSync(`${outputPath}.partial`, 'utf8')).toBe(`${line('a')}\n`);
  });

  test.each<[string, object]>([
    ['other prompts', { identity: { ...identity, input: 'prompts2' } }],
    ['another model', { identity: { ...identity, settings: { model: 'n' } } }],
  ])("%s: another job's partial file is left alone", (_, changes) => {
    const journal = open();
    journal.append([line('a')]);
    journal.suspend();
    expect(() => open(changes)).toThrow(/another job's; delete it or choose another output/);
    expect(readFileSync(`${outputPath}.partial`, 'utf8')).toBe(`${line('a')}\n`);
  });

  test('a partial file of unknown origin is left alone', () => {
    writeFileSync(`${outputPath}.partial`, 'mine');
    expect(() => open()).toThrow(/delete it or choose another output/);
    expect(readFileSync(`${outputPath}.partial`, 'utf8')).toBe('mine');
  });
});

describe('an existing OUT', () => {
  test('is not touched unless asked', () => {
    writeFileSync(outputPath, 'precious');
    expect(() => open()).toThrow(/--overwrite/);
    expect(readFileSync(outputPath, 'utf8')).toBe('precious');
    expect(existsSync(`${outputPath}.partial`)).toBe(false);
  });

  test('stays until the new one is whole', () => {
    writeFileSync(outputPath, 'old');
    const journal = open({ overwrite: true });
    journal.append([line('a')]);
    expect(readFileSync(outputPath, 'utf8')).toBe('old');
    journal.finish();
    expect(readFileSync(outputPath, 'utf8')).toBe(`${line('a')}\n`);
  });
});

test('a folder that is not there', () => {
  outputPath = join(root, 'none', 'out.jsonl');
  expect(() => open()).toThrow(/expected to write .*none/);
});
