"""The example of docs/numpy.md runs, and prints what it says."""

import contextlib
import io
import pathlib
import re
import unittest

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "numpy.md"


class Examples(unittest.TestCase):
    def test_prints_what_its_comments_say(self):
        (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, {})
        expected = [float(number) for number in re.findall(r"print\(.*# ([\d.]+)\n", code)]
        self.assertGreater(len(expected), 0)
        for number, line in zip(expected, printed.getvalue().splitlines(), strict=True):
            self.assertAlmostEqual(float(line) / number, 1, delta=0.05)


if __name__ == "__main__":
    unittest.main()
