"""How the tests check types: as beartype does, and an int will do where a float is wanted."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
