"""The watchdog is fed on progress, and on nothing else."""

from ingestor.service.watchdog import Beat, Notifier, Watchdog


class CountingNotifier(Notifier):
    """Counts instead of sending."""

    def __init__(self) -> None:
        super().__init__({})
        self.fed = 0

    def alive(self) -> None:
        self.fed += 1


def test_finished_cycles_feed_it() -> None:
    """As long as every part finishes in its time, each look feeds."""
    notifier = CountingNotifier()
    watchdog = Watchdog(notifier)
    watchdog.look([Beat("a", finished=0, limit=10), Beat("b", finished=5, limit=10)], now=9)
    watchdog.look([Beat("a", finished=9, limit=10), Beat("b", finished=5, limit=10)], now=14)

    assert notifier.fed == 2
    assert watchdog.hanging == frozenset()


def test_one_hanging_part_starves_it() -> None:
    """A part over its limit stops the feeding however busy the others are, until it goes on."""
    notifier = CountingNotifier()
    watchdog = Watchdog(notifier)
    for now in (11.0, 12.0, 500.0):
        watchdog.look([Beat("stuck", finished=0, limit=10), Beat("busy", finished=now, limit=10)], now)
        assert watchdog.hanging == {"stuck"}
    assert notifier.fed == 0

    watchdog.look([Beat("stuck", finished=500, limit=10)], 501)
    assert notifier.fed == 1


def test_a_process_that_stood_still_has_no_hanging_part() -> None:
    """After SIGSTOP, or a frozen machine, every part gets its whole time once more, and no longer."""
    notifier = CountingNotifier()
    watchdog = Watchdog(notifier)
    stuck, other = Beat("stuck", finished=0, limit=30), Beat("other", finished=0, limit=50)
    for now in (1, 2, *range(1000, 1031)):
        watchdog.look([stuck, other], now)
        assert watchdog.hanging == frozenset()
    assert notifier.fed == 33

    for now in (1031, 1032):
        watchdog.look([stuck, other], now)
        assert watchdog.hanging == {"stuck"}
    watchdog.look([stuck, other], 5000)
    assert watchdog.hanging == {"stuck"}, "it hung before"
    assert notifier.fed == 33
