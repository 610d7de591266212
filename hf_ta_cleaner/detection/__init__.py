"""Searches for a backdoor whose trigger is unknown: in a model, in pairs, on a picture."""
