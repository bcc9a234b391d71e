"""What one image size becomes under a schedule: planned, refused where a score does not fit, and told."""
