"""Triton Inference Server: a model repository for a bundle, what runs inside it, and a launcher.

`requests`, `outbox`, `vlm_model` and `vision_model` run in the server's own Python environment, which
has neither PyTorch nor the command-line libraries; they import `luvc.engines` and numpy alone.
"""
