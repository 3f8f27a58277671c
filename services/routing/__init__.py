"""routing: a message in; recall, choice of a model, the streamed reply, and its storing."""
