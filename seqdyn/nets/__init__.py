"""Recurrent networks as pure functions: how they begin, one step, and the whole sequence there and back."""
