"""The OpenAI door: the paths, bodies and errors that OpenAI's clients know."""
