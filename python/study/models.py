"""The models of the tables, with their true shapes and random weights, and a batch for each: a transformers model, a
head, and a loss."""

import dataclasses
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, T5Config, T5Model

LENGTH, TARGET = 128, 8


def masks_of(batch):
    """For `Sampling.batch`: all tokens count, in the input and, if there is one, in the target."""
    return [torch.ones_like(tokens) for tokens in batch.values() if tokens.ndim == 2]


class Classifying(nn.Module):
    """A BERT with a head of two classes on the first token."""

    def __init__(self, config):
        super().__init__()
        self.base = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(config.hidden_size, 2)

    def batch(self, size):
        return {"tokens": tokens(self, size, LENGTH), "labels": torch.arange(size) % 2}

    def forward(self, tokens, labels):
        hidden = self.base(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
        return cross_entropy(self.head(hidden[:, 0]), labels)


class Translating(nn.Module):
    """A T5, whose decoder's output goes through the table of embeddings."""

    def __init__(self, config):
        super().__init__()
        self.base = T5Model(config)
        self.words = self.base.shared

    def batch(self, size):
        return {"tokens": tokens(self, size, LENGTH), "labels": tokens(self, size, TARGET)}

    def forward(self, tokens, labels):
        begin = torch.zeros_like(labels[:, :1])
        hidden = self.base(
            input_ids=tokens, attention_mask=torch.ones_like(tokens),
            decoder_input_ids=torch.cat([begin, labels[:, :-1]], 1), use_cache=False,
        ).last_hidden_state  # fmt: skip
        # As T5 does where the tables are one.
        logits = linear(hidden * hidden.shape[-1] ** -0.5, self.words.weight)
        return cross_entropy(logits.flatten(0, 1), labels.flatten())


class Continuing(nn.Module):
    """A Llama that learns each next token."""

    def __init__(self, config):
        super().__init__()
        self.base = LlamaModel(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def batch(self, size):
        return {"tokens": tokens(self, size, LENGTH)}

    def forward(self, tokens):
        hidden = self.base(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).last_hidden_state
        # The last token has no next one.
        following = nn.functional.pad(tokens[:, 1:], (0, 1), value=-100)
        return cross_entropy(self.head(hidden).flatten(0, 1), following.flatten())


def tokens(model, size, length):
    return torch.randint(1, model.base.config.vocab_size, (size, length))


BERT_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
T5_BASE = {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
T5_LARGE = {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16}
# TinyLlama's.
LLAMA_1B = {
    "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
    "num_key_value_heads": 4, "vocab_size": 32000,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Shape:
    title: str
    make: Callable[[], nn.Module]
    # Of transformers' model, an encoder's and a decoder's.
    blocks: int
    # Features of the widest array that is made of all tokens.
    widest: int
    # Elements of a table that is used twice. Its first gradient waits for the last.
    shared_table: int = 0


MODELS = {
    "t5-base": Shape("T5-Base", lambda: Translating(T5Config(**T5_BASE)), 24, 3072, 32128 * 768),
    "t5-large": Shape("T5-Large", lambda: Translating(T5Config(**T5_LARGE)), 48, 4096, 32128 * 1024),
    "bert-base": Shape("BERT-Base", lambda: Classifying(BertConfig()), 12, 3072),
    "bert-large": Shape("BERT-Large", lambda: Classifying(BertConfig(**BERT_LARGE)), 24, 4096),
    "llama-1b": Shape("Llama, 1.1B", lambda: Continuing(LlamaConfig(**LLAMA_1B)), 22, 32000),
}


def build(name):
    torch.manual_seed(0)
    return MODELS[name].make().train()
