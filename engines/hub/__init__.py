"""Bundles and the Hugging Face hub: fetched, saved, pushed, told on a model card."""
