"""`TrainerCallback`: a `Sampling` in transformers' Trainer, whose checkpoints then contain its state.

transformers is imported with this module, and `wtacrs.torch` imports this module when somebody asks for it.
"""

from __future__ import annotations

import os
import pathlib
import warnings

import torch
import transformers
from transformers.trainer_callback import TrainerState

from .._native import Error
from .sampling import Sampling

STATE, TRAINER_STATE = "wtacrs.pt", "trainer_state.json"


class TrainerCallback(transformers.TrainerCallback):
    """
    sampling = wtacrs.torch.convert(model, 0.3)
    trainer = Trainer(model, arguments, ..., callbacks=[wtacrs.torch.TrainerCallback(sampling)])

    Each checkpoint gets a file wtacrs.pt with the state of the Sampling, and with several processes one file more for
    each of the others. When training resumes, the state is loaded, so that it continues to the same bits. With a
    process group, ranks exchange what they have learned before each step of the optimizer.

    A Trainer does not say from which folder it resumes. It is looked for in `resume_from`, in the arguments'
    resume_from_checkpoint, and in their output_dir, and has to be that of the step. Raises `Error` when training
    begins, if none of these is.
    """

    def __init__(self, sampling: Sampling, resume_from: str | os.PathLike | None = None):
        self.sampling, self.resume_from = sampling, resume_from

    def on_train_begin(self, args, state, control, **others) -> None:
        if args.world_size > 1 and self.sampling.group is None:
            warnings.warn(
                "several processes train, but convert was given no process_group: each learns for itself, from its own "
                "samples, and they may draw alike",
                stacklevel=2,
            )
        if state.global_step > 0:
            folder = self._folder_of(args, state)
            self.sampling.load_state_dict(load(folder / STATE))
            if args.process_index > 0:
                self.sampling.randomness.offset = load(folder / of_rank(args.process_index))["offset"]

    def on_pre_optimizer_step(self, args, state, control, **others) -> None:
        self.sampling.exchange()

    def on_save(self, args, state, control, **others) -> None:
        folder = checkpoint(args.output_dir, state)
        if state.is_hyper_param_search and not folder.is_dir():
            # Of the trials' folders, which have names of their own, the newest.
            made = pathlib.Path(args.output_dir).glob(f"*/{folder.name}")
            folder = max(made, key=lambda path: path.stat().st_mtime, default=folder)
        folder.mkdir(parents=True, exist_ok=True)
        if args.process_index == 0:
            save(self.sampling.state_dict(), folder / STATE)
        else:
            # Guesses are equal after an exchange. How far a rank has drawn depends on its batches.
            save({"offset": self.sampling.offset}, folder / of_rank(args.process_index))

    def _folder_of(self, args, state) -> pathlib.Path:
        """The checkpoint that the Trainer has loaded."""
        given = args.resume_from_checkpoint
        named = [self.resume_from, given if isinstance(given, (str, os.PathLike)) else None]
        candidates = [pathlib.Path(path) for path in named if path is not None]
        candidates.append(checkpoint(args.output_dir, state))
        for folder in candidates:
            if (folder / STATE).is_file() and is_of(folder, state):
                return folder
        places = ", ".join(str(folder) for folder in candidates)
        raise Error(
            f"training resumes at step {state.global_step}, whose {STATE} is in none of {places}: give the folder to "
            "TrainerCallback(sampling, resume_from=)"
        )


def checkpoint(output_dir, state) -> pathlib.Path:
    return pathlib.Path(output_dir) / f"checkpoint-{state.global_step}"


def is_of(folder: pathlib.Path, state) -> bool:
    """Whether the folder is of the run and the step that the Trainer's state is of."""
    if not (folder / TRAINER_STATE).is_file():
        return False
    saved = TrainerState.load_from_json(str(folder / TRAINER_STATE))
    return (saved.global_step, saved.log_history) == (state.global_step, state.log_history)


def of_rank(rank: int) -> str:
    return f"wtacrs_{rank}.pt"


def save(state: dict, path: pathlib.Path) -> None:
    """Whoever stops in between leaves no half of a file."""
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    partial.replace(path)


def load(path: pathlib.Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)
