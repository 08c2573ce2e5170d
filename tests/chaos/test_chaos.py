"""The checks can fail: each is shown something broken."""

import asyncio
import sys
import time
import types
import unittest
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import faults
import pictures
from client import Answer, exchange
from episode import Episode, Plan
from invariants import Watch, check_log, check_pictures

OVERLOADED = b'{"error": {"code": "%s", "message": "m"}, "detail": "m"}'


def new_episode():
    return Episode(types.SimpleNamespace(violations=[]), 1)


async def answered_with(raw):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        return await exchange(server.sockets[0].getsockname(), "GET", "/", bound=5)


class Client(unittest.TestCase):
    def test_a_second_answer_is_malformed(self):
        one = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.assertEqual(asyncio.run(answered_with(one)).malformed, "")
        self.assertIn("bytes after the answer", asyncio.run(answered_with(one + one)).malformed)

    def test_half_an_answer_is_an_error(self):
        self.assertTrue(asyncio.run(answered_with(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok")).error)
        self.assertTrue(asyncio.run(answered_with(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok")).error)


class Pictures(unittest.TestCase):
    def test_a_damaged_picture_is_found(self):
        whole = pictures.make(64, 255)
        self.assertEqual(pictures.fault(whole), "")
        self.assertEqual(pictures.fault(whole[:-20]), "cut off")
        self.assertIn("checksum", pictures.fault(whole.replace(b"IDATx", b"IDATy")))
        self.assertEqual(pictures.fault(whole[:-12]), "no end")

    def test_a_stored_file_with_other_bytes_is_found(self):
        import tempfile

        episode = new_episode()
        with tempfile.TemporaryDirectory() as folder:
            episode.pair.store = Path(folder)
            (Path(folder) / "1_0123456789abcdef.png").write_bytes(pictures.make(64, 255))
            asyncio.run(check_pictures(episode))
        self.assertIn("other bytes", episode.violations[0])


class Judgement(unittest.TestCase):
    def refused(self, status, code, harmed_by=None):
        episode = new_episode()
        if harmed_by:
            episode.expected |= faults.CODES[harmed_by]
        episode.judge("image", "gateway", Answer(status=status, body=OVERLOADED % code))
        return episode.violations

    def test_a_code_that_no_fault_explains(self):
        self.assertEqual(self.refused(429, b"backend_overloaded"), [])
        self.assertEqual(self.refused(507, b"storage_full", "disk"), [])
        self.assertEqual(len(self.refused(507, b"storage_full", "gpu")), 1)
        self.assertEqual(len(self.refused(500, b"internal_error", "program")), 1)

    def test_a_broken_connection_that_no_fault_explains(self):
        episode = new_episode()
        episode.judge("image", "gateway", Answer(error="reset"))
        self.assertEqual(len(episode.violations), 1)
        episode.breaks.add("gateway")
        episode.judge("image", "gateway", Answer(error="reset"))
        self.assertEqual(len(episode.violations), 1)

    def test_a_stream_without_an_end(self):
        episode = new_episode()
        episode.keep_stream(Answer(status=200, body=b'data: {"type": "image_generation.partial_image"}\n\n'))
        self.assertEqual(len(episode.violations), 1)

    def test_fewer_pictures_than_asked_for(self):
        episode = new_episode()
        episode.keep_pictures(Answer(status=200, body=b'{"data": [{"url": "/a"}]}'), 2)
        self.assertEqual(len(episode.violations), 1)

    def test_a_secret_or_a_panic_in_a_log(self):
        for line in ("prompt chaos-prompt-7-lighthouse", "thread 'main' panicked at"):
            episode = new_episode()
            check_log(episode, types.SimpleNamespace(name="gateway", new_lines=lambda line=line: [line]))
            self.assertEqual(len(episode.violations), 1)


class Readiness(unittest.TestCase):
    def test_a_fault_is_overdue_after_its_bound_unless_another_hides_it(self):
        watch, lost = Watch(new_episode()), faults.KINDS["gpu_lost"]
        watch.calm_since = 0
        watch.active = {lost.name: (lost, time.monotonic() - 10)}
        self.assertEqual(watch.overdue(time.monotonic()), {"gpu_lost"})
        self.assertEqual(watch.overdue(time.monotonic() - 9), set())
        cut = faults.KINDS["net_cut"]
        watch.active[cut.name] = (cut, time.monotonic())
        self.assertEqual(watch.overdue(time.monotonic()), set())


class Plans(unittest.TestCase):
    def test_a_seed_decides_the_plan_and_all_kinds_are_drawn(self):
        self.assertEqual(str(Plan(7)), str(Plan(7)))
        drawn = Counter(fault.name for seed in range(2000) for fault in Plan(seed).faults)
        self.assertEqual(set(drawn), set(faults.KINDS))


if __name__ == "__main__":
    unittest.main()
