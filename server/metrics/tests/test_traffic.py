"""The columns of /proc/net/dev."""

from server.metrics.traffic import _RECEIVED, _SENT, _parse, _traffic

TEXT = """Inter-|   Receive                                       |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:    0       0    0    0    0     0          0         0     0       0    0    0    0     0       0          0
 veth0:    1       2    3    4    0     0          0         0     5       6    7    8    0     0       0          0
"""


def test_the_container_receives_what_the_host_sends() -> None:
    columns = _parse(TEXT)["veth0"]
    assert _traffic("eth0", columns, received=_SENT, sent=_RECEIVED) == ("eth0", 5, 6, 7, 8, 1, 2, 3, 4)
    assert _traffic("eth0", columns, received=_RECEIVED, sent=_SENT) == ("eth0", 1, 2, 3, 4, 5, 6, 7, 8)
