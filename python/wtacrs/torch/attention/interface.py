"""Attention of transformers' models: which implementation serves a call, and how it gets into the model.

transformers looks up a model's attention by the name in its config. For each implementation that is served, a function
has a name of its own, and `convert` writes it into the config. The mask function of the original implementation has the
same name: without one, a name gets no masks, and padding would be attended to. The function asks the module for its
`Attention`, which `convert` has put there. transformers is used only where it is already imported.
"""

from __future__ import annotations

import sys

import torch

from .. import devices
from ..modes import traced
from ..operators import passes, recognition
from .probabilities import attend
from .scaled_dot_product import attend_packed, serves_traced

# Calls with these, which change the scores or ask for the probabilities, are left to the original implementation.
OTHER_TERMS = ("softcap", "s_aux", "head_mask", "output_attentions")
SERVED = ("eager", "sdpa")
PREFIX = "wtacrs_"
# The attribute of modules within a converted model.
PLACE = "wtacrs_attention"


def convert(model, shared, skipped):
    """Returns the configs that were changed with their former names and the modules that got an `Attention`, and why
    the attention of other models is left as it is."""
    before, left = [], {}
    modeling = sys.modules.get("transformers.modeling_utils")
    if modeling is None:
        return before, left
    register_again()
    seen = set()
    skip = {module for name, module in model.named_modules() if name and skipped(name, module)}
    for name, module in model.named_modules():
        if not isinstance(module, modeling.PreTrainedModel) or id(module.config) in seen:
            continue
        seen.add(id(module.config))
        config, was = module.config, module.config._attn_implementation
        # A model that was made from the config of a converted one.
        was = former(config) or was
        reason = None
        if was not in SERVED:
            reason = f"its implementation is {was!r}"
        elif not module._can_set_attn_implementation():
            reason = "transformers allows no other implementation for it"
        if reason is not None:
            left[f"attention of {name or type(module).__name__}"] = reason
            continue
        # The setter would change the configs within this one as well, whose implementation may be another.
        config._attn_implementation_internal = PREFIX + was
        own = Attention(was, shared)
        served = [part for part in module.modules() if part not in skip and may_attend(part)]
        for part in served:
            setattr(part, PLACE, own)
        before.append((config, was, served))
    return before, left


def may_attend(module):
    """Whether a module may call an attention function: torch's own modules do not."""
    return any(True for _ in module.children()) or not type(module).__module__.startswith(("torch.nn", "wtacrs"))


def revert(before):
    for config, was, served in before:
        for part in served:
            vars(part).pop(PLACE, None)
        # Another implementation may have been chosen since.
        if former(config) is not None:
            config._attn_implementation_internal = was


def revert_configs(model):
    """Gives the configs within a model, which may be a copy, the names back that they had."""
    for module in model.modules():
        vars(module).pop(PLACE, None)
        config = getattr(module, "config", None)
        if former(config) is not None:
            config._attn_implementation_internal = former(config)


def former(config):
    """The implementation that ours has replaced in a config; None if it is not ours."""
    name = getattr(config, "_attn_implementation_internal", None) or ""
    return name.removeprefix(PREFIX) if name.startswith(PREFIX) else None


def register_again():
    """Registers the functions where transformers does not know them: in every process once."""
    if "transformers.modeling_utils" not in sys.modules:
        return
    from transformers import AttentionInterface, AttentionMaskInterface

    for was in SERVED:
        if PREFIX + was not in AttentionInterface():
            AttentionInterface.register(PREFIX + was, Dispatch(was))
            AttentionMaskInterface.register(PREFIX + was, AttentionMaskInterface()[was])


class Dispatch:
    """An attention function with transformers' signature, which leaves modules without an `Attention` to the original
    implementation."""

    def __init__(self, was):
        self.was = was

    def __call__(self, module, query, key, value, attention_mask, **options):
        own = getattr(module, PLACE, None) or Attention(self.was, None)
        return own(module, query, key, value, attention_mask, **options)


