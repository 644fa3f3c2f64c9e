"""How busy connections share one process.

gevent switches to another greenlet only where the running one waits. A greenlet that always finds more to do, because
its peer or its TAP never stops, would keep every other connection waiting. So each of them waits for the event loop
after TURN_SECONDS at the latest. That costs one poll, in which all connections that are ready get their turn;
gevent.sleep(0) would run only greenlets that are due already. The bound is a time, not a number of bytes: 256 KiB can
be four super-frames or 43,000 pings. receiver.py and tap.py use it.
"""

#: Seconds for which one greenlet may go on without waiting for the event loop.
TURN_SECONDS = 0.002
