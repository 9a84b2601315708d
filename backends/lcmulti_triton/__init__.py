"""One fused Triton source for the three maps, on NVIDIA's and AMD's GPUs."""
