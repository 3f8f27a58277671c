"""The embeddings service: text to vectors."""
