"""luvc-tune: the schedule that keeps one model's own answers best, on the user's pictures."""
