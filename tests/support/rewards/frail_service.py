"""A service that texts choke, fell or find busy, behind a circuit breaker."""

from __future__ import annotations

import asyncio

from finetune_rewards.services.circuit import Circuit, Unanswered, Waits

SHORT = Waits(first=0.001, longest=0.005, first_probe=0.001, longest_probe=0.005)


class Service:
    """Answers a text in upper case; some texts it never answers, some fell it for a while, and
    it may have room for few at a time, or call itself busy at some."""

    def __init__(self, *, chokes: str = "", fells: str = "", refuses: str = "") -> None:
        self.chokes, self.fells, self.refuses = chokes, fells, refuses
        self.sent: list[str] = []
        self.down_for = 0  # requests
        self.busy_for = 0  # requests
        self.room = 10**9

    async def send(self, text: str) -> str:
        """Answer a text, or raise Unanswered."""
        self.sent.append(text)
        if self.busy_for:
            self.busy_for -= 1
            raise Unanswered("busy", busy=True)
        if not self.room or text in self.refuses:
            raise Unanswered("busy", busy=True)
        self.room -= 1
        await asyncio.sleep(0 if self.room > 100 else 0.02)
        self.room += 1
        if text in self.fells:
            self.down_for = 10
        if self.down_for:
            self.down_for -= 1
            raise Unanswered("down")
        if text in self.chokes:
            raise Unanswered("choked")
        return text.upper()

    def circuit(self, waits: Waits = SHORT, **settings: float) -> Circuit[str, str]:
        """Return a circuit to it; what that notes is kept."""
        self.notes: list[str | None] = []
        self.noted = asyncio.Event()

        def note(text: str | None) -> None:
            self.notes.append(text)
            self.noted.set()

        given = {"at_once": 8, "retries": 1, "pause_seconds": 60.0, **settings}
        return Circuit(
            "judge",
            self.send,
            at_once=int(given["at_once"]),
            retries=int(given["retries"]),
            pause_seconds=given["pause_seconds"],
            note=note,
            waits=waits,
        )
