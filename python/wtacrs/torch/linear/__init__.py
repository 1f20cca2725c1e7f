"""Linear layers that save a sample of their input.

layer          `SampledLinear`, and its passes in torch's graph
shared_input   one selection for all layers that read the same rows
plans          the passes themselves, in the library, and whether they save memory
guesses        what stands for the norms of dZ in a forward pass
batch_layout   which samples a batch holds, for cached norms
rank_exchange  what several processes exchange after a step
tracing        the layers in a trace, as torch.compile makes one
ops            their passes as custom operators of torch
"""
