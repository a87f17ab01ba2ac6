"""Makes a change only when its direction has been called for long enough."""


class Delays:
    """Since when a change up or down has been called for, by name."""

    def __init__(self, up_s: float, down_s: float) -> None:
        self._up_s = up_s
        self._down_s = down_s
        self._since: dict[str, tuple[bool, float]] = {}

    def may(self, name: str, change: float, now: float) -> bool:
        """Whether a change up (positive) or down (negative) that is called for now has been for long enough."""
        if change == 0:
            self._since.pop(name, None)
            return False
        up = change > 0
        known = self._since.get(name)
        if known is None or known[0] is not up:
            known = self._since[name] = (up, now)
        if now - known[1] < (self._up_s if up else self._down_s):
            return False
        del self._since[name]
        return True
