"""Decisions: pure functions and data. No socket, no clock, no operating system."""
