#!/usr/bin/env bash
# Runs the GPU tests, the tests again under compute-sanitizer if it is installed, and the benches. Needs a GPU and its driver.
#
#   run.sh           everything
#   run.sh tests     the tests only; likewise: sanitizer, benches
#
# Under the sanitizers, the tests leave out the emulator and the PTX on it, which the sanitizers do not see
# (WTACRS_ONLY_GPU).
set -uo pipefail
cd "$(dirname "$0")"
find bin -name '*.gz' -exec gzip -d {} +
export WTACRS_REQUIRE_GPU=1 WTACRS_TESTDATA="$PWD/testdata"

# Finds cuBLAS and compute-sanitizer in Python's nvidia packages, if there are any.
packages=$(python3 -c 'import nvidia; print(*nvidia.__path__)' 2>/dev/null) || packages=
for folder in $packages; do
    for library in "$folder"/*/lib; do
        [ -d "$library" ] && LD_LIBRARY_PATH="$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    done
    PATH="$PATH:$(printf '%s:' "$folder"/*/bin "$folder"/*/compute-sanitizer)"
done
export PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin" LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}"

what=${1:-all}
failed=()
try() {
    printf '\n== %s\n' "$*"
    "$@" || failed+=("$*")
}

nvidia-smi --query-gpu=name,driver_version,compute_cap,clocks.max.sm --format=csv || true

if [ "$what" = all ] || [ "$what" = tests ]; then
    for test in bin/tests/*/*; do
        try "$test"
    done
fi

if [ "$what" = all ] || [ "$what" = sanitizer ]; then
    export WTACRS_ONLY_GPU=1
    if command -v compute-sanitizer >/dev/null; then
        for tool in memcheck racecheck synccheck initcheck; do
            # Tests also copy back memory that kernels need not write, without reading it. initcheck shall check kernels only.
            options=()
            [ "$tool" = initcheck ] && options=(--check-api-memory-access no)
            for test in bin/tests/*/*; do
                try compute-sanitizer --tool "$tool" "${options[@]}" --error-exitcode 1 "$test" --test-threads=1
            done
        done
    else
        echo "compute-sanitizer is missing: pip install nvidia-cuda-sanitizer-api"
    fi
fi

if [ "$what" = all ] || [ "$what" = benches ]; then
    for bench in bin/benches/*; do
        try "$bench" --bench
    done
fi

printf '\n%d failed\n' "${#failed[@]}"
[ "${#failed[@]}" -eq 0 ] || { printf '  %s\n' "${failed[@]}"; exit 1; }
