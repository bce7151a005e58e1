#!/usr/bin/env bash
# Everything that only a GPU can say, in one go, on a machine that has little more than one: builds, tests, measures,
# compares with FlexGen and Accelerate, and prints one table. Results and environment go to reports/gpu-<name>/ or $OUT.
#
#   native/test/gpu-check.sh                  all stages
#   native/test/gpu-check.sh build kernels    these alone; the results of others stay
#   native/test/gpu-check.sh --dry-run        the same commands on the emulated device and a tiny model
#
# Needs nvcc, cmake and a C++20 compiler. Node, its packages and dist/ are the machine's own, or those that
# native/test/gpu-pack.sh has put into .gpu/. A stage that fails or runs out of time does not stop the next.
#
#   LIMIT_<stage>   seconds that a stage may take
#   FLEXGEN_DIR     a checkout of FlexLLMGen, for its side of the comparison
#   RAM_GB          what jobs may take of the RAM, ours and theirs alike (default: all but 12)
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
  if [ -z "${FLEXGEN_DIR:-}" ] && [ -f .gpu/flexgen.tar.xz ]; then
    mkdir -p "$work/flexgen" && tar xf .gpu/flexgen.tar.xz -C "$work/flexgen"
    export FLEXGEN_DIR=$work/flexgen
  fi
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

disk_gb() { df -B1000000000 --output=avail "$work" | tail -1 | tr -d ' '; }
# Of the machine or of the container.
ram_gb() {
  echo "${RAM_GB:-$(node -p 'Math.floor(Math.min(process.constrainedMemory() || Infinity, os.totalmem()) / 1e9) - 12')}"
}
# room <GB of RAM> <GB of disk>: whether there is as much; else says what is missing.
room() {
  [ -z "$dry" ] || return 0
  [ "$(ram_gb)" -ge "$1" ] || { echo "skipped: needs $1 GB of RAM for the job, has $(ram_gb)"; return 1; }
  [ "$(disk_gb)" -ge "$2" ] || { echo "skipped: needs $2 GB of disk in $work, has $(disk_gb)"; return 1; }
}

# cuBLAS of the toolkit, else the one that PyTorch brings along.
has_cublas() { ldconfig -p 2>/dev/null | grep -q libcublas.so || [ -e /usr/local/cuda/lib64/libcublas.so ]; }
if [ -z "${FLEXPLAN_CUBLAS:-}" ] && ! has_cublas; then
  found=$(python3 - 2>/dev/null <<'PY'
import glob, os, nvidia
found = (p for base in nvidia.__path__ for p in glob.glob(os.path.join(base, "*", "lib", "libcublas.so.1*")))
print(max(found, default=""))
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
    nvidia-smi --format=csv 2>/dev/null \
      --query-gpu=name,memory.total,driver_version,pcie.link.gen.current,pcie.link.width.current,clocks.max.sm
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
  node -e "const {hasCuda, cudaDevices} = require('$root/build/Release/flexplan.node').systemInfo();
    console.log('hasCuda', hasCuda, JSON.stringify(cudaDevices))"
}

kernel_test=build/native/cuda_kernels_gpu_test
if [ -n "$dry" ]; then kernel_test=build/native/cuda_kernels_test; fi
stage_kernels() { "$kernel_test"; }
stage_host() { FLEXPLAN_CUBLAS=0 build/native/cuda_device_test 2; }

sanitizer() { command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null; }
stage_memcheck() {
  [ -n "$(sanitizer)" ] || { echo "skipped: no compute-sanitizer"; return 0; }
  "$(sanitizer)" --tool memcheck --error-exitcode 9 "$kernel_test"
}
stage_racecheck() {
  [ -n "$(sanitizer)" ] || { echo "skipped: no compute-sanitizer"; return 0; }
  "$(sanitizer)" --tool racecheck --error-exitcode 9 "$kernel_test"
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
  local result=$out/validate-kjv.json
  "${cli[@]}" validate --model examples/opt-kjv-5m --hw "$profile" --policies 6 --num-sequences 256 --json >"$result" ||
    return 1
  node -p "const { median, worst } = JSON.parse(require('fs').readFileSync('$result')).error;
    'prediction off by ' + (100 * median).toFixed(0) + ' % (median), ' + (100 * worst).toFixed(0) + ' % (worst)'"
}

