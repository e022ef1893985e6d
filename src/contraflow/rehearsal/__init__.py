"""Rehearsals: whole upgrades run on scratch servers, under load and faults."""
