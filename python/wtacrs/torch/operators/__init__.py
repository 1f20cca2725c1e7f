"""What stands between the products, in few bits.

recognition     what a module computes, by its class or by the code of its forward pass
modules         the modules that save few bits
passes          their passes in the library and in torch's graph, and where they draw
ops             their passes as custom operators of torch
packed_tensors  tensors that torch's graph saves, packed
"""

from . import ops as ops
