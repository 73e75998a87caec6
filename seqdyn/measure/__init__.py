"""Instruments: what can be read of one state of a network, each defined once."""
