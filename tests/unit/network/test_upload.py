"""Serving keeps to its rates, shares them between peers, and holds up nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.simnet import SimNet, SimNode
from tonfs import config
from tonfs.agent.main import peer_command
from tonfs.cli.bag_peer import Network, upload_limits
from tonfs.cli.common import Context
from tonfs.errors import UsageError
from tonfs.network import peer_process, upload
from tonfs.network.lane import PART_DATAGRAM
from tonfs.network.upload import DEPTH, Bucket, Upload
from tonfs.provider.config import ProviderConfig


def test_a_bucket_gives_its_rate_and_saves_little_up() -> None:
    bucket, now = Bucket(1000), 50.0
    for number in range(100):
        now = max(now, bucket.book(10, now))
        assert now == pytest.approx(max(50.0, 50.0 - DEPTH + 0.01 * number))
    now += 3600  # a pause
    at_once = 0
    while bucket.book(10, now) <= now:
        at_once += 10
    assert at_once <= 1000 * DEPTH + 10
    assert all(Bucket(0).book(1 << 30, now) == now for _ in range(3))


def test_without_limits_nobody_waits_for_a_turn() -> None:
    assert Upload().turns() is None


@pytest.mark.parametrize(("total", "per_peer"), [(1, 0), (0, 1), (50_000, 0), (1 << 20, 7_000), (1 << 40, 1 << 40)])
def test_a_portion_is_at_least_one_symbol_and_at_most_one_sending(total: int, per_peer: int) -> None:
    portion = Upload(total, per_peer).portion
    assert 1 <= portion <= upload.LARGEST
    lower = min(rate for rate in (total, per_peer) if rate)
    assert portion == 1 or portion * PART_DATAGRAM <= lower * upload.PORTION


class Served:
    """A node with limits that serves answers without end to some peers; bytes of datagrams by peer."""

    def __init__(self, limits: Upload, peers: int, **network: float) -> None:
        self.net = SimNet(delay=0.01, **network)  # type: ignore[arg-type]
        self.server = self.net.node(1)
        self.server.hub.upload = limits
        self.server.handler = lambda data: bytes(1 << 20)
        self.peers = [self.net.node(10 + number) for number in range(peers)]
        self.bytes = {peer.address: 0 for peer in self.peers}
        for peer in self.peers:
            self.net.ask(peer, self.server, b"hello", timeout=0.5)  # the channel is up
        self.net.on_wire = self._count

    def _count(self, datagram: bytes, source: object, target: tuple[str, int]) -> None:
        if source == self.server.address and len(datagram) == PART_DATAGRAM:
            self.bytes[target] += PART_DATAGRAM

    def ask(self, peer: SimNode) -> None:
        """Ask, and ask again when the answer is there."""
        pair = peer.pair(self.server)
        pair.rldp.query(b"more", 1 << 21, 60.0, lambda answer: self.ask(peer), self.net.time)
        peer.hub.touch(pair)

    def rates(self, seconds: float) -> list[float]:
        for peer in self.peers:
            for _ in range(3):
                self.ask(peer)
        self.net.run(1.0)
        before = dict(self.bytes)
        self.net.run(seconds)
        return [(self.bytes[peer.address] - before[peer.address]) / seconds for peer in self.peers]


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_the_rate_of_all_is_kept_used_and_shared(loss: float) -> None:
    rates = Served(Upload(total=400_000), 4, loss=loss).rates(10)
    assert 0.97 * 400_000 <= sum(rates) <= 1.01 * 400_000
    assert min(rates) > 0.9 * max(rates)


def test_the_rate_of_each_is_kept_and_used() -> None:
    rates = Served(Upload(per_peer=100_000), 3).rates(10)
    assert all(0.97 * 100_000 <= rate <= 1.01 * 100_000 for rate in rates)


def test_both_rates_hold_at_once() -> None:
    rates = Served(Upload(total=150_000, per_peer=100_000), 2).rates(10)
    assert 0.97 * 150_000 <= sum(rates) <= 1.01 * 150_000
    assert min(rates) > 0.9 * max(rates)
    (alone,) = Served(Upload(total=150_000, per_peer=100_000), 1).rates(10)
    assert 0.97 * 100_000 <= alone <= 1.01 * 100_000


def test_a_peer_that_takes_little_leaves_the_rest_to_the_others() -> None:
    served = Served(Upload(total=400_000), 2)
    turns = served.server.pair(served.peers[0]).rldp.out._turns
    assert turns is not None
    turns._own = Bucket(50_000)
    slow, fast = served.rates(10)
    assert 0.97 * 50_000 <= slow <= 1.01 * 50_000
    assert 0.97 * 350_000 <= fast <= 1.01 * 350_000


def test_own_queries_do_not_wait_for_the_upload() -> None:
    served = Served(Upload(total=2_000), 1)
    (peer,) = served.peers
    peer.handler = lambda data: b"at once"
    served.ask(peer)
    served.net.run(2.0)
    assert served.server.pair(peer).rldp.out._hungry, "an answer waits"
    assert served.net.ask_rldp(served.server, peer, b"quick?", timeout=1.0) == b"at once"


def test_answers_that_wait_long_for_their_turn_still_come() -> None:
    served = Served(Upload(total=100_000), 1)
    (peer,) = served.peers
    served.server.handler = lambda data: bytes(128 << 10)
    answers: list[bytes] = []
    pair = peer.pair(served.server)
    for _ in range(16):  # 2.6 MB of datagrams: the last ones wait for 25 s
        pair.rldp.query(b"piece", 1 << 18, 60.0, answers.append, served.net.time)
    peer.hub.touch(pair)
    served.net.run(40, lambda: len(answers) == 16)
    assert len(answers) == 16


def test_an_answer_for_a_peer_that_is_gone_is_given_up_though_it_waited() -> None:
    served = Served(Upload(total=2_000), 1)
    (peer,) = served.peers
    for _ in range(3):
        served.ask(peer)
    served.net.run(1.0)
    del served.net.nodes[peer.address]
    served.net.run(30.0)
    assert not served.server.pair(peer).rldp.busy
    assert served.server.hub.answer_budget.used == 0


# Where the limits come from.


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "config.toml").write_text("[peer]\nupload_limit = 5000000\nupload_limit_per_peer = 70000\n")
    return folder


def test_the_agents_peer_gets_the_limits_of_the_volume(volume: Path) -> None:
    settings, _ = config.load(volume, env={})
    words = peer_command(volume, settings)
    options, _, _ = peer_process.parse_options(words[words.index("--socket") :])
    assert (options.upload.total, options.upload.per_peer) == (5_000_000, 70_000)


def test_a_peer_process_refuses_negative_limits() -> None:
    words = ["--socket", "s", "--key-file", "k", "--global-config", "g"]
    assert peer_process.parse_options(words)[0].upload.turns() is None
    with pytest.raises(UsageError):
        peer_process.parse_options([*words, "--upload-limit", "-1"])


def test_options_of_the_bag_tool_beat_the_volume(volume: Path, tmp_path: Path) -> None:
    plain = Network(None, "127.0.0.1:0", "", None, None)
    assert upload_limits(Context(volume_name=str(volume)), plain) == (5_000_000, 70_000)
    wish = plain._replace(upload_limit="2M", upload_limit_per_peer="0")
    assert upload_limits(Context(volume_name=str(volume)), wish) == (2 << 20, 0)
    assert upload_limits(Context(volume_name=f"{tmp_path}/none"), plain) == (0, 0)


def test_a_provider_takes_limits_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "provider.toml"
    text = 'seed_file = "s"\ndirectory = "d"\nglobal_config = "g"\nlisten = "127.0.0.1:0"\n'
    file.write_text(text)
    assert ProviderConfig.load(file).upload_limit == 0
    file.write_text(text + "upload_limit = 1000\nupload_limit_per_peer = 10\n")
    assert (ProviderConfig.load(file).upload_limit, ProviderConfig.load(file).upload_limit_per_peer) == (1000, 10)
    file.write_text(text + "upload_limit = -1\n")
    with pytest.raises(UsageError):
        ProviderConfig.load(file)
