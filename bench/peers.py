"""
The measured proxies and the upstream server as processes on fixed cores.

`all_peers` has the command line of each proxy; `start_backend` starts nginx as
the upstream server.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from attrs import frozen

# One core for the proxy, the other for the load generator and the upstream servers.
PROXY_CORE, LOAD_CORE = 0, 1

BACKEND_PORT = 18080


class Process:
    """A process on one core, with its output in `log.txt` in `folder`, until `stop`."""

    def __init__(self, command: Sequence[str], core: int, folder: Path) -> None:
        self._log = open(folder / "log.txt", "ab")  # noqa: SIM115
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            cwd=folder,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def ensure_running(self) -> None:
        """Raise `RuntimeError`, with the last line of the log, if the process has exited."""
        if self._process.poll() is not None:
            lines = Path(self._log.name).read_text().strip().splitlines()
            reason = lines[-1] if lines else f"exit status {self._process.returncode}"
            raise RuntimeError(f"process exited: {reason}")

    def cpu_seconds(self) -> float:
        """Return the CPU time of all threads of the process and its descendants, in seconds."""
        return sum(_cpu_nanoseconds(pid) for pid in self.pids()) / 1e9

    def pids(self) -> list[int]:
        """Return the process ids of the process and its descendants."""
        pids = [self._process.pid]
        for pid in pids:
            children = Path(f"/proc/{pid}/task/{pid}/children")
            if children.exists():
                pids += [int(child) for child in children.read_text().split()]
        return pids

    def resident_bytes(self) -> int:
        """Return the resident memory of the process and its descendants."""
        page = os.sysconf("SC_PAGE_SIZE")
        return sum(int(Path(f"/proc/{p}/statm").read_text().split()[1]) * page for p in self.pids())

    def fd_count(self) -> int:
        """Return the number of open file descriptors of the process and its descendants."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in self.pids())

    def stop(self) -> None:
        """Send SIGTERM to the process group, and SIGKILL if it has not exited after 10 s."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._log.close()


def _cpu_nanoseconds(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total


def wait_for_port(port: int, seconds: float = 10.0) -> None:
    """Wait until `port` on this host accepts connections. Raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"port {port} accepts no connections") from None
            time.sleep(0.05)


@frozen
class Peer:
    """
    A proxy that can be measured.

    Attributes:
        name: name for the option `--peers`.
        program: executable, by name or path.
        port: port on 127.0.0.1 that the proxy listens on.
        command: returns the command line for a working directory and a port,
            and writes the configuration files that it names.
    """

    name: str
    program: str
    port: int
    command: Callable[[Path, int], list[str]]

    @property
    def installed(self) -> bool:
        """Whether the executable exists."""
        return bool(shutil.which(self.program) or Path("/usr/sbin", self.program).exists())


_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 9000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; default_type text/plain;
  {body}
}}
"""

_NGINX_BACKEND = """
  open_file_cache max=10; sendfile on; tcp_nopush off;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    listen 127.0.0.2:{port} backlog=4096;
    listen 127.0.0.3:{port} backlog=4096;
    location /1m {{ alias {folder}/1m; }}
    location / {{ return 200 "hello world\\n"; }}
  }}
"""

_NGINX_PROXY = """
  upstream app {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header Via "1.1 nginx";
    }}
  }}
"""

_HAPROXY = """
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 60s
frontend web
  bind 127.0.0.1:{port} backlog 4096
  option forwardfor
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header Via "1.1 haproxy"
  default_backend app
backend app
  http-reuse always
  server one 127.0.0.1:{backend}
"""

_HAPROXY_TCP = """
global
  nbthread 1
  maxconn 9000
defaults
  mode tcp
  timeout connect 5s
  timeout client 600s
  timeout server 600s
frontend web
  bind 127.0.0.1:{port} backlog 4096
  default_backend app
backend app
  server one 127.0.0.1:{backend}
"""

_PORTFORWARD = """
from twisted.internet import reactor
from twisted.protocols.portforward import ProxyFactory
factory = ProxyFactory("127.0.0.1", {backend})
factory.noisy = False
reactor.listenTCP({port}, factory, interface="127.0.0.1", backlog=4096)
reactor.run()
"""

_TWISTED = """
import sys
from twisted.internet import reactor
from twisted.web import proxy, server, http
site = server.Site(proxy.ReverseProxyResource("127.0.0.1", {backend}, b""))
site.log = lambda request: None
reactor.listenTCP({port}, site, interface="127.0.0.1")
reactor.run()
"""


def _nginx(folder: Path, body: str) -> list[str]:
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, body=body))
    return [
        _executable_path("nginx"),
        "-c",
        str(folder / "nginx.conf"),
        "-e",
        str(folder / "error.log"),
    ]


def _executable_path(program: str) -> str:
    """Return the path of `program`; Debian installs servers in /usr/sbin."""
    return shutil.which(program) or f"/usr/sbin/{program}"


def start_backend(folder: Path) -> Process:
    """Start nginx as the upstream server, and wait until it listens."""
    (folder / "1m").write_bytes(os.urandom(1 << 20))
    body = _NGINX_BACKEND.format(port=BACKEND_PORT, folder=folder)
    process = Process(_nginx(folder, body), LOAD_CORE, folder)
    wait_for_port(BACKEND_PORT)
    return process


def _nginx_proxy(folder: Path, port: int) -> list[str]:
    return _nginx(folder, _NGINX_PROXY.format(port=port, backend=BACKEND_PORT))


def _haproxy(text: str) -> Callable[[Path, int], list[str]]:
    def command(folder: Path, port: int) -> list[str]:
        config = folder / "haproxy.cfg"
        config.write_text(text.format(port=port, backend=BACKEND_PORT))
        return [_executable_path("haproxy"), "-db", "-f", str(config)]

    return command


def _script(text: str) -> Callable[[Path, int], list[str]]:
    def command(folder: Path, port: int) -> list[str]:
        script = folder / "proxy.py"
        script.write_text(text.format(port=port, backend=BACKEND_PORT))
        return [sys.executable, str(script)]

    return command


def _balancebeam(python: str, *options: str) -> Callable[[Path, int], list[str]]:
    def command(folder: Path, port: int) -> list[str]:
        return [
            *(python, "-m", "balancebeam", "--bind", f"127.0.0.1:{port}"),
            *("--upstream", f"127.0.0.1:{BACKEND_PORT}", "--idle-timeout", "600", *options),
        ]

    return command


def all_peers() -> dict[str, Peer]:
    """Return all proxies by name; BENCH_PYPY, the path of a PyPy, adds one more."""
    peers = [
        Peer("balancebeam", sys.executable, 18101, _balancebeam(sys.executable)),
        Peer("nginx", "nginx", 18102, _nginx_proxy),
        Peer("haproxy", "haproxy", 18103, _haproxy(_HAPROXY)),
        Peer("ReverseProxyResource", sys.executable, 18104, _script(_TWISTED)),
        Peer(
            "balancebeam-limited",
            sys.executable,
            18109,
            _balancebeam(sys.executable, "--max-requests-per-minute", "999999999"),
        ),
        Peer("balancebeam-tcp", sys.executable, 18106, _balancebeam(sys.executable, "-m", "tcp")),
        Peer("haproxy-tcp", "haproxy", 18107, _haproxy(_HAPROXY_TCP)),
        Peer("portforward", sys.executable, 18108, _script(_PORTFORWARD)),
    ]
    pypy = os.environ.get("BENCH_PYPY")
    if pypy:
        peers.append(Peer("balancebeam-pypy", pypy, 18105, _balancebeam(pypy)))
    return {peer.name: peer for peer in peers}
