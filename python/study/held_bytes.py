"""What two layers of a model hold for the backward pass, by operator: exact, and converted in several ways.

    python held_bytes.py --model bert --figure held.svg

Models have real widths and random weights: BERT-Base, T5-Base (encoder and decoder), and a Llama of 768 features.
Sequences have 128 tokens, and dropout is 0.1 (none in Llama). Requires `wtacrs.torch` and transformers, and matplotlib
for the figure.
"""

import argparse

import torch
from tqdm import tqdm
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, T5Config, T5Model

from wtacrs.torch import SavedBytes, convert

WORDS = 200
BERT = {"num_hidden_layers": 2}
T5 = {"d_model": 768, "d_ff": 3072, "num_heads": 12, "num_layers": 2}
LLAMA = {
    "hidden_size": 768, "intermediate_size": 2048, "num_attention_heads": 12, "num_key_value_heads": 4,
    "num_hidden_layers": 2, "use_cache": False,
}  # fmt: skip
MODELS = {
    "bert": lambda: BertModel(BertConfig(vocab_size=WORDS, **BERT), add_pooling_layer=False),
    "t5": lambda: T5Model(T5Config(vocab_size=WORDS, **T5)),
    "llama": lambda: LlamaModel(LlamaConfig(vocab_size=WORDS, **LLAMA)),
}
WAYS = {
    "exact": None,
    "native rows at 0.3": {"bits": "native"},
    "and exact activations": {"bits": "native", "activations": "exact"},
    "and Q, K and V at 0.3": {"bits": "native", "activations": "exact", "tensor_mul": 0.3},
    "rows at 0.3 in 4 bits": {"bits": 4},
    "and activations in 8 bits": {"bits": 4, "activations": "packed"},
    "and activations in 4 bits": {"bits": 4, "activations": "packed", "activation_bits": 4},
}


def held(model, way, tokens, autocast):
    sampling = None if way is None else convert(model, 0.3, seed=1, **way)
    decoder = {"decoder_input_ids": tokens, "use_cache": False} if isinstance(model, T5Model) else {}
    run = lambda: model(input_ids=tokens, **decoder).last_hidden_state
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        # The first pass shows which inputs are kept anyway.
        run()
        with SavedBytes(model) as saved:
            run()
    if sampling is not None:
        sampling.revert()
    return saved


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="bert")
    parser.add_argument("--batch", type=int, default=4, help="sequences")
    parser.add_argument("--length", type=int, default=128, help="tokens of each")
    parser.add_argument("--autocast", action="store_true", help="to bf16")
    parser.add_argument("--figure", help="where to draw it")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = MODELS[options.model]().train()
    tokens = torch.randint(1, WORDS, (options.batch, options.length))
    found = {name: held(model, way, tokens, options.autocast) for name, way in tqdm(WAYS.items(), leave=False)}
    *others, (name, last) = found.items()
    print(last.table(name, **dict(others)))
    copies = found["exact"].by_operator["copies of weights"]
    if copies:
        # Converted layers hold none.
        shares = [f"{saved.total / (found['exact'].total - copies):.3f}" for saved in found.values()]
        print("of exact without copies of weights:", *shares)
    if options.figure:
        last.figure(options.figure, name, **dict(others))


if __name__ == "__main__":
    main()
