"""Whose queries a router answers: counts by application, of a bounded number of applications.

Rule: whoever may ask may name an application, so names are strangers' input. At most `MOST` are told apart; further
ones share the account `OTHER` until one of the known has been silent for `FORGET_S`. Queries without a name are not
counted here: they are what is left of all.
"""

from collections import Counter

MOST = 100
FORGET_S = 3600.0
OTHER = "(other)"  # no name of an application: those have no parentheses


class Account:
    """One application: rows dispatched in this window by variant; rows answered and their price since it is known."""

    __slots__ = ("answered_rows", "answered_usd", "heard", "window")

    def __init__(self) -> None:
        self.window: Counter[str] = Counter()
        self.answered_rows = 0
        self.answered_usd = 0.0
        self.heard: float | None = None


class Applications:
    """The accounts of a router, or of all of them."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}

    def of(self, name: str) -> Account:
        """The account on which an application's queries go."""
        account = self.accounts.get(name)
        return self._open(name) if account is None else account

    def _open(self, name: str) -> Account:
        if len(self.accounts) - (OTHER in self.accounts) >= MOST:
            name = OTHER
        return self.accounts.setdefault(name, Account())

    def take(self, now: float) -> dict[str, dict[str, int]]:
        """Rows by application and variant since the last call; forgets who has been silent for long."""
        found: dict[str, dict[str, int]] = {}
        for name, account in list(self.accounts.items()):
            if account.window:
                found[name] = dict(account.window)
                account.window.clear()
                account.heard = now
            elif account.heard is None:
                account.heard = now
            elif now - account.heard >= FORGET_S:
                del self.accounts[name]
        return found
