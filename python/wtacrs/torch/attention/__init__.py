"""Attention of transformers' models.

interface           the function that models call for attention
probabilities       attention that saves its probabilities
operands            what its products save of Q, K and V
scaled_dot_product  torch's own attention, with what it saves packed
ops                 both as custom operators of torch
"""

from . import ops as ops
