"""A Hugging Face checkpoint: where its files lie, its config, its weights, its family."""
