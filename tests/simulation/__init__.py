"""The simulator: many cores joined by a fake network in virtual time, under random faults."""
