"""vLLM in a worker's process. Only `load` imports vLLM itself; what is beside it is pure."""