# model <name> [random layers]: made once, in $work.
model() {
  local folder=$work/opt-$1
  if [ ! -f "$folder/done" ]; then
    node native/test/gpu/opt-model.mjs "$1" "$folder" "${2:-1000}" >&2 && touch "$folder/done" || return 1
  fi
  echo "$folder"
}

# job <title> <model> <random layers> <GPU cap> <sequences> [option of optimize ...]: plans and runs; the workload is
# FlexGen's, 512 + 32.
job() {
  local title=$1 shape=$2 layers=$3 cap=$4 sequences=$5
  shift 5
  local prompt=512 gen=32 ram
  ram=$(ram_gb)GB
  if [ -n "$dry" ]; then shape=tiny cap=300MB prompt=64 gen=8 sequences=16 ram=4GB; fi
  local folder plan=$out/$title.plan.json
  folder=$(model $shape $layers) || return 1
  "${cli[@]}" optimize --hw "$profile" --model "$folder" --prompt-tokens $prompt --gen-tokens $gen \
    --num-sequences "$sequences" --gpu-memory "$cap" --cpu-memory "$ram" --out "$plan" "$@" >"$out/$title.plan.txt" ||
    { cat "$out/$title.plan.txt"; return 1; }
  node native/test/gpu/job.mjs "$folder" "$plan" "$sequences" $device >"$out/$title.json" || return 1
  node native/test/gpu/summary.mjs "$out/$title.json"
}

stage_opt_6_7b() { job opt-6.7b-on-gpu 6.7b 1000 70GB 128 --weight-bits 16 --kv-bits 16; }
stage_opt_6_7b_int4() { job opt-6.7b-int4 6.7b 1000 70GB 128 --weight-bits 4 --kv-bits 16; }
stage_opt_30b() { room 80 12 || return 0; job opt-30b-16gb 30b 8 16GB 160 --weight-bits 16 --kv-bits 16; }
stage_opt_30b_int4() { room 40 12 || return 0; job opt-30b-int4-16gb 30b 8 16GB 160 --weight-bits 4 --kv-bits 4; }
stage_opt_66b_int4() { room 60 12 || return 0; job opt-66b-int4-16gb 66b 4 16GB 144 --weight-bits 4 --kv-bits 4; }
stage_opt_175b_int4() { room 115 12 || return 0; job opt-175b-int4-16gb 175b 2 16GB 144 --weight-bits 4 --kv-bits 4; }

# peer <title> <modules, comma between> <script> [argument ...]: another system's job, in Python.
peer() {
  local title=$1 modules=$2 script=$3
  shift 3
  python3 -c "import $modules" 2>/dev/null || { echo "skipped: Python lacks one of $modules"; return 0; }
  python3 "native/test/gpu/$script" "$@" >"$out/$title.json" 2>"$out/$title.log" ||
    { tail -5 "$out/$title.log"; return 1; }
  node native/test/gpu/summary.mjs "$out/$title.json"
}

