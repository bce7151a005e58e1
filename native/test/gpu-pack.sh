#!/usr/bin/env bash
# Packs what a bare GPU machine lacks into .gpu/, for native/test/gpu-check.sh: Node itself, the packages that the
# program needs when it runs, the compiled TypeScript, and FlexGen's package where FLEXGEN_DIR names a checkout.
# For machines that reach no registry.
set -euo pipefail
cd "$(dirname "$0")/../.."
npm run --silent build
mkdir -p .gpu
xz -T0 -6 -c "$(node -p process.execPath)" >.gpu/node.xz
files=$(mktemp)
trap 'rm -f "$files"' EXIT
# Charts need 40 MB of canvas and fonts; they are drawn at home from the stored results.
npm ls --omit=dev --all --parseable 2>/dev/null |
  tail -n +2 | sed "s|^$PWD/||" | grep -vE 'canvas|fontsource|chart' | sort -u |
  while read -r package; do find "$package" -path "$package/node_modules" -prune -o -type f -print; done >"$files"
find dist -type f >>"$files"
XZ_OPT=-6 tar cJf .gpu/packages.tar.xz -T "$files"
# FlexGen's package, from the checkout that the user has.
rm -f .gpu/flexgen.tar.xz
if [ -n "${FLEXGEN_DIR:-}" ]; then
  package=flexllmgen
  [ -d "$FLEXGEN_DIR/$package" ] || package=flexgen
  XZ_OPT=-6 tar cJf .gpu/flexgen.tar.xz -C "$FLEXGEN_DIR" "$package"
fi
du -sh .gpu/*
