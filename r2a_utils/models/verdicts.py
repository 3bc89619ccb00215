"""What was found when ways of computing were held against a model's own forward.

The engine asks and fills (`engine/oracle.py`), a run keeps (`runs/folder.py`). This file knows
neither what is compared nor where it is kept.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Any


class Verdicts(UserDict[str, dict[str, Any]]):
    """By what was asked, plain numbers and words. Who has them kept is told of each new one."""

    def __init__(self) -> None:
        super().__init__()
        self._keep: Callable[[dict[str, Any]], None] | None = None

    def __setitem__(self, what: str, verdict: dict[str, Any]) -> None:
        super().__setitem__(what, verdict)
        if self._keep is not None:
            self._keep(dict(self.data))

    def kept_by(
        self, keep: Callable[[dict[str, Any]], None], earlier: Mapping[str, dict[str, Any]]
    ) -> None:
        """Have `keep` write all of them, now and after each new one.

        Of the `earlier` ones those are taken up that were not asked again since.
        """
        self.data = {**earlier, **self.data}
        self._keep = keep
        keep(dict(self.data))
