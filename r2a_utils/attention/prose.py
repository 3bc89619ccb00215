"""Plain prose of this project's own, which holds no reasoning: the text of stages 03 and 04."""

from __future__ import annotations

PROSE = """The ferry leaves the old harbour at half past six, when the nets are
still wet and the gulls have not yet found the fish. On deck, a woman with a green
umbrella counts the crates of apples that go to the island; there are never as
many as the list says. The captain has stopped asking why. Behind the lighthouse
the sea turns rough, and the dog, who has made this trip more often than anyone,
lies down beside the stove. Nobody speaks until the pier comes into sight. Then
the school teacher folds her newspaper, the baker's son ties his shoes, and two
tourists look for a map that the wind took from them near the second buoy. On the
island the road climbs between stone walls to a village of forty houses. In most
of them someone is cooking. The shop sells rope, salt, postcards and a cheese that
is famous as far as the capital, or so the owner claims. Her grandfather built the
oven behind the house from bricks of a ship's kitchen. In winter, when the ferry
stays away for a week or more, she bakes for everybody and writes the debts on the
wall with chalk. By spring the wall is white. Children learn to count on it, and
when the first warm rain washes it clean the old men say that the year may now
begin. """.replace("\n", " ")
"""A passage that no model has seen, written for this project."""
