"""Recognises modules that compute what the library has an operator for.

torch's own modules are recognised by their class. In transformers every model's file has its own activations, norms and
gated units, under names of its own. These are recognised by the code of their forward pass, which is compared with that
of the functions below. So a class that computes something else is never taken for one of them, whatever its name.
transformers is not imported.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

# What a module computes is pickled with it. So these have names, as no function within an expression has.


def weight_of(module):
    return module.weight


def bias_of(module):
    return module.bias


def no_bias(module):
    return None


def elements_of_weight(module):
    return module.weight.numel()


@dataclasses.dataclass(frozen=True)
class Activation:
    operation: str
    category = "activations"


@dataclasses.dataclass(frozen=True)
class Dropout:
    category = "dropout"


@dataclasses.dataclass(frozen=True)
class Norm:
    """`weight`, `bias`, `columns` and `epsilon` read these from the module. `dtype_of` returns the output's dtype for x
    and the weight."""

    operation: str
    epsilon: Callable
    dtype_of: Callable
    weight: Callable = weight_of
    bias: Callable = no_bias
    columns: Callable = elements_of_weight
    category = "norms"


@dataclasses.dataclass(frozen=True)
class GatedUnit:
    """`run(module, x, unit)` is the module's forward pass with `unit(a, b)` in place of act(a)·b. `activation` reads
    act from the module."""

    operation: str
    activation: Callable
    run: Callable
    category = "gated units"


def kind_of(module):
    """What the module computes, or None."""
    if "forward" in vars(module):
        return None
    if type(module) in OF_TORCH:
        return OF_TORCH[type(module)](module)
    forward = type(module).forward
    operation = activation_of(module)
    if operation is not None:
        return Activation(operation)
    for template, norm in NORMS:
        if same_code(forward, template):
            return norm if hasattr(module, "variance_epsilon") else None
    if same_code(forward, gemma_norm) and same_code(type(module)._norm, gemma_norm_of):
        return GEMMA_NORM
    for template, activation, run in GATED_UNITS:
        if same_code(forward, template):
            operation = activation_of(activation(module))
            return None if operation is None else GatedUnit(operation, activation, run)
    return None


def why_left(module):
    """Why one of torch's modules is left as it is, although the library has an operator for it; else None."""
    if type(module) in (nn.ReLU, nn.SiLU, nn.Dropout) and module.inplace:
        return "it works in place"
    return None


def activation_of(function):
    """The operation of an activation, which is a module or a function; None if it is not recognised."""
    if isinstance(function, nn.Module):
        found = OF_TORCH.get(type(function), lambda _: None)(function)
        if isinstance(found, Activation):
            return found.operation
        forward = type(function).forward
        for template, operation in ACTIVATIONS:
            if same_code(forward, template):
                return operation
        # GELUActivation and GELUTanh choose a function when they are made.
        return activation_of(function.act) if same_code(forward, chosen_function) and hasattr(function, "act") else None
    if function in FUNCTIONS:
        return FUNCTIONS[function]
    if isinstance(function, functools.partial) and function.func is F.gelu and not function.args:
        return {"none": "gelu", "tanh": "gelu-tanh"}.get(function.keywords.get("approximate", "none"))
    for template, operation in METHODS:
        if same_code(function, template):
            return operation
    return None


def same_code(function, template):
    code, other = (getattr(f, "__code__", None) for f in (function, template))
    if code is None:
        return False
    # The first constant is the docstring, if there is one.
    return (code.co_code, code.co_names, code.co_consts[1:]) == (other.co_code, other.co_names, other.co_consts[1:])


FUNCTIONS = {F.relu: "relu", torch.relu: "relu", F.gelu: "gelu", F.silu: "silu"}


def of_gelu(module):
    return Activation({"none": "gelu", "tanh": "gelu-tanh"}[module.approximate])


