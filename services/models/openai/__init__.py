"""OpenAI-compatible servers as a backend: vLLM, Ollama, llama.cpp, LM Studio, hosted ones."""
