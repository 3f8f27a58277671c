"""Answering from recalled memories without a language model: quote, date, or say "I don't know".

All but `backend` is pure: text, days and vectors come in as arguments, an answer comes out. The
recipe was measured on the LoCoMo dev conversations; its constants stand beside their code.
"""
