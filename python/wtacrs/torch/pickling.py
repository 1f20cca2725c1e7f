"""Pickling of converted models: `torch.save(model)`, processes that are spawned with a model, `pickle` itself.

A model comes back converted, with a `Sampling` of its own that goes on from the same state. Classes that are made at
run time are made again, guesses are loaded from their bytes, and what belongs to a process is left behind: memory of
a GPU, process groups, what a forward pass has shared so far.
"""

from __future__ import annotations

import pickle


class MadeClass:
    """In the bases of a class that a function makes at run time, from classes that can be imported."""

    def _made_by(self) -> tuple:
        """The function and its arguments."""
        raise NotImplementedError

    def __reduce_ex__(self, protocol):
        maker, *arguments = self._made_by()
        if type(self) is not maker(*arguments):
            # Of a class that others have made of it, such as parametrizations.
            return super().__reduce_ex__(protocol)
        return new_of, (maker, *arguments), self.__dict__


def new_of(maker, *arguments):
    """An object without attributes, which pickle sets."""
    made = maker(*arguments)
    return made.__new__(made)


def is_picklable(value) -> bool:
    try:
        pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True
