"""A slow link for kernels without netem: passes packets between two TUN devices with a delay, a rate and losses.

    packet-link.py NAME NAME DELAY_MS MBIT_PER_S LOSS_PERCENT SEED

Prints "ready" once both devices are there, and ends when its input ends. Needs root. What is lost is chosen by the seed.
"""
import collections
import fcntl
import os
import random
import select
import struct
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
# As `netem limit`: with 50 ms and 100 Mbit/s about 420 are on their way, the others wait for the link.
QUEUE = 2000


def tun(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


class Way:
    """One direction: a packet leaves when the link is free, and arrives after the delay."""

    def __init__(self, source, sink, delay, rate, loss, seed):
        self.source, self.sink = source, sink
        self.delay, self.second_per_byte, self.loss = delay, 8 / rate, loss
        self.random = random.Random(seed).random
        self.flying = collections.deque()
        self.free_at = 0.0

    def take(self, now):
        # So many at once that the other direction has its turn.
        for _ in range(64):
            try:
                packet = os.read(self.source, 65536)
            except (BlockingIOError, OSError):
                return
            if self.random() < self.loss or len(self.flying) >= QUEUE:
                continue
            self.free_at = max(self.free_at, now) + len(packet) * self.second_per_byte
            self.flying.append((self.free_at + self.delay, packet))

    def deliver(self, now):
        while self.flying and self.flying[0][0] <= now:
            try:
                os.write(self.sink, self.flying.popleft()[1])
            except OSError:
                pass


def main():
    one, two = tun(sys.argv[1]), tun(sys.argv[2])
    delay, rate, loss = float(sys.argv[3]) / 1e3, float(sys.argv[4]) * 1e6, float(sys.argv[5]) / 100
    seed = int(sys.argv[6])
    ways = [Way(one, two, delay, rate, loss, seed), Way(two, one, delay, rate, loss, seed + 1)]
    try:
        # A wire does not wait for a processor.
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        pass
    print("ready", flush=True)
    while True:
        now = time.monotonic()
        due = min((way.flying[0][0] for way in ways if way.flying), default=now + 1)
        ready, _, _ = select.select([one, two, 0], [], [], max(0.0, due - now))
        if 0 in ready and not os.read(0, 1):
            return
        now = time.monotonic()
        for way in ways:
            if way.source in ready:
                way.take(now)
            way.deliver(now)


main()
