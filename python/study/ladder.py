"""Ladder side-tuning (LST; Sung, Cho and Bansal, NeurIPS 2022): a small network beside a frozen one.

The backbone runs without a graph. The side network has the same blocks with 1/r of the features. Block l reads
μ·down(h_l) + (1 − μ)·s_l, where h_l is what the backbone's block l reads, s_l what the side's block before has
returned, and μ a gate that trains. The last such sum, turned back to the backbone's width, takes the place of the
backbone's output. As in the paper, the side's weights begin as those of the backbone's channels whose weights are the
largest.
"""

import copy
import re

import torch
from torch import nn

# In the configurations of transformers: what has 1/r of its size.
REDUCED = ("hidden_size", "intermediate_size", "d_model", "d_ff", "d_kv", "head_dim")
# Products by parts of parameters' names, with the set of channels that they write or read beside the model's width.
# Each attention has two sets, one for queries and keys, each feed-forward layer one.
ATTENTION = r"(?P<of>.*?(?:attention|SelfAttention|EncDecAttention|self_attn))\."
WRITES = {
    "scores": ATTENTION + r"(?:self\.)?(?:query|key|q|k|q_proj|k_proj)\.",
    "context": ATTENTION + r"(?:self\.)?(?:value|v|v_proj)\.",
    "inner": r"(?P<of>.*\.\d+)\.(?:intermediate\.dense|DenseReluDense\.wi(?:_\d)?|mlp\.(?:gate|up)_proj)\.",
}
READS = {
    "context": ATTENTION + r"(?:output\.dense|o|o_proj)\.weight",
    "inner": r"(?P<of>.*\.\d+)\.(?:output\.dense|DenseReluDense\.wo|mlp\.down_proj)\.weight",
}
# The paper's: a gate is the sigmoid of its parameter over this temperature.
TEMPERATURE = 0.1


class Ladder(nn.Module):
    """The backbone, a model of transformers, with a side network that trains in its place. Its output has the
    backbone's width, as `last_hidden_state`."""

    def __init__(self, backbone: nn.Module, reduction: int):
        super().__init__()
        self.backbone, self.config = backbone.requires_grad_(False), backbone.config
        self.side = side_of(backbone, reduction)
        width, narrow = backbone.config.hidden_size, self.side.config.hidden_size
        pairs = list(zip(blocks(backbone), blocks(self.side), strict=True))
        # The last is for the backbone's output.
        self.down = nn.ModuleList(nn.Linear(width, narrow, bias=False) for _ in range(len(pairs) + 1))
        self.gates = nn.ParameterList(nn.Parameter(torch.zeros(())) for _ in self.down)
        self.up = nn.Linear(narrow, width)
        self.read = {}
        stacks = set()
        for place, (theirs, own) in enumerate(pairs):
            theirs.register_forward_pre_hook(self.note(place))
            # The first block of a stack has no block before it.
            stack = [name for name, module in self.side.named_modules() if module is own][0].rsplit(".", 1)[0]
            first = stack not in stacks
            self.gates[place].requires_grad_(not first)
            own.register_forward_pre_hook(self.join(place, first))
            stacks.add(stack)
        prune(backbone, self.side)

    def train(self, training=True):
        super().train(training)
        # A frozen network without noise.
        self.backbone.eval()
        return self

    def note(self, place):
        def hook(_, inputs):
            self.read[place] = inputs[0]

        return hook

    def join(self, place, first):
        def hook(_, inputs):
            ours = self.down[place](self.read.pop(place))
            return (ours if first else self.mixed(place, ours, inputs[0]), *inputs[1:])

        return hook

    def mixed(self, place, theirs, own):
        gate = torch.sigmoid(self.gates[place] / TEMPERATURE)
        return gate * theirs + (1 - gate) * own

    def forward(self, input_ids, attention_mask=None, decoder_input_ids=None, **named):
        names = {} if decoder_input_ids is None else {"decoder_input_ids": decoder_input_ids}
        with torch.no_grad():
            whole = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **names, **named)
        narrow = self.side.config.hidden_size
        # The hooks put the backbone's in the place of these.
        empty = {"inputs_embeds": whole.last_hidden_state.new_zeros(*input_ids.shape, narrow)}
        if decoder_input_ids is not None:
            empty["decoder_inputs_embeds"] = whole.last_hidden_state.new_zeros(*decoder_input_ids.shape, narrow)
        side = self.side(attention_mask=attention_mask, **empty, **named)
        last = self.mixed(-1, self.down[-1](whole.last_hidden_state), side.last_hidden_state)
        side.last_hidden_state = self.up(last)
        return side


def blocks(model):
    """The blocks of all stacks, in the order in which they run."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    inside = {id(m) for outer in lists for block in outer for m in block.modules() if isinstance(m, nn.ModuleList)}
    return [block for blocks in lists if id(blocks) not in inside for block in blocks]


def side_of(backbone, reduction):
    config = copy.deepcopy(backbone.config)
    # Some of these are other names of others in the object, but not in its dictionary.
    sizes = config.to_dict()
    for name in REDUCED:
        if sizes.get(name) is not None:
            setattr(config, name, sizes[name] // reduction)
    # It reads no tokens.
    config.vocab_size = 1
    config.pad_token_id = 0
    pooling = {"add_pooling_layer": False} if hasattr(backbone, "pooler") else {}
    side = type(backbone)(config, **pooling)
    for module in [side.get_input_embeddings(), getattr(side, "embeddings", None)]:
        if module is not None:
            module.requires_grad_(False)
    return side


@torch.no_grad()
def prune(backbone, side):
    """Copies into the side's blocks those channels of the backbone's whose weights are the largest in sum. Heads that
    share keys, as Llama's do, have no such channels: then the side's weights stay random."""
    config = side.config
    heads = getattr(config, "num_attention_heads", None) or config.num_heads
    if getattr(config, "num_key_value_heads", heads) != heads:
        return
    within = {id(parameter) for block in blocks(side) for parameter in block.parameters()}
    small = {name: parameter for name, parameter in side.named_parameters() if id(parameter) in within}
    large = {name: parameter for name, parameter in backbone.named_parameters() if name in small}
    weights = {"width": torch.zeros(backbone.config.hidden_size)}
    for name, parameter in large.items():
        if parameter.ndim == 2 and (written := channels(WRITES, name)):
            weights["width"] += parameter.abs().sum(0)
            weights[written] = weights.get(written, 0) + parameter.abs().sum(1)
    kept = {"width": weights.pop("width").topk(config.hidden_size).indices.sort().values}
    for key, sums in weights.items():
        groups = 1 if key[0] == "inner" else heads
        kept[key] = largest(sums.view(groups, -1), config.hidden_size / backbone.config.hidden_size)
    for name, parameter in small.items():
        source = large[name]
        for axis, size in enumerate(parameter.shape):
            if source.shape[axis] != size:
                key = channels(WRITES if axis == 0 else READS, name) or "width"
                source = source.index_select(axis, kept[key])
        parameter.copy_(source)


def channels(patterns, name):
    for kind, pattern in patterns.items():
        if found := re.match(pattern, name):
            return kind, found["of"]
    return None


def largest(grouped, share):
    """The places of the largest in each group, ascending."""
    groups, size = grouped.shape
    places = grouped.topk(round(size * share), dim=1).indices.sort(dim=1).values
    return (places + size * torch.arange(groups).unsqueeze(1)).flatten()
