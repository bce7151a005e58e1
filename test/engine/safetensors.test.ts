import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readSafetensorsHeader } from '../../src/engine/safetensors.js';
import { temporaryFolder } from './temporary-folder.js';
import { safetensorsBytes, writeTensors } from './write-safetensors.js';

const folder = temporaryFolder();
const path = join(folder, 'file.safetensors');

function write(header: string | object, dataBytes: number, length?: bigint): void {
  writeFileSync(path, safetensorsBytes(header, dataBytes, length));
}

const A = { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] };
const B = { dtype: 'F16', shape: [4], data_offsets: [24, 32] };

describe('good files', () => {
  test('offsets count from the start of the file; order is that of the data', async () => {
    const header = { b: B, __metadata__: { format: 'pt' }, a: A };
    write(header, 32);
    const dataOffset = 8 + JSON.stringify(header).length;
    expect([...(await readSafetensorsHeader(path))]).toEqual([
      ['a', { path, dtype: 'F32', shape: [2, 3], byteOffset: dataOffset, byteLength: 24 }],
      ['b', { path, dtype: 'F16', shape: [4], byteOffset: dataOffset + 24, byteLength: 8 }],
    ]);
  });

  test.each<[string, string | object, number]>([
    ['no tensors', {}, 0],
    ['padding after the header', `${JSON.stringify({ a: A })}     `, 24],
    ['a scalar', { s: { dtype: 'F32', shape: [], data_offsets: [0, 4] } }, 4],
    ['an empty tensor at the same place as another', { e: { ...A, shape: [0, 3], data_offsets: [0, 0] }, a: A }, 24],
    ['half-byte numbers in whole bytes', { f: { dtype: 'F4', shape: [4], data_offsets: [0, 2] } }, 2],
    ['names that objects have', '{"__proto__":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1],
  ])('%s', async (_, header, dataBytes) => {
    write(header, dataBytes);
    const names = [...(await readSafetensorsHeader(path)).keys()];
    expect(names).toEqual(
      [...JSON.stringify(header).matchAll(/\\?"([^"\\]+)\\?":\{\\?"dtype/g)].map((match) => match[1]),
    );
  });

  test('50 000 tensors', async () => {
    const tensors = Object.fromEntries(
      Array.from({ length: 50_000 }, (_, i) => [`layers.${i}.w`, { dtype: 'F16', shape: [1] }]),
    );
    writeTensors(path, tensors);
    expect((await readSafetensorsHeader(path)).size).toBe(50_000);
  });

  test('any list of tensors comes back as written', async () => {
    const tensor = fc.record({
      dtype: fc.constantFrom('F32', 'F16', 'BF16', 'I64'),
      shape: fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 4 }),
    });
    const names = fc.string({ minLength: 1 }).filter((name) => name !== '__metadata__' && name !== '__proto__');
    await fc.assert(
      fc.asyncProperty(fc.dictionary(names, tensor), async (tensors) => {
        const ascii = Object.fromEntries(Object.entries(tensors).map(([name, t]) => [encodeURIComponent(name), t]));
        writeTensors(path, ascii);
        const read = await readSafetensorsHeader(path);
        expect(Object.fromEntries([...read].map(([name, { dtype, shape }]) => [name, { dtype, shape }]))).toEqual(
          ascii,
        );
      }),
      { numRuns: 50 },
    );
  });
});

describe('bad files are refused in one line that names the file', () => {
  const withA = (changes: object) => ({ a: { ...A, ...changes } });

  test.each<[string, string | object, number, RegExp, bigint?]>([
    ['header longer than allowed', {}, 0, /at most 100000000 bytes/, 100_000_001n],
    ['header length beyond 2^53', {}, 0, /at most/, 0xffff_ffff_ffff_ffffn],
    ['header longer than the file', {}, 0, /inside the file/, 3n],
    ['empty header', '', 0, /starts with "\{"/],
    ['header that is a list', '[]', 0, /starts with "\{"/],
    ['header that starts with a space', ' {}', 0, /starts with "\{"/],
    ['header that is not JSON', '{"a":', 0, /JSON/],
    ['header that is not UTF-8', '{"\xff":1}', 0, /UTF-8/],
    ['metadata that is not a map', { __metadata__: [] }, 0, /__metadata__/],
    ['metadata with a number', { __metadata__: { a: 1 } }, 0, /__metadata__/],
    ['tensor that is null', { a: null }, 0, /a to have a known dtype/],
    ['unknown dtype', withA({ dtype: 'Q4_K' }), 24, /known dtype.*Q4_K/],
    ['dtype named like a property of objects', withA({ dtype: 'toString' }), 24, /known dtype/],
    ['no dtype', withA({ dtype: undefined }), 24, /known dtype/],
    ['negative size', withA({ shape: [-2, 3] }), 24, /shape/],
    ['fractional size', withA({ shape: [1.5, 4] }), 24, /shape/],
    ['no shape', withA({ shape: undefined }), 24, /shape/],
    ['offsets backwards', withA({ data_offsets: [24, 0] }), 24, /data_offsets/],
    ['one offset', withA({ data_offsets: [24] }), 24, /data_offsets/],
    ['negative offset', withA({ data_offsets: [-24, 0] }), 24, /data_offsets/],
    [
      'fewer bytes than the shape needs',
      withA({ data_offsets: [0, 20] }),
      20,
      /a \(F32 \[2, 3\]\) to take 24 bytes in .*, got 20 bytes/,
    ],
    ['more bytes than the shape needs', withA({ data_offsets: [0, 28] }), 28, /to take 24 bytes in .*, got 28 bytes/],
    ['shape whose product overflows', withA({ shape: [2 ** 52, 2 ** 52] }), 24, /to take/],
    [
      'half-byte numbers in half a byte',
      { f: { dtype: 'F4', shape: [3], data_offsets: [0, 2] } },
      2,
      /to take 1.5 bytes/,
    ],
    ['hole at the start', { a: { ...A, data_offsets: [4, 28] } }, 28, /offset 0\) in .*, got offset 4/],
    ['hole in the middle', { a: A, b: { ...B, data_offsets: [26, 34] } }, 34, /offset 24\) in .*, got offset 26/],
    ['overlap', { a: A, b: { ...B, data_offsets: [20, 28] } }, 28, /offset 24\) in .*, got offset 20/],
    ['two tensors at one place', { a: A, b: A }, 24, /offset 24\) in .*, got offset 0/],
    ['file cut short', { a: A, b: B }, 31, /bytes, as its header says/],
    ['bytes after the end', { a: A, b: B }, 33, /bytes, as its header says/],
  ])('%s', async (_, header, dataBytes, message, length) => {
    write(header, dataBytes, length);
    await expect(readSafetensorsHeader(path)).rejects.toMatchObject({ code: 'bad-input' });
    await expect(readSafetensorsHeader(path)).rejects.toThrow(message);
    await expect(readSafetensorsHeader(path)).rejects.toThrow(/^expected [^\n]*file\.safetensors[^\n]*, got [^\n]*$/);
  });

  test('shorter than the length field, missing, a folder', async () => {
    writeFileSync(path, 'abc');
    await expect(readSafetensorsHeader(path)).rejects.toThrow(/at least 8 bytes.*3 bytes/);
    await expect(readSafetensorsHeader(join(folder, 'none'))).rejects.toThrow(/no such file/);
    await expect(readSafetensorsHeader(folder)).rejects.toThrow(/no such file/);
  });
});
