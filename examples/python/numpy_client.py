"""libwtacrs from Python by ctypes alone: NumPy arrays go in by DLPack, without a copy.

    python numpy_client.py PREFIX/lib/libwtacrs.so testdata

Runs the selections that every client must reproduce, and estimates the weight gradient of a recorded layer.
"""

import ctypes as c
import json
import pathlib
import struct
import sys

import numpy as np
from wtacrs_ctypes import CPU, Library, Tensor, size


def pointer(array):
    return array.ctypes.data_as(c.c_void_p)


def aligned(count):
    """Bytes at a multiple of 64."""
    raw = np.zeros(count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count]


def run_vectors(library, context, file):
    """Every recorded selection, to the bit."""
    cases = 0
    for problem in json.loads(file.read_text())["problems"]:
        weights = np.array(problem["weights"], np.float32)
        for case in problem["cases"]:
            made = library.plan(
                context, (len(weights), 1, 1), rows=case["budget"], design=case["design"], source="input"
            )
            indices, scales = np.zeros(case["budget"], np.uint32), np.zeros(case["budget"], np.float64)
            kept, winners = c.c_uint64(), c.c_uint64()
            library.select(
                made, pointer(weights), None, c.c_uint64(case["seed"]), c.c_uint64(case["offset"]),
                c.c_uint32(case["stream"]), pointer(indices), pointer(scales), size(len(indices)), c.byref(kept),
                c.byref(winners), None, size(0), None,
            )  # fmt: skip
            assert indices[: kept.value].tolist() == case["indices"], (problem["name"], case)
            assert scales[: kept.value].tolist() == case["scales"], (problem["name"], case)
            assert winners.value == case["winners"], (problem["name"], case)
            library.plan_destroy(made)
            cases += 1
    return cases


def read_layer(file):
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]

    def tensor(name):
        begin, end = header[name]["data_offsets"]
        return np.frombuffer(body[begin:end], np.float32).reshape(header[name]["shape"]).copy()

    return tensor("h"), tensor("dz")


def estimate(library, context, h, dz, budget):
    """dW by a forward and a backward pass with exact norms; dz is handed over transposed, by its strides."""
    (tokens, in_features), out_features = h.shape, dz.shape[1]
    made = library.plan(context, (tokens, in_features, out_features), rows=budget, design="wta-pivotal", source="norms")
    saved = aligned(library.ask("plan_saved_bytes", made))
    scratch = aligned(library.ask("plan_backward_scratch_bytes", made))
    norms = np.zeros(tokens, np.float32)
    by_columns = np.asfortranarray(dz)
    h_tensor, dz_tensor = Tensor(h.__dlpack__()), Tensor(by_columns.__dlpack__())
    library.row_norms_dl(context, dz_tensor.pointer, pointer(norms), size(tokens), None)
    library.forward_dl(
        made, h_tensor.pointer, pointer(norms), None, c.c_uint64(42), c.c_uint64(0), pointer(saved), size(saved.nbytes),
        None, size(0), None,
    )  # fmt: skip
    dw = np.empty((in_features, out_features), np.float32)
    dw_tensor = Tensor(dw.__dlpack__())
    library.backward_dl(
        made, pointer(saved), size(saved.nbytes), dz_tensor.pointer, dw_tensor.pointer, 0, None, None, pointer(scratch),
        size(scratch.nbytes), None,
    )  # fmt: skip
    library.plan_destroy(made)
    return dw, saved.nbytes


def main():
    library, testdata = Library(sys.argv[1]), pathlib.Path(sys.argv[2])
    context = library.make("context", CPU, 0)
    print("libwtacrs", library.version())
    cases = run_vectors(library, context, testdata / "vectors" / "selections.json")
    print(cases, "recorded selections reproduced to the bit")
    h, dz = read_layer(testdata / "minilm_l3_value_imdb_1024.safetensors")
    exact = h.T.astype(np.float64) @ dz
    dw, saved = estimate(library, context, h, dz, 307)
    error = np.linalg.norm(dw - exact) / np.linalg.norm(exact)
    print(f"dW from 307 of 1024 tokens: relative error {error:.3f}, {saved} bytes saved in place of {h.nbytes}")
    assert error < 0.14
    library.context_destroy(context)


if __name__ == "__main__":
    main()
