"""Records linear layers of the study's model while it is fine-tuned exactly, for `wtacrs compare` and `wtacrs replay`.

    python record_layers.py --out RECORDED
    wtacrs compare RECORDED/layers/*.safetensors
    wtacrs replay RECORDED/steps/*.safetensors

One batch is the same in each epoch: the 32 longest sentences, cut to one length, so that there is no padding. Its norms
in the first epoch are what a norm cache remembers in the second. The steps are those of the first epoch, 256 tokens of
each.
"""

import argparse
import pathlib

import torch
from finetune import FULL, Step, build
from finetune_task import sentences
from tqdm import tqdm

from wtacrs.record import Steps, record, save_layers

LAYERS = ["encoder.encoder.layer.3.attention.self.value", "encoder.encoder.layer.4.output.dense"]


def longest(data, count):
    """A batch of the longest sentences, cut to the shortest of them."""
    by_length = sorted(range(len(data)), key=lambda i: len(data.tokens[i]))
    tokens, mask, labels, ids = data.batch(torch.tensor(by_length[-count:]))
    length = int(mask.sum(1).min())
    return tokens[:, :length], mask[:, :length], labels, ids


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the recorded files")
    parser.add_argument("--layers", nargs="+", default=LAYERS, help="names of nn.Linear layers, or patterns")
    parser.add_argument("--train", type=int, default=1152, help="sentences to train on")
    parser.add_argument("--batch", type=int, default=32, help="sentences in a step")
    parser.add_argument("--tokens", type=int, default=256, help="tokens to record of each step for replay")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, _ = sentences(options.train, 1000, 48)
    model, _ = build(FULL, seed=0)
    step = Step(model, None)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.01)
    same = longest(data, options.batch)
    order = torch.Generator().manual_seed(0)
    steps = Steps(options.tokens)

    def train(batch):
        optimizer.zero_grad()
        with record(model, options.layers) as passes:
            step(batch)
        optimizer.step()
        return passes

    for chosen in tqdm(data.epoch(options.batch, order), desc="first epoch"):
        steps.add(train(data.batch(chosen)))
    previous = train(same)
    for chosen in tqdm(data.epoch(options.batch, order), desc="second epoch"):
        train(data.batch(chosen))
    passes = train(same)
    for file in steps.save(options.out / "steps") + save_layers(options.out / "layers", passes, previous):
        print(file)


if __name__ == "__main__":
    main()