def of_layer_norm(module):
    return Norm(
        "layer-norm",
        epsilon=eps_of,
        dtype_of=torch_norm_dtype,
        bias=bias_of,
        columns=elements_of_shape,
    )


def of_rms_norm(module):
    return Norm(
        "rms-norm",
        epsilon=eps_of,
        dtype_of=torch_norm_dtype,
        columns=elements_of_shape,
    )


def eps_of(module):
    return module.eps


def elements_of_shape(module):
    return math.prod(module.normalized_shape)


def torch_norm_dtype(x, weight):
    """The output's dtype: under autocast f32 on a GPU, else the input's dtype."""
    return torch.float32 if x.device.type == "cuda" and torch.is_autocast_enabled("cuda") else x.dtype


OF_TORCH = {
    nn.ReLU: lambda module: None if module.inplace else Activation("relu"),
    nn.GELU: of_gelu,
    nn.SiLU: lambda module: None if module.inplace else Activation("silu"),
    nn.Dropout: lambda module: None if module.inplace else Dropout(),
    nn.LayerNorm: of_layer_norm,
    nn.RMSNorm: of_rms_norm,
}


# The functions below are written as transformers writes them. They are compared, and never called.
# fmt: off
# ruff: noqa: F841, RET504


def chosen_function(self, input):
    return self.act(input)


def gelu_python(self, input):
    return input * 0.5 * (1.0 + torch.erf(input / math.sqrt(2.0)))


def gelu_tanh_python(self, input):
    return input * 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (input + 0.044715 * torch.pow(input, 3.0))))


def new_gelu(self, input):
    return 0.5 * input * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (input + 0.044715 * torch.pow(input, 3.0))))


def fast_gelu(self, input):
    return 0.5 * input * (1.0 + torch.tanh(input * 0.7978845608 * (1.0 + 0.044715 * input * input)))


def accurate_gelu(self, input):
    return 0.5 * input * (1 + torch.tanh(self.precomputed_constant * (input + 0.044715 * torch.pow(input, 3))))


def silu(self, input):
    return nn.functional.silu(input)


METHODS = [(gelu_python, "gelu"), (gelu_tanh_python, "gelu-tanh")]
ACTIVATIONS = [(new_gelu, "gelu-tanh"), (fast_gelu, "gelu-tanh"), (accurate_gelu, "gelu-tanh"), (silu, "silu")]


def t5_norm(self, hidden_states):
    variance = hidden_states.to(torch.float32).pow(2).mean(-1, keepdim=True)
    hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
    if self.weight.dtype in [torch.float16, torch.bfloat16]:
        hidden_states = hidden_states.to(self.weight.dtype)
    return self.weight * hidden_states


def llama_norm(self, hidden_states):
    input_dtype = hidden_states.dtype
    hidden_states = hidden_states.to(torch.float32)
    variance = hidden_states.pow(2).mean(-1, keepdim=True)
    hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
    return self.weight * hidden_states.to(input_dtype)


def olmo_norm(self, hidden_states):
    input_dtype = hidden_states.dtype
    hidden_states = hidden_states.to(torch.float32)
    variance = hidden_states.pow(2).mean(-1, keepdim=True)
    hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
    return (self.weight * hidden_states).to(input_dtype)


def helium_norm(self, hidden_states):
    input_dtype = hidden_states.dtype
    hidden_states = hidden_states.to(torch.float32)
    variance = hidden_states.pow(2).mean(-1, keepdim=True)
    hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
    return (self.weight.to(torch.float32) * hidden_states).to(input_dtype)


def gemma_norm(self, x):
    output = self._norm(x.float())
    output = output * (1.0 + self.weight.float())
    return output.type_as(x)


def gemma_norm_of(self, x):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


def llama_unit(self, x):
    down_proj = self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))
    return down_proj


def qwen_unit(self, x):
    return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


def lfm_unit(self, x):
    return self.w2(F.silu(self.w1(x)) * self.w3(x))


