/** Writes safetensors files byte by byte, good and bad. */
import { writeFileSync } from 'node:fs';

export interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** Length field, header text, data: each as given, so that each can be wrong. */
export function safetensorsBytes(header: string | object, dataBytes: number, length?: bigint): Buffer {
  const text = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header), 'latin1');
  const lengthField = Buffer.alloc(8);
  lengthField.writeBigUInt64LE(length ?? BigInt(text.length));
  return Buffer.concat([lengthField, text, Buffer.alloc(dataBytes)]);
}

const BYTES: Readonly<Record<string, number>> = { F32: 4, F16: 2, BF16: 2, I64: 8, F64: 8 };

/** A good file of zeros with the given tensors, in the given order. */
export function writeTensors(
  path: string,
  tensors: Readonly<Record<string, { dtype: string; shape: number[] }>>,
): void {
  const header: Record<string, HeaderEntry> = {};
  let offset = 0;
  for (const [name, { dtype, shape }] of Object.entries(tensors)) {
    const bytes = shape.reduce((product, size) => product * size, BYTES[dtype]!);
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
  }
  writeFileSync(path, safetensorsBytes(header, offset));
}
