#!/usr/bin/env bash
# Everything that only a GPU can say, in one go, on a machine that has little more than one: builds, tests, measures, compares, and
# prints one table. Results and environment go to reports/gpu-<name>/ (or $OUT).
#
#   native/test/gpu-check.sh                    all stages
#   native/test/gpu-check.sh build kernels      these alone
#   native/test/gpu-check.sh --dry-run          the same commands on the emulated device and a tiny model: is the script right?
#
# Needs nvcc, cmake and a C++20 compiler. Node, its packages and dist/ are the machine's own, or those that native/test/gpu-pack.sh
# has put into .gpu/. A stage that fails or runs out of time does not stop the next. LIMIT_<stage> overrides a limit in seconds.
set -uo pipefail
cd "$(dirname "$0")/../.."
root=$PWD

dry=${GPU_CHECK_DRY:-}
if [ "${1:-}" = --dry-run ]; then dry=1; shift; fi
export GPU_CHECK_DRY=$dry
device=cuda
if [ -n "$dry" ]; then device=emulated; fi

# Models, and node where the machine has none: made once, found again by the next run of the same user.
work=${GPU_CHECK_WORK:-${TMPDIR:-/tmp}/flexplan-gpu-check-$(id -u)}
mkdir -p "$work"

unpack() {
  [ -d .gpu ] || return 0
  if ! command -v node >/dev/null && [ ! -x "$work/bin/node" ]; then
    mkdir -p "$work/bin" && xz -dc .gpu/node.xz >"$work/bin/node" && chmod +x "$work/bin/node"
  fi
  if [ ! -d node_modules ] && [ -f .gpu/packages.tar.xz ]; then tar xf .gpu/packages.tar.xz; fi
}
export PATH="$PATH:/usr/local/cuda/bin:$work/bin"
unpack

gpu_name() {
  if [ -n "$dry" ]; then echo dry-run; return; fi
  nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -1 | tr 'A-Z ' 'a-z-' | sed 's/[^a-z0-9-]//g'
}
name=${GPU_NAME:-$(gpu_name)}
export GPU_NAME=${name:-none}
out=${OUT:-$root/reports/gpu-$GPU_NAME}
export OUT=$out
mkdir -p "$out"
cli=(node "$root/dist/cli/main.js")
link=()
if [ -n "$dry" ]; then link=(--link-bandwidth 8GB/s); fi

# cuBLAS of the toolkit, else the one that PyTorch brings along.
if [ -z "${FLEXPLAN_CUBLAS:-}" ] && ! ldconfig -p 2>/dev/null | grep -q libcublas.so && [ ! -e /usr/local/cuda/lib64/libcublas.so ]; then
  found=$(python3 - 2>/dev/null <<'PY'
import glob, os, nvidia
print(next(iter(sorted(p for base in nvidia.__path__ for p in glob.glob(os.path.join(base, "*", "lib", "libcublas.so.1*")))), ""))
PY
  )
  if [ -n "$found" ]; then export FLEXPLAN_CUBLAS=$found; fi
fi

stage_environment() {
  {
    date -u +%FT%TZ
    git rev-parse HEAD 2>/dev/null || echo "no git here"
    uname -srm
    node --version
    cmake --version | head -1
    ${CXX:-c++} --version | head -1
    nvcc --version 2>/dev/null | tail -2
    nvidia-smi 2>/dev/null
    nvidia-smi --query-gpu=name,memory.total,driver_version,pcie.link.gen.current,pcie.link.width.current,clocks.max.sm --format=csv 2>/dev/null
    echo "cuBLAS: ${FLEXPLAN_CUBLAS:-where the loader finds it}"
    grep -m1 'model name' /proc/cpuinfo
    nproc
    free -g | head -2
    df -h / "$work" 2>/dev/null
  } >"$out/environment.txt" 2>&1
  head -3 "$out/environment.txt" | tr '\n' ' '
}

