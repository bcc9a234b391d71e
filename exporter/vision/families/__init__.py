"""One file a family, named by its Hugging Face model_type."""