# flexgen <title> <model> <GPU GB> [option ...]
flexgen() {
  local title=$1 name=$2 cap=$3
  shift 3
  [ -z "$dry" ] || { echo "skipped: dry run"; return 0; }
  [ -n "${FLEXGEN_DIR:-}" ] || { echo "skipped: set FLEXGEN_DIR to a checkout of FlexLLMGen"; return 0; }
  peer "$title" torch,numpy,tqdm,attr flexgen_job.py "$FLEXGEN_DIR" "$name" "$cap" "$(ram_gb)" "$@"
}
# Policies that FlexGen's authors published for prompts of 512 tokens and 16 GB. OPT-66B, for which there is none, gets
# that of OPT-175B; OPT-6.7B gets more sequences than their 2, for it has 70 GB.
on_cpu=(--percent 0 100 0 100 0 100)
stage_flexgen_6_7b() {
  flexgen flexgen-6.7b opt-6.7b 70 --percent 100 0 100 0 100 0 --gpu-batch-size 64 --num-gpu-batches 2 --no-overlap
}
stage_flexgen_30b() {
  room 90 1 || return 0
  flexgen flexgen-30b-16gb opt-30b 16 --percent 20 80 0 100 0 100 --gpu-batch-size 48 --num-gpu-batches 3 \
    --cpu-attention
}
stage_flexgen_30b_int4() {
  room 90 1 || return 0
  flexgen flexgen-30b-int4-16gb opt-30b 16 "${on_cpu[@]}" --gpu-batch-size 64 --num-gpu-batches 8 --compress-cache
}
# Theirs keeps 16-bit weights; with the bits that ours has:
stage_flexgen_30b_int4_weights() {
  room 40 1 || return 0
  flexgen flexgen-30b-int4-weights-16gb opt-30b 16 "${on_cpu[@]}" --gpu-batch-size 64 --num-gpu-batches 8 \
    --compress-cache --compress-weight
}
stage_flexgen_66b_int4() {
  room 60 1 || return 0
  flexgen flexgen-66b-int4-16gb opt-66b 16 "${on_cpu[@]}" --gpu-batch-size 48 --num-gpu-batches 3 \
    --compress-cache --compress-weight --no-pin
}
stage_flexgen_175b_int4() {
  room 115 1 || return 0
  flexgen flexgen-175b-int4-16gb opt-175b 16 "${on_cpu[@]}" --gpu-batch-size 48 --num-gpu-batches 3 \
    --compress-cache --compress-weight --no-pin
}

# accelerate <title> <model> <random layers> <GPU GB> <batch>
accelerate() {
  [ -z "$dry" ] || { echo "skipped: dry run"; return 0; }
  local folder
  folder=$(model "$2" "$3") || return 1
  peer "$1" accelerate,transformers,torch accelerate_job.py "$folder" "$4" "$(ram_gb)" 512 32 "$5"
}
stage_accelerate_6_7b() { accelerate accelerate-6.7b 6.7b 1000 70 64; }
stage_accelerate_30b() { room 75 12 || return 0; accelerate accelerate-30b 30b 8 16 8; }

stage_compare() { node native/test/gpu/compare.mjs "$out"; }

# Stage and its limit in seconds, in the order in which what matters most comes first; each fits one call of 600 s.
stages=(environment:30 build:420 kernels:120 fixtures:120 host:120 fixtures_own_matmul:120 profile:240 opt_6_7b:240
  opt_30b:420 flexgen_30b:560 opt_30b_int4:420 flexgen_30b_int4:560 flexgen_6_7b:300 accelerate_6_7b:180
  opt_66b_int4:560 flexgen_66b_int4:560 opt_6_7b_int4:180 accelerate_30b:420 flexgen_30b_int4_weights:560
  opt_175b_int4:580 flexgen_175b_int4:580 validate:180 memcheck:300 racecheck:300 compare:30)

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
  sed -i "/^$stage\t/d" "$out/stages.tsv"
  printf '%s\t%s\t%s\t%s\n' "$stage" "$status" "$seconds" "$note" | tee -a "$out/stages.tsv"
}

# What is compared was measured by the same run, unless the user runs it in parts.
if [ $# -eq 0 ]; then rm -f "$out"/*.json "$out"/*.log "$out/stages.tsv"; fi
touch "$out/stages.tsv"
for entry in "${stages[@]}"; do
  stage=${entry%:*}
  if [ $# -gt 0 ] && [[ " $* " != *" $stage "* ]]; then continue; fi
  run_stage "$stage" "${entry#*:}"
done
if [ -f "$profile" ] && [ -z "$dry" ]; then cp "$profile" "hardware-profiles/$GPU_NAME.json"; fi
echo
ok=$(grep -c $'\tok\t' "$out/stages.tsv")
echo "GPU check, $GPU_NAME: $ok of $(wc -l <"$out/stages.tsv") stages ok; results in $out"
awk -F'\t' 'BEGIN { printf "%-26s %-10s %5s  %s\n", "stage", "status", "s", "last line" }
  { printf "%-26s %-10s %5d  %s\n", $1, $2, $3, $4 }' "$out/stages.tsv"
if [ -f "$out/compare.log" ]; then cat "$out/compare.log"; fi
! grep -qE $'\t(FAILED|timeout)' "$out/stages.tsv"
