"""DLPack's capsules, with a version and without."""

import ctypes as c
import unittest

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack
from wtacrs_ctypes import CPU, Error, Tensor, size
from wtacrs_torch.native import library, pointer


class Capsules(unittest.TestCase):
    def setUp(self):
        self.x = np.arange(6, dtype=np.float32).reshape(2, 3)
        self.context = library().make("context", CPU, 0)
        self.addCleanup(library().context_destroy, self.context)

    def norms(self, capsule):
        tensor, norms = Tensor(capsule), torch.empty(2)
        library().row_norms_dl(self.context, tensor.pointer, pointer(norms), size(2), None)
        return norms

    def test_with_a_version_and_without(self):
        fixed = self.x.copy()
        fixed.flags.writeable = False
        expected = torch.from_numpy(self.x).norm(dim=1)
        for capsule in (
            self.x.__dlpack__(),
            self.x.__dlpack__(max_version=(1, 0)),
            # NumPy gives read-only arrays with a version alone.
            fixed.__dlpack__(max_version=(1, 0)),
            torch.from_numpy(self.x).__dlpack__(),
            torch.from_numpy(self.x).__dlpack__(max_version=(1, 0)),
        ):
            torch.testing.assert_close(self.norms(capsule), expected)

    def test_other_capsules_are_refused(self):
        used = self.x.__dlpack__()
        from_dlpack(used)
        with self.assertRaisesRegex(Error, "used_dltensor"):
            Tensor(used)

    def test_other_versions_are_refused(self):
        capsule = self.x.__dlpack__(max_version=(1, 0))
        get = c.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = c.c_void_p, [c.py_object, c.c_char_p]
        major = c.c_uint32.from_address(get(capsule, b"dltensor_versioned"))
        major.value = 2
        with self.assertRaisesRegex(Error, "version 2"):
            Tensor(capsule)
        major.value = 1


if __name__ == "__main__":
    unittest.main()
