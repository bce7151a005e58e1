/**
 * Headers of safetensors files: what is stored, where. Tensor data is never read here; the native engine reads it in
 * place.
 */
import { open, stat } from 'node:fs/promises';
import { FlexplanError } from '../errors.js';

export interface FileTensor {
  readonly path: string;
  /** As the file says: `F32`, `F16`, `BF16`, `I64` ... */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** From the start of the file. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

const BITS_PER_ELEMENT: Readonly<Record<string, number>> = {
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
  F32: 32,
  I32: 32,
  U32: 32,
  F16: 16,
  BF16: 16,
  I16: 16,
  U16: 16,
  I8: 8,
  U8: 8,
  BOOL: 8,
  F8_E4M3: 8,
  F8_E5M2: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  F6_E2M3: 6,
  F6_E3M2: 6,
  F4: 4,
};

const LENGTH_FIELD_BYTES = 8;
/** The format's own limit. */
const MAX_HEADER_BYTES = 100_000_000;

function malformed(path: string, expected: string, got: string): FlexplanError {
  return new FlexplanError('bad-input', `expected ${expected} in ${path}, got ${got}; download the file again`);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** Name -> tensor, in file order. Throws `bad-input` for every violation of the format. */
export async function readSafetensorsHeader(path: string): Promise<Map<string, FileTensor>> {
  const fileBytes = await fileSize(path);
  const file = await open(path, 'r');
  try {
    const lengthField = Buffer.alloc(LENGTH_FIELD_BYTES);
    if (fileBytes < LENGTH_FIELD_BYTES || (await file.read(lengthField, 0, LENGTH_FIELD_BYTES, 0)).bytesRead < 8) {
      throw malformed(path, 'at least 8 bytes', `${fileBytes} bytes`);
    }
    const headerBytes = headerLength(path, lengthField.readBigUInt64LE(), fileBytes);
    const header = Buffer.alloc(headerBytes);
    await file.read(header, 0, headerBytes, LENGTH_FIELD_BYTES);
    return readTensors(path, parseHeader(path, header), LENGTH_FIELD_BYTES + headerBytes, fileBytes);
  } finally {
    await file.close();
  }
}

async function fileSize(path: string): Promise<number> {
  const status = await stat(path).catch(() => undefined);
  if (!status?.isFile()) {
    throw new FlexplanError('bad-input', `expected the weights file ${path}, got no such file; download it again`);
  }
  return status.size;
}

function headerLength(path: string, length: bigint, fileBytes: number): number {
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw malformed(path, `a header of at most ${MAX_HEADER_BYTES} bytes`, `${length} bytes`);
  }
  if (Number(length) > fileBytes - LENGTH_FIELD_BYTES) {
    throw malformed(path, `a header inside the file of ${fileBytes} bytes`, `a header of ${length} bytes`);
  }
  return Number(length);
}

function parseHeader(path: string, bytes: Buffer): Record<string, unknown> {
  if (bytes[0] !== '{'.charCodeAt(0)) throw malformed(path, 'a header that starts with "{"', 'something else');
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    return JSON.parse(text) as Record<string, unknown>;
  } catch (error) {
    throw malformed(path, 'a header of UTF-8 JSON', (error as Error).message);
  }
}

function readTensors(
  path: string,
  header: Record<string, unknown>,
  dataOffset: number,
  fileBytes: number,
): Map<string, FileTensor> {
  checkMetadata(path, header['__metadata__']);
  const tensors = Object.entries(header)
    .filter(([name]) => name !== '__metadata__')
    .map(([name, entry]) => [name, readTensor(path, name, entry, dataOffset)] as const)
    .sort(([, a], [, b]) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  let end = dataOffset;
  for (const [name, tensor] of tensors) {
    if (tensor.byteOffset !== end) {
      throw malformed(
        path,
        `${name} to start where the data before it ends (offset ${end - dataOffset})`,
        `offset ${tensor.byteOffset - dataOffset}`,
      );
    }
    end += tensor.byteLength;
  }
  if (end !== fileBytes) throw malformed(path, `${end} bytes, as its header says`, `${fileBytes} bytes`);
  return new Map(tensors);
}

function checkMetadata(path: string, metadata: unknown): void {
  if (metadata === undefined) return;
  const isMap = typeof metadata === 'object' && metadata !== null && !Array.isArray(metadata);
  if (!isMap || Object.values(metadata).some((value) => typeof value !== 'string')) {
    throw malformed(path, '__metadata__ that maps texts to texts', JSON.stringify(metadata).slice(0, 80));
  }
}

function readTensor(path: string, name: string, entry: unknown, dataOffset: number): FileTensor {
  const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
  if (typeof dtype !== 'string' || !Object.hasOwn(BITS_PER_ELEMENT, dtype)) {
    throw malformed(path, `${name} to have a known dtype`, JSON.stringify(dtype) ?? 'none');
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw malformed(path, `${name} to have a shape of whole numbers`, JSON.stringify(shape) ?? 'none');
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount) || offsets[0]! > offsets[1]!) {
    throw malformed(path, `${name} to have data_offsets [begin, end]`, JSON.stringify(offsets) ?? 'none');
  }
  const [begin, end] = offsets as [number, number];
  const bits = shape.reduce((product: bigint, size) => product * BigInt(size), BigInt(BITS_PER_ELEMENT[dtype]!));
  if (bits !== BigInt(end - begin) * 8n) {
    throw malformed(
      path,
      `${name} (${dtype} [${shape.join(', ')}]) to take ${Number(bits) / 8} bytes`,
      `${end - begin} bytes`,
    );
  }
  return { path, dtype, shape, byteOffset: dataOffset + begin, byteLength: end - begin };
}
