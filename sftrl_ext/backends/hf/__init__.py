"""Generation with transformers: continuous batching over a KV cache, in any process."""