def t5gemma_unit(self, x):
    hidden_states = self.act_fn(self.gate_proj(x)) * self.up_proj(x)
    hidden_states = self.dropout(hidden_states)
    down_proj = self.down_proj(hidden_states)
    return down_proj


def glm_unit(self, hidden_states):
    up_states = self.gate_up_proj(hidden_states)
    gate, up_states = up_states.chunk(2, dim=-1)
    up_states = up_states * self.activation_fn(gate)
    return self.down_proj(up_states)


def t5_unit(self, hidden_states):
    hidden_gelu = self.act(self.wi_0(hidden_states))
    hidden_linear = self.wi_1(hidden_states)
    hidden_states = hidden_gelu * hidden_linear
    hidden_states = self.dropout(hidden_states)
    if (
        isinstance(self.wo.weight, torch.Tensor)
        and hidden_states.dtype != self.wo.weight.dtype
        and self.wo.weight.dtype != torch.int8
    ):
        hidden_states = hidden_states.to(self.wo.weight.dtype)

    hidden_states = self.wo(hidden_states)
    return hidden_states


def longt5_unit(self, hidden_states):
    hidden_gelu = self.act(self.wi_0(hidden_states))
    hidden_linear = self.wi_1(hidden_states)
    hidden_states = hidden_gelu * hidden_linear
    hidden_states = self.dropout(hidden_states)
    hidden_states = self.wo(hidden_states)
    return hidden_states


# fmt: on


def run_llama(module, x, unit):
    return module.down_proj(unit(module.gate_proj(x), module.up_proj(x)))


def run_lfm(module, x, unit):
    return module.w2(unit(module.w1(x), module.w3(x)))


def run_t5gemma(module, x, unit):
    return module.down_proj(module.dropout(unit(module.gate_proj(x), module.up_proj(x))))


def run_glm(module, x, unit):
    gate, up = module.gate_up_proj(x).chunk(2, dim=-1)
    return module.down_proj(unit(gate, up))


def run_t5(module, x, unit):
    x = module.dropout(unit(module.wi_0(x), module.wi_1(x)))
    weight = module.wo.weight
    if isinstance(weight, torch.Tensor) and x.dtype != weight.dtype and weight.dtype != torch.int8:
        x = x.to(weight.dtype)
    return module.wo(x)


def run_longt5(module, x, unit):
    return module.wo(module.dropout(unit(module.wi_0(x), module.wi_1(x))))


def rms_norm(dtype_of, **options):
    return Norm("rms-norm", options.pop("epsilon", variance_epsilon_of), dtype_of, **options)


def dtype_of_weight(x, weight):
    return weight.dtype


def dtype_of_input(x, weight):
    return x.dtype


def dtype_of_both(x, weight):
    return torch.promote_types(x.dtype, weight.dtype)


def one_and_weight(module):
    return 1.0 + module.weight.float()


def variance_epsilon_of(module):
    return module.variance_epsilon


def act_fn_of(module):
    return module.act_fn


def activation_fn_of(module):
    return module.activation_fn


def act_of(module):
    return module.act


def silu_itself(module):
    return F.silu


# T5's norm returns the weight's dtype. Llama's rounds to the input's dtype before the weight, the others after it.
NORMS = [
    (t5_norm, rms_norm(dtype_of_weight)),
    (llama_norm, rms_norm(dtype_of_both)),
    (olmo_norm, rms_norm(dtype_of_input)),
    (helium_norm, rms_norm(dtype_of_input)),
]
GEMMA_NORM = rms_norm(dtype_of_input, epsilon=eps_of, weight=one_and_weight)
GATED_UNITS = [
    (llama_unit, act_fn_of, run_llama),
    (qwen_unit, act_fn_of, run_llama),
    (lfm_unit, silu_itself, run_lfm),
    (t5gemma_unit, act_fn_of, run_t5gemma),
    (glm_unit, activation_fn_of, run_glm),
    (t5_unit, act_of, run_t5),
    (longt5_unit, act_of, run_longt5),
]
