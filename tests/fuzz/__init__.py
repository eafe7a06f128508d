"""Fuzzing of everything that reads what a stranger may send. ``make fuzz``; not part of tests."""
