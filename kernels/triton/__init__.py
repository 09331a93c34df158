"""The Triton kernels: NVIDIA, AMD, and the CPU in Triton's interpreter. kernels/README.md explains the algorithm."""
