"""The answer engine: puts a question about a crop to the multimodal LLM and returns what it says."""