stage_build() {
  local targets=(flexplan_addon cuda_kernels_test cuda_device_test engine_test)
  local options=()
  if [ -z "$dry" ]; then
    targets+=(cuda_kernels_gpu_test)
    options=(-DFLEXPLAN_CUDA_ARCHS="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)")
  fi
  cmake -S native -B build/native -DCMAKE_BUILD_TYPE=Release -DFLEXPLAN_TESTS=ON "${options[@]}" &&
    cmake --build build/native --parallel "$(nproc)" --target "${targets[@]}" || return 1
  node -e "const {hasCuda, cudaDevices} = require('$root/build/Release/flexplan.node').systemInfo(); console.log('hasCuda', hasCuda, JSON.stringify(cudaDevices))"
}

kernel_test() { if [ -n "$dry" ]; then echo build/native/cuda_kernels_test; else echo build/native/cuda_kernels_gpu_test; fi; }
stage_kernels() { "$(kernel_test)"; }
stage_host() { FLEXPLAN_CUBLAS=0 build/native/cuda_device_test 2; }

sanitizer() { command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null; }
stage_memcheck() {
  [ -n "$(sanitizer)" ] || { echo "skipped: no compute-sanitizer"; return 0; }
  "$(sanitizer)" --tool memcheck --error-exitcode 9 "$(kernel_test)"
}
stage_racecheck() {
  [ -n "$(sanitizer)" ] || { echo "skipped: no compute-sanitizer"; return 0; }
  "$(sanitizer)" --tool racecheck --error-exitcode 9 "$(kernel_test)"
}

stage_fixtures() { node native/test/gpu/fixtures.mjs $device; }
stage_fixtures_own_matmul() { FLEXPLAN_CUBLAS=0 node native/test/gpu/fixtures.mjs $device; }

profile=$out/profile.json
stage_profile() {
  local memory=()
  if [ -n "$dry" ]; then memory=(--gpu-memory 1GiB "${link[@]}"); fi
  "${cli[@]}" profile --device $device "${memory[@]}" ${PROFILE_EFFORT:---quick} --disk-dir "$work" --out "$profile"
}

stage_validate() {
  "${cli[@]}" validate --model examples/opt-kjv-5m --hw "$profile" --policies 6 --num-sequences 256 --json >"$out/validate-kjv.json" || return 1
  node -p "JSON.stringify(JSON.parse(require('fs').readFileSync('$out/validate-kjv.json')).summary ?? 'see validate-kjv.json')"
}

# model <name> [random layers]: made once, in $work.
model() {
  local folder=$work/opt-$1
  [ -f "$folder/done" ] || { node native/test/gpu/opt-model.mjs "$1" "$folder" "${2:-1000}" >&2 && touch "$folder/done"; } || return 1
  echo "$folder"
}

# job <title> <model> <random layers> <GPU cap> <sequences> [option of optimize ...]: plans and runs; the workload is FlexGen's, 512 + 32.
job() {
  local title=$1 shape=$2 layers=$3 cap=$4 sequences=$5
  shift 5
  local prompt=512 gen=32
  if [ -n "$dry" ]; then shape=tiny cap=300MB prompt=64 gen=8; fi
  local folder plan=$out/$title.plan.json
  folder=$(model $shape $layers) || return 1
  "${cli[@]}" optimize --hw "$profile" --model "$folder" --prompt-tokens $prompt --gen-tokens $gen --num-sequences "$sequences" \
    --gpu-memory "$cap" --out "$plan" "$@" >"$out/$title.plan.txt" || { cat "$out/$title.plan.txt"; return 1; }
  node native/test/gpu/job.mjs "$folder" "$plan" "$sequences" $device >"$out/$title.json" || return 1
  node -p "const r = JSON.parse(require('fs').readFileSync('$out/$title.json')), t = r.genTokensPerSecond;
    t.measured.toFixed(2) + ' tokens/s, predicted ' + t.predicted.toFixed(2) + ' (' + (100 * t.error).toFixed(0) + ' %), prefill ' +
    r.prefillSeconds.toFixed(1) + ' s, decode ' + r.decodeSeconds.toFixed(1) + ' s, bound by ' + JSON.stringify(r.bottleneck)"
}

