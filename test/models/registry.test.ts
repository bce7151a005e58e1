import { describe, expect, it } from 'vitest';
import { FlexplanError } from '../../src/errors.js';
import { findModel, knownModels, nearModelNames } from '../../src/models/registry.js';
import { parameterCount } from '../../src/models/tensors.js';

/**
 * Parameters of the published checkpoints: the hub's count of tensor elements where there is one, else the paper's
 * figure.
 */
const PUBLISHED_PARAMETERS: Readonly<Record<string, number>> = {
  'facebook/opt-125m': 125_239_296,
  'facebook/opt-350m': 331_196_416,
  'facebook/opt-1.3b': 1_315_758_080,
  'facebook/opt-2.7b': 2_651_596_800,
  'facebook/opt-6.7b': 6_658_473_984,
  'facebook/opt-13b': 12_853_473_280,
  'facebook/opt-30b': 29_974_540_288,
  'facebook/opt-66b': 65.7e9,
  'facebook/opt-175b': 175e9,
  // OPT-1.3b with 272 words fewer; its card only says 1.3 B.
  'facebook/galactica-1.3b': 1_315_758_080 - 272 * 2048,
  'facebook/galactica-6.7b': 6.7e9,
  'facebook/galactica-30b': 30e9,
  'meta-llama/Llama-2-7b-hf': 6_738_415_616,
  'meta-llama/Llama-2-13b-hf': 13_015_864_320,
  'meta-llama/Llama-2-70b-hf': 68_976_648_192,
  'TinyLlama/TinyLlama-1.1B-Chat-v1.0': 1_100_048_384,
  'meta-llama/Meta-Llama-3-8B': 8_030_261_248,
  'meta-llama/Meta-Llama-3-70B': 70_553_706_496,
  'meta-llama/Llama-3.1-8B': 8_030_261_248,
  'meta-llama/Llama-3.1-70B': 70_553_706_496,
  'meta-llama/Llama-3.1-405B': 405_853_388_800,
  'meta-llama/Llama-3.2-1B': 1_235_814_400,
  'meta-llama/Llama-3.2-3B': 3_212_749_824,
  'meta-llama/Llama-3.3-70B-Instruct': 70_553_706_496,
  'mistralai/Mistral-7B-v0.1': 7_241_732_096,
  'mistralai/Mistral-7B-v0.3': 7_248_023_552,
  'mistralai/Mistral-Nemo-Base-2407': 12_247_782_400,
  'mistralai/Mistral-Large-Instruct-2407': 122_610_069_504,
  'mistralai/Mixtral-8x7B-v0.1': 46_702_792_704,
  'mistralai/Mixtral-8x22B-v0.1': 140.6e9,
  'Qwen/Qwen2.5-0.5B': 494_032_768,
  'Qwen/Qwen2.5-1.5B': 1_543_714_304,
  'Qwen/Qwen2.5-3B': 3_085_938_688,
  'Qwen/Qwen2.5-7B': 7_615_616_512,
  'Qwen/Qwen2.5-14B': 14_770_033_664,
  'Qwen/Qwen2.5-32B': 32_763_876_352,
  'Qwen/Qwen2.5-72B': 72_706_203_648,
  'Qwen/Qwen3-0.6B': 596_049_920,
  'Qwen/Qwen3-1.7B': 1_720_574_976,
  'Qwen/Qwen3-4B': 4_022_468_096,
  'Qwen/Qwen3-8B': 8_190_735_360,
  'Qwen/Qwen3-14B': 14_768_307_200,
  'Qwen/Qwen3-32B': 32_762_123_264,
  'Qwen/Qwen3-30B-A3B': 30_532_122_624,
  'Qwen/Qwen3-235B-A22B': 235_093_634_560,
};

/** The Galactica paper's 120.0 B leaves the embeddings out. */
const WITHOUT_EMBEDDINGS = { name: 'facebook/galactica-120b', parameters: 120e9 };

describe('the built-in models', () => {
  it.each(Object.entries(PUBLISHED_PARAMETERS))('%s has its published size within 1 %%', (name, published) => {
    const model = findModel(name);
    expect(Math.abs(parameterCount(model) / published - 1)).toBeLessThan(0.01);
  });

  it('gives the size that the Galactica paper prints, embeddings left out', () => {
    const model = findModel(WITHOUT_EMBEDDINGS.name);
    const embeddings = (model.vocabSize + model.maxPositions) * model.embeddingSize;
    expect(Math.abs((parameterCount(model) - embeddings) / WITHOUT_EMBEDDINGS.parameters - 1)).toBeLessThan(0.01);
  });

  it('checks every built-in model, each name once', () => {
    const checked = [...Object.keys(PUBLISHED_PARAMETERS), WITHOUT_EMBEDDINGS.name];
    expect(knownModels.map(({ name }) => name).sort()).toEqual(checked.sort());
    expect(new Set(checked).size).toBe(knownModels.length);
  });

  it.each(knownModels.map((model) => [model.name, model] as const))('%s has a consistent shape', (_, model) => {
    expect(model.numHeads % model.numKvHeads).toBe(0);
    expect(Number.isInteger(model.headDim)).toBe(true);
    expect(model.eosTokenIds.every((id) => id < model.vocabSize)).toBe(true);
    expect(model.experts?.activePerToken ?? 0).toBeLessThanOrEqual(model.experts?.count ?? 0);
  });
});

describe('findModel', () => {
  it('takes any case, and no owner', () => {
    expect(findModel('Facebook/OPT-30B').name).toBe('facebook/opt-30b');
    expect(findModel('opt-30b').name).toBe('facebook/opt-30b');
    expect(findModel(' llama-3.1-8b ').name).toBe('meta-llama/Llama-3.1-8B');
  });

  it('names near models when there is none', () => {
    expect(nearModelNames('facebook/opt-30')[0]).toBe('facebook/opt-30b');
    expect(() => findModel('facebook/op-175b')).toThrow(FlexplanError);
    expect(() => findModel('facebook/op-175b')).toThrow(/"facebook\/op-175b".*facebook\/opt-175b/);
  });
});
