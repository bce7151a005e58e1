#!/usr/bin/env bash
# The native tests under the sanitizers; whatever they find is a failure. Builds what has changed since the last time.
#
#   native/test/sanitize.sh                    address with undefined, then thread
#   native/test/sanitize.sh thread             one of them
set -euo pipefail
cd "$(dirname "$0")/../.."

export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1
export UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=second_deadlock_stack=1

# Older runtimes of the thread sanitizer do not start where the system spreads addresses wider than they know.
fixed_addresses=()
if setarch -R true 2>/dev/null; then fixed_addresses=(setarch -R); fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# What a tool says matters only if it fails.
quietly() {
  "$@" >"$log" 2>&1 || { cat "$log"; exit 1; }
}

if [ $# -eq 0 ]; then set -- address,undefined thread; fi
for sanitizer in "$@"; do
  build=build/sanitize-${sanitizer//,/-}
  # Where threads meet; what a kernel does inside its thread is for the others.
  tests=(kernels int4_fit thread_pool tier admission engine quantization_cache
    cuda_kernels cuda_emulated_engine cuda_device)
  if [ "$sanitizer" = thread ]; then tests=(thread_pool tier engine quantization_cache); fi
  SECONDS=0
  quietly cmake -S native -B "$build" -DSANITIZE="$sanitizer" -DFLEXPLAN_CUDA=OFF
  quietly cmake --build "$build" --parallel "${JOBS:-$(nproc)}" --target "${tests[@]/%/_test}"
  built=$SECONDS
  selection="^($(IFS='|' && echo "${tests[*]}"))(\..*)?$"  # a test may be in parts: cuda_kernels.matmul
  quietly "${fixed_addresses[@]}" ctest --test-dir "$build" -R "$selection" --output-on-failure --no-tests=error \
    --parallel "${JOBS:-$(nproc)}" --timeout 3600
  echo "native tests under the $sanitizer sanitizer: clean (built in $built s, ran in $((SECONDS - built)) s)"
done
