/** What buffers are rounded up to: cache lines in memory, pages where direct I/O reads or writes them. */
export const CACHE_LINE_BYTES = 64;
export const PAGE_BYTES = 4096;

export function inLines(bytes: number): number {
  return Math.ceil(bytes / CACHE_LINE_BYTES) * CACHE_LINE_BYTES;
}

export function inPages(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
