"""lcmulti's PyTorch backend. Import `lcmulti`; this package is loaded when tensors arrive."""
