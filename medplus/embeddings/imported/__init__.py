"""Embeddings that were made elsewhere: what their files hold, as stores like any other."""
