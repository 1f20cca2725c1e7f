"""The ways to train that the tables compare: full training, what others do about its memory, and this library."""

import dataclasses

import peft
from ladder import Ladder
from torch import nn

from wtacrs.torch import Sampling, convert

# The rank of the published system's experiments, and the two products that LoRA's authors adapt.
LORA = {"r": 32, "lora_alpha": 64, "target_modules": ["query", "value", "q", "v", "q_proj", "v_proj"]}
LADDER_REDUCTION = 8


@dataclasses.dataclass(frozen=True)
class Method:
    title: str
    # The arguments of `convert`, if rows are sampled.
    sampling: dict | None = None
    adapters: bool = False
    ladder: bool = False
    checkpointing: bool = False

    def apply(self, model: nn.Module, base: str, seed: int = 0, skip=(), process_group=None) -> Sampling | None:
        """Makes the model train this way, in place. `base` names the transformers model inside, and modules beside it
        train whatever the method. `skip` is for `convert`. Returns the sampling, if there is one."""
        beside = [p for name, p in model.named_parameters() if not name.startswith(base + ".") and p.requires_grad]
        if self.ladder:
            setattr(model, base, Ladder(getattr(model, base), LADDER_REDUCTION))
        if self.adapters:
            peft.inject_adapter_in_model(peft.LoraConfig(**LORA), model)
            for parameter in beside:
                parameter.requires_grad_(True)
        if self.checkpointing:
            getattr(model, base).gradient_checkpointing_enable({"use_reentrant": False})
        if self.sampling is None:
            return None
        return convert(model, seed=seed, skip=skip, process_group=process_group, **self.sampling)


def published(budget):
    """WTA-CRS as its authors describe it: i.i.d. draws, norms of the last visit, rows in the model's dtype, and Q, K, V
    and the probabilities sampled as well."""
    return {
        "budget": budget, "design": "wta-iid", "source": "cached", "bits": "native", "activations": "exact",
        "tensor_mul": budget,
    }  # fmt: skip


def ours(budget, bits=4, activation_bits=4):
    rows = {"budget": budget, "design": "wta-pivotal", "source": "predicted", "bits": bits}
    return rows if activation_bits is None else rows | {"activations": "packed", "activation_bits": activation_bits}


def native(budget):
    """Our rows without packing, which saves the most time."""
    return {"budget": budget, "design": "wta-pivotal", "source": "predicted", "bits": "native", "activations": "exact"}


METHODS = {
    "full": Method("full training"),
    "checkpointing": Method("gradient checkpointing", checkpointing=True),
    "lora": Method("LoRA", adapters=True),
    "lst": Method("LST", ladder=True),
    "published-0.3": Method("WTA-CRS@0.3 as published", published(0.3)),
    "published-0.1": Method("WTA-CRS@0.1 as published", published(0.1)),
    "ours-0.3": Method("ours, 0.3 of the rows in 4 bits", ours(0.3)),
    "ours-all": Method("ours, all rows in 4 bits", ours(1.0)),
    "ours-0.3-linear": Method("ours, 0.3 of the rows in 4 bits, linear layers alone", ours(0.3, activation_bits=None)),
    "native-0.3": Method("ours, 0.3 of the rows, native", native(0.3)),
    "native-0.1": Method("ours, 0.1 of the rows, native", native(0.1)),
    "lora+published-0.3": Method("LoRA + WTA-CRS@0.3 as published", published(0.3), adapters=True),
    "lora+published-0.1": Method("LoRA + WTA-CRS@0.1 as published", published(0.1), adapters=True),
    "lora+ours-0.3": Method("LoRA + ours, 0.3 of the rows", ours(0.3), adapters=True),
    "lora+ours-all": Method("LoRA + ours, all rows", ours(1.0), adapters=True),
}
