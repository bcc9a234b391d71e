"""Schedules for measured time."""
