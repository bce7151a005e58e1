import { formatBytes, formatRate } from '../../units.js';
import { defineCommand } from '../command.js';
import { table } from '../format.js';

export const profilesCommand = defineCommand({
  name: 'profiles',
  summary: 'list the built-in hardware profiles',
  example: 'flexplan profiles',
  options: {},
  async run() {
    const { builtInProfiles } = await import('../hardware.js');
    const profiles = builtInProfiles();
    return {
      document: { schemaVersion: 1, profiles },
      text: () =>
        table(
          ['name', 'device', 'GPU memory', 'RAM', 'disk', 'RAM to GPU', 'disk to RAM'],
          profiles.map(({ name, device, memory, links }) => [
            name,
            device,
            memory.gpuBytes ? formatBytes(memory.gpuBytes.value) : '-',
            formatBytes(memory.cpuBytes.value),
            formatBytes(memory.diskBytes.value),
            links.cpuToGpu ? formatRate(links.cpuToGpu.bytesPerSecond.value) : '-',
            formatRate(links.diskToCpu.bytesPerSecond.value),
          ]),
        ),
    };
  },
});
