"""Which matrices of a model are sampled.

choice               finds them, and says why others are left
rules                leaves those that are not worth it
transformers_layers  Conv1D and experts of transformers' models
census               every matrix, whether it is sampled, and what follows for bytes
"""
