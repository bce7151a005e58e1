/** Finds the native addon. Runs in the engine's own process alone. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { FlexplanError } from '../errors.js';
import type { NativeAddon } from './native-addon.js';

/** Both src/engine and dist/engine lie two folders below the package. */
const ADDON_PATH = fileURLToPath(new URL('../../build/Release/flexplan.node', import.meta.url));

const HOW_TO_BUILD = 'install cmake 3.24 or newer and a C++20 compiler, then run `npm run build:native` in the package';

/** Throws `native-missing` saying what to do when the addon was not built, or was built for another machine. */
export function loadNative(path = ADDON_PATH): NativeAddon {
  const platform = `${process.platform}-${process.arch}, Node ${process.version}`;
  if (!existsSync(path)) {
    throw new FlexplanError(
      'native-missing',
      `expected the engine at ${path}, got none (${platform}); ${HOW_TO_BUILD}`,
    );
  }
  try {
    return createRequire(import.meta.url)(path) as NativeAddon;
  } catch (error) {
    const reason = (error as Error).message.split('\n')[0];
    throw new FlexplanError(
      'native-missing',
      `expected to load the engine at ${path}, got "${reason}" (${platform}); ${HOW_TO_BUILD}`,
      { cause: error },
    );
  }
}