class Attention:
    """An attention function with transformers' signature. query is batch x heads x queries x channels; key and value
    have keys in place of queries, and perhaps fewer heads. The output is batch x queries x heads x channels."""

    def __init__(self, was, shared):
        self.was, self.operators = was, shared

    @property
    def functions(self):
        return sys.modules["transformers.modeling_utils"].ALL_ATTENTION_FUNCTIONS

    def __call__(self, module, query, key, value, attention_mask, **options):
        terms = self.terms(module, query, key, value, attention_mask, **options)
        if terms is None:
            return self.previous(module)(module, query, key, value, attention_mask, **options)
        return terms, None

    def previous(self, module):
        eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        return self.functions.get_interface(self.was, eager)

    def terms(
        self, module, query, key, value, mask, dropout=0.0, scaling=None, is_causal=None, position_bias=None, **others
    ):
        """The output, or None for a call that is left to the original implementation."""
        # In eval() and without gradients nothing is saved. Dropout is served even without gradients: checkpointing
        # runs a segment first without and then with them, and its masks must repeat.
        query, key, value = autocast(query, key, value)
        inputs = [query, key, value] if position_bias is None else [query, key, value, position_bias]
        needed = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
        if not module.training or not (needed or dropout) or self.operators is None:
            return None
        if not all(passes.serves(t) for t in inputs) or len({t.dtype for t in inputs[:3]}) > 1:
            return None
        if any(others.get(term) is not None and others[term] is not False for term in OTHER_TERMS):
            return None
        if query.ndim != 4 or query.shape[1] % key.shape[1] or query.shape[0] != key.shape[0]:
            return None
        if self.was == "eager":
            if not any(recognition.same_code(self.previous(module), known) for known in KNOWN_EAGER):
                return None
            causal = False
        else:
            causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
            causal = bool(causal) and query.shape[2] > 1 and mask is None
        scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
        arguments = query, key, value, mask, position_bias, causal, scaling, dropout
        if self.saves_probabilities(*arguments):
            return attend(self.operators, *arguments)
        if self.operators.packs and (not traced(query) or serves_traced(query, key, value, dropout)):
            return attend_packed(self.operators, *arguments)
        if dropout:
            return None
        # Of the two, the one that saves no probabilities.
        return self.functions["sdpa"](
            module, query, key, value, mask, scaling=scaling, is_causal=causal, position_bias=position_bias
        )[0]

    def saves_probabilities(self, query, key, value, mask, position_bias, causal, scaling, dropout):
        """Whether torch would save them, too: where a bias is learned, and for dropout, unless a fused kernel of a GPU
        applies it."""
        if position_bias is not None and position_bias.requires_grad and torch.is_grad_enabled():
            return True
        if not dropout:
            return False
        if query.device.type != "cuda" or self.was != "sdpa" or position_bias is not None:
            return True
        grouped = {"enable_gqa": True} if query.shape[1] != key.shape[1] else {}
        return torch._fused_sdp_choice(query, key, value, mask, dropout, causal, scale=scaling, **grouped) == 0


def autocast(*operands):
    """The operands in the dtype that torch multiplies them in."""
    dtype = devices.autocast_dtype(operands[0].device.type)
    if dtype is None:
        return operands
    return tuple(t if t.dtype == torch.float64 else t.to(dtype) for t in operands)


# The functions below are written as transformers writes them. They are compared, and never called.
# fmt: off
# ruff: noqa: F821


def bert_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **kwargs):
    if scaling is None:
        scaling = query.size(-1) ** -0.5
    attn_weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        attn_weights = attn_weights + attention_mask
    attn_weights = nn.functional.softmax(attn_weights, dim=-1)
    attn_weights = nn.functional.dropout(attn_weights, p=dropout, training=module.training)
    attn_output = torch.matmul(attn_weights, value)
    attn_output = attn_output.transpose(1, 2).contiguous()
    return attn_output, attn_weights


def t5_attention(module, query, key, value, attention_mask, scaling=None, dropout=0.0, position_bias=None, **kwargs):
    if scaling is None:
        scaling = query.size(-1) ** -0.5
    attn_weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if position_bias is not None:
        attn_weights = attn_weights + position_bias
    if attention_mask is not None:
        attn_weights = attn_weights + attention_mask
    attn_weights = nn.functional.softmax(attn_weights, dim=-1)
    attn_weights = nn.functional.dropout(attn_weights, p=dropout, training=module.training)
    attn_output = torch.matmul(attn_weights, value)
    attn_output = attn_output.transpose(1, 2).contiguous()
    return attn_output, attn_weights


def llama_attention(module, query, key, value, attention_mask, scaling, dropout=0.0, **kwargs):
    key_states = repeat_kv(key, module.num_key_value_groups)
    value_states = repeat_kv(value, module.num_key_value_groups)
    attn_weights = torch.matmul(query, key_states.transpose(2, 3)) * scaling
    if attention_mask is not None:
        attn_weights = attn_weights + attention_mask
    attn_weights = nn.functional.softmax(attn_weights, dim=-1, dtype=torch.float32).to(query.dtype)
    attn_weights = nn.functional.dropout(attn_weights, p=dropout, training=module.training)
    attn_output = torch.matmul(attn_weights, value_states)
    attn_output = attn_output.transpose(1, 2).contiguous()
    return attn_output, attn_weights


# fmt: on
KNOWN_EAGER = (bert_attention, t5_attention, llama_attention)
