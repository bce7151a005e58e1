import { describe, expect, it } from 'vitest';
import { escapeHtml, reportPage } from '../../src/report/page.js';
import { sampleRun } from './sample-run.js';

const PIXEL = Buffer.from('89504e47', 'hex');
const images = () => () => PIXEL;

describe('reportPage', () => {
  it('stands alone: no address but data, charts for light and dark', () => {
    const page = reportPage([{ name: 'demo', run: sampleRun }], images);
    const addresses = [...page.matchAll(/(?:src|srcset|href)="([^"]*)"/g)].map((match) => match[1]!);
    expect(addresses.length).toBe(8);
    for (const address of addresses) expect(address).toMatch(/^data:image\/png;base64,/);
    expect(page).not.toMatch(/https?:\/\//);
    expect(page).toContain('prefers-color-scheme: dark');
  });

  it('says in words what the pictures show', () => {
    const page = reportPage([{ name: 'demo', run: sampleRun }], images);
    expect(page.match(/<img alt="[^"]{20,}"/g)).toHaveLength(4);
    expect(page.match(/<table>/g)).toHaveLength(4);
    expect(page).toContain('<html lang="en">');
    for (const value of ['512 tok/s', '−6.3 %', '143 MiB', 'Example CPU']) expect(page).toContain(value);
  });

  it('says what the prediction does not know: prompts that begin alike', () => {
    const run = { ...sampleRun, promptTokens: 3072, sharedPrefixTokens: 1200 };
    expect(reportPage([{ name: 'demo', run }], images)).toContain(
      '1200 of 3072 prompt tokens taken from prompts that begin alike; the prediction computes them all',
    );
    expect(reportPage([{ name: 'demo', run: { ...run, sharedPromptTokens: 16 } }], images)).toContain(
      'the prediction knows of the first 16',
    );
    expect(reportPage([{ name: 'demo', run: sampleRun }], images)).not.toContain('begin alike');
  });

  it('labels the emulated GPU, and only that', () => {
    expect(reportPage([{ name: 'demo', run: sampleRun }], images)).toContain('Emulated GPU:');
    expect(reportPage([{ name: 'demo', run: { ...sampleRun, device: 'cpu' } }], images)).not.toContain('Emulated GPU:');
  });

  it('escapes what comes from outside', () => {
    const page = reportPage([{ name: '<script>alert(1)</script>', run: sampleRun }], images);
    expect(page).not.toContain('<script>');
    expect(page).toContain('bench &lt;emulated&gt;');
    expect(escapeHtml(`<a href="x">'&`)).toBe('&lt;a href=&quot;x&quot;&gt;&#39;&amp;');
  });

  it('opens with a table of all runs when there are several', () => {
    const one = reportPage([{ name: 'a', run: sampleRun }], images);
    const two = reportPage(
      [
        { name: 'a', run: sampleRun },
        { name: 'b', run: sampleRun },
      ],
      images,
    );
    expect(one).not.toContain('All runs');
    expect(two).toContain('All runs');
    expect(two.match(/<article/g)).toHaveLength(2);
  });
});
