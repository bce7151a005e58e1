import { formatBytes } from '../../units.js';
import { defineCommand } from '../command.js';
import { table } from '../format.js';

export const modelsCommand = defineCommand({
  name: 'models',
  summary: 'list the built-in models',
  example: 'flexplan models',
  options: {},
  async run() {
    const { knownModels } = await import('../../models/registry.js');
    const { parameterCount } = await import('../../models/tensors.js');
    const { BYTES_PER_ELEMENT } = await import('../../models/model-config.js');
    const models = knownModels.map((model) => ({ ...model, parameters: parameterCount(model) }));
    return {
      document: { schemaVersion: 1, models },
      text: () =>
        table(
          ['name', 'parameters', 'weights', 'layers', 'hidden', 'heads', 'KV heads', 'experts'],
          models.map((model) => [
            model.name,
            `${(model.parameters / 1e9).toPrecision(3)} B`,
            formatBytes(model.parameters * BYTES_PER_ELEMENT[model.dtype]),
            String(model.numLayers),
            String(model.hiddenSize),
            String(model.numHeads),
            String(model.numKvHeads),
            model.experts ? `${model.experts.activePerToken} of ${model.experts.count}` : '-',
          ]),
        ),
    };
  },
});
