"""Checks of the exercises: each tries a participant's function and names the mistake."""