stage_opt_6_7b() { job opt-6.7b-on-gpu 6.7b 1000 70GB 128 --weight-bits 16 --kv-bits 16; }
stage_opt_6_7b_int4() { job opt-6.7b-int4 6.7b 1000 70GB 128 --weight-bits 4 --kv-bits 16; }
stage_opt_30b() { job opt-30b-16gb 30b 8 16GB 160 --weight-bits 16 --kv-bits 16 --cpu-memory 100GB; }
stage_opt_30b_int4() { job opt-30b-int4-16gb 30b 8 16GB 160 --weight-bits 4 --kv-bits 4 --cpu-memory 100GB; }

accelerate_job() {
  [ -z "$dry" ] || { echo "skipped: dry run"; return 0; }
  python3 -c 'import accelerate, transformers, torch' 2>/dev/null || { echo "skipped: accelerate is not installed"; return 0; }
  local folder
  folder=$(model "$2" "$3") || return 1
  python3 native/test/gpu/accelerate.py "$folder" "$4" 512 "$6" "$5" >"$out/$1.json" 2>"$out/$1.log" || { tail -5 "$out/$1.log"; return 1; }
  node -p "JSON.parse(require('fs').readFileSync('$out/$1.json')).genTokensPerSecond.toFixed(2) + ' tokens/s'"
}
stage_accelerate_6_7b() { accelerate_job accelerate-6.7b 6.7b 1000 70 64 32; }
stage_accelerate_30b() { accelerate_job accelerate-30b 30b 8 16 8 8; }

# Stage and its limit in seconds, in the order in which what matters most comes first.
stages=(environment:30 build:420 kernels:120 fixtures:120 host:120 fixtures_own_matmul:120 profile:240 opt_6_7b:240 opt_30b:420
  opt_6_7b_int4:180 opt_30b_int4:420 validate:180 accelerate_6_7b:180 accelerate_30b:420 memcheck:300 racecheck:300)

# A stage is this script again, so that `timeout` can end it with all that it started.
if [ "${1:-}" = --stage ]; then "stage_$2"; exit; fi

run_stage() {
  local stage=$1 limit=$2 status seconds note
  local override=LIMIT_$stage
  SECONDS=0
  timeout --kill-after=10 "${!override:-$limit}" "$0" --stage "$stage" >"$out/$stage.log" 2>&1
  status=$?
  seconds=$SECONDS
  note=$(grep -v '^[[:space:]]*$' "$out/$stage.log" | tail -1 | cut -c1-150)
  case $status in 0) status=ok ;; 124 | 137) status=timeout ;; *) status="FAILED $status" ;; esac
  printf '%s\t%s\t%s\t%s\n' "$stage" "$status" "$seconds" "$note" | tee -a "$out/stages.tsv"
}

: >"$out/stages.tsv"
for entry in "${stages[@]}"; do
  stage=${entry%:*}
  if [ $# -gt 0 ] && [[ " $* " != *" $stage "* ]]; then continue; fi
  run_stage "$stage" "${entry#*:}"
done
if [ -f "$profile" ] && [ -z "$dry" ]; then cp "$profile" "hardware-profiles/$GPU_NAME.json"; fi
echo
echo "GPU check, $GPU_NAME: $(grep -c $'\tok\t' "$out/stages.tsv") of $(wc -l <"$out/stages.tsv") stages ok; results in $out"
awk -F'\t' 'BEGIN { printf "%-22s %-10s %5s  %s\n", "stage", "status", "s", "last line" } { printf "%-22s %-10s %5d  %s\n", $1, $2, $3, $4 }' "$out/stages.tsv"
! grep -qE $'\t(FAILED|timeout)' "$out/stages.tsv"
