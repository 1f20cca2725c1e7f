#!/usr/bin/env bash
# Runs GPU tests, benches, and the tests under compute-sanitizer. Needs a GPU and its driver.
#
#   run.sh                    in ten minutes: correctness, then the benches' headline rows, then sanitizers on some tests
#   run.sh full               everything, which takes hours
#   run.sh [full] tests       one part of it; likewise: benches, sanitizers
#
# Each job has a time limit, unless all is run, and a file of its own in results/, which is written while it runs. So a run that
# is cut off leaves what it has found. results/summary.txt has a line for each job that has ended.
#
# WTACRS_REHEARSAL=1 runs the same without a GPU: jobs that need one say so, and the others run on the emulator.
#
# Of the tests, a GPU runs those that use it alone (WTACRS_ONLY_GPU): the emulator and the PTX on it need none.
set -uo pipefail
cd "$(dirname "$0")"
find bin -name '*.gz' -exec gzip -d {} +
export WTACRS_TESTDATA="$PWD/testdata" WTACRS_ONLY_GPU=1 WTACRS_REQUIRE_GPU=1
[ -z "${WTACRS_REHEARSAL:-}" ] || unset WTACRS_ONLY_GPU WTACRS_REQUIRE_GPU

# Finds cuBLAS and compute-sanitizer in Python's nvidia packages, if there are any.
packages=$(python3 -c 'import nvidia; print(*nvidia.__path__)' 2>/dev/null) || packages=
for folder in $packages; do
    for library in "$folder"/*/lib; do
        [ -d "$library" ] && LD_LIBRARY_PATH="$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    done
    PATH="$PATH:$(printf '%s:' "$folder"/*/bin "$folder"/*/compute-sanitizer)"
done
export PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin" LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"

full=
if [ "${1:-}" = full ]; then
    full=yes
    shift
fi
part=${1:-all}
case $part in
    all) old=() ;;
    tests | benches | sanitizers) old=("$part-") ;;
    *) echo "run.sh: no part $part; there are tests, benches and sanitizers" >&2 && exit 64 ;;
esac

mkdir -p results
rm -f results/summary.txt results/"${old[0]:-}"*.txt
failed=0 cut=0 jobs=0
# All of it ends in time, whatever the single limits add up to.
deadline=$((SECONDS + ${WTACRS_SECONDS:-585}))

# job NAME SECONDS COMMAND…: the limit counts unless everything is run.
job() {
    local name=$1 limit=$2 began=$SECONDS code=0 left=$((deadline - SECONDS))
    shift 2
    jobs=$((jobs + 1))
    [ "$limit" -le "$left" ] || limit=$left
    [ -z "$full" ] || limit=0
    printf '\n== %s\n' "$name"
    local outcome="passed"
    if [ -z "$full" ] && [ "$limit" -le 0 ]; then
        outcome="not begun: no time is left" cut=$((cut + 1))
    else
        timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "results/$name.txt"
        code=${PIPESTATUS[0]}
    fi
    local took=$((SECONDS - began))
    if [ "$limit" -gt 0 ] && [ "$took" -ge "$limit" ] && { [ "$code" -eq 124 ] || [ "$code" -eq 137 ]; }; then
        outcome="cut off after $limit s" cut=$((cut + 1))
    elif [ "$code" -ne 0 ]; then
        outcome="failed ($code)" failed=$((failed + 1))
    fi
    printf '%s: %s, %d s\n' "$name" "$outcome" "$took" | tee -a results/summary.txt
}

wants() {
    [ "$part" = all ] || [ "$part" = "$1" ]
}

(nvidia-smi --query-gpu=name,driver_version,compute_cap,clocks.max.sm --format=csv || true) 2>&1 | tee results/gpu.txt

if wants tests; then
    for test in bin/tests/*/*; do
        limit=40
        [ "$(basename "$test")" != kernels ] || limit=150
        job "tests-$(basename "$test")" "$limit" "$test"
        # Where kernels start before the one before them has ended.
        [ "$(basename "$test")" != kernels ] ||
            job tests-early-start 60 env WTACRS_EARLY_START=1 "$test" layers:: graph:: engine::
    done
fi

if wants benches; then
    [ -n "$full" ] || export WTACRS_HEADLINE=1
    for bench in bin/benches/*; do
        job "benches-$(basename "$bench")" 110 "$bench" --bench
    done
fi

if wants sanitizers; then
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck synccheck initcheck; do
            # Tests also copy back memory that kernels need not write, without reading it. initcheck shall check kernels only.
            options=()
            [ "$tool" = initcheck ] && options=(--check-api-memory-access no)
            # Whole layers pass all kernels of a step.
            tests=(bin/tests/*/kernels) some=(layers)
            [ -z "$full" ] || tests=(bin/tests/*/*) some=()
            for test in "${tests[@]}"; do
                job "sanitizers-$tool-$(basename "$test")" 50 \
                    compute-sanitizer --tool "$tool" "${options[@]}" --error-exitcode 1 "$test" --test-threads=1 "${some[@]}"
            done
        done
    else
        echo "compute-sanitizer is missing: pip install nvidia-cuda-sanitizer-api" | tee -a results/summary.txt
    fi
fi

if wants benches && [ -x bin/benches/gpu ]; then
    job benches-early-start 110 env WTACRS_EARLY_START=1 bin/benches/gpu --bench
fi

printf '\n'
[ "$jobs" -gt 0 ] || { echo "run.sh: there is nothing to run in bin/" >&2 && exit 1; }
cat results/summary.txt
printf '%d failed, %d cut off\n' "$failed" "$cut"
[ "$failed" -eq 0 ] || exit 1
[ "$cut" -eq 0 ] || exit 2
