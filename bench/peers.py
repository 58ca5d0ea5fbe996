"""
The measured proxies and the upstream server as processes on fixed cores.

`all_peers` has the command line of each proxy; `start_backend` starts nginx as
the upstream server. The proxies with TLS have the same certificate and settings:
ECDSA P-256, TLS 1.3 with AES-256-GCM and X25519, session tickets, no OCSP.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from attrs import frozen

from bench import peer_configs

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
        return sum(_schedstat(pid, 0) for pid in self.pids()) / 1e9

    def queued_seconds(self) -> float:
        """Return the time for which the process was ready but other processes had its core."""
        return sum(_schedstat(pid, 1) for pid in self.pids()) / 1e9

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


def _schedstat(pid: int, field: int) -> int:
    """Return the nanoseconds that all threads of a process ran (field 0) or were queued (1)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[field])
    return total


def ensure_free(port: int) -> None:
    """Raise `RuntimeError` if another process listens on `port` of this host."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return
    raise RuntimeError(f"another process listens on port {port}")


def wait_for_port(port: int, seconds: float = 10.0, process: Process | None = None) -> None:
    """
    Wait until `port` on this host accepts connections.

    Raises:
        TimeoutError: it accepts none within `seconds` seconds.
        RuntimeError: `process` has exited.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process is not None:
                process.ensure_running()
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
        kind: `http`, `tls` (HTTP over TLS), `h2` or `h2-tls` (HTTP/2 between the clients and
            the proxy), `grpc` (HTTP/2 on both sides) or `tcp`.
    """

    name: str
    program: str
    port: int
    command: Callable[[Path, int], list[str]]
    kind: str = "http"

    @property
    def installed(self) -> bool:
        """Whether the executable exists."""
        return bool(shutil.which(self.program) or Path("/usr/sbin", self.program).exists())

    def start(self, folder: Path) -> Process:
        """
        Start the proxy in a new folder in `folder`, and wait until it listens.

        Raises:
            RuntimeError: the port is in use, the proxy ended, or a proxy with TLS
                negotiates another protocol version or cipher suite.
            TimeoutError: the proxy does not listen.
        """
        ensure_free(self.port)
        home = Path(tempfile.mkdtemp(dir=folder))
        process = Process(self.command(home, self.port), PROXY_CORE, home)
        try:
            wait_for_port(self.port, process=process)
            if self.kind == "tls":
                _verify_tls(self.port)
            elif self.kind == "h2-tls":
                _verify_alpn(self.port)
        except BaseException:
            process.stop()
            raise
        return process


def connect_tls(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a connection to `port` on this host after its TLS handshake."""
    connection = socket.create_connection(("127.0.0.1", port), 10)
    return context.wrap_socket(connection, server_hostname="localhost")


def client_context() -> ssl.SSLContext:
    """Return a context of clients that verify no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _verify_tls(port: int) -> None:
    """Raise `RuntimeError` unless TLS 1.3 with AES-256-GCM is negotiated on `port`."""
    try:
        with connect_tls(port, client_context()) as connection:
            negotiated = connection.version(), (connection.cipher() or ("none",))[0]
    except OSError as error:
        raise RuntimeError(f"TLS handshake failed: {error}") from None
    if negotiated != ("TLSv1.3", "TLS_AES_256_GCM_SHA384"):
        raise RuntimeError(f"negotiated {negotiated[0]} {negotiated[1]}")


def _verify_alpn(port: int) -> None:
    """Raise `RuntimeError` unless HTTP/2 is negotiated on `port`."""
    context = client_context()
    context.set_alpn_protocols(["h2"])
    try:
        with connect_tls(port, context) as connection:
            protocol = connection.selected_alpn_protocol()
    except OSError as error:
        raise RuntimeError(f"TLS handshake failed: {error}") from None
    if protocol != "h2":
        raise RuntimeError(f"negotiated {protocol or 'no protocol'} by ALPN")


def nginx_command(folder: Path, body: str) -> list[str]:
    """Return the command line of nginx with `body` in the block `http` of its configuration."""
    (folder / "nginx.conf").write_text(peer_configs.NGINX.format(folder=folder, body=body))
    return [
        executable_path("nginx"),
        "-c",
        str(folder / "nginx.conf"),
        "-e",
        str(folder / "error.log"),
    ]


def executable_path(program: str) -> str:
    """Return the path of `program`; Debian installs servers in /usr/sbin."""
    return shutil.which(program) or f"/usr/sbin/{program}"


def start_backend(folder: Path, hosts: Sequence[str] = ()) -> Process:
    """Start nginx as the upstream server, on `hosts` too, and wait until it listens."""
    ensure_free(BACKEND_PORT)
    (folder / "1m").write_bytes(os.urandom(1 << 20))
    more = " ".join(f"listen {host}:{BACKEND_PORT} backlog=4096;" for host in hosts)
    body = peer_configs.NGINX_BACKEND.format(port=BACKEND_PORT, folder=folder, more=more)
    process = Process(nginx_command(folder, body), LOAD_CORE, folder)
    wait_for_port(BACKEND_PORT)
    return process


def certificate(folder: Path) -> Path:
    """
    Return a file with a self-signed ECDSA P-256 certificate for localhost and its key.

    The files with the suffixes `.crt` and `.key` beside it have one of the two. All
    proxies whose working directories are in the same folder share the files.
    """
    pem = folder.parent / "localhost.pem"
    if not pem.exists():
        command = (
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256"
        )
        subprocess.run(
            [
                *command.split(),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
                *("-days", "30", "-keyout", "localhost.key", "-out", "localhost.crt"),
            ],
            cwd=pem.parent,
            check=True,
            capture_output=True,
        )
        parts = [(pem.parent / name).read_text() for name in ("localhost.crt", "localhost.key")]
        pem.write_text("".join(parts))
    return pem


def _nginx_proxy(folder: Path, port: int) -> list[str]:
    return nginx_command(
        folder,
        peer_configs.NGINX_PROXY.format(port=port, backend=BACKEND_PORT, listen_option="", tls=""),
    )


def _nginx_tls(folder: Path, port: int) -> list[str]:
    tls = peer_configs.NGINX_TLS.format(pem=certificate(folder))
    return nginx_command(
        folder,
        peer_configs.NGINX_PROXY.format(
            port=port, backend=BACKEND_PORT, listen_option=" ssl", tls=tls
        ),
    )


def haproxy_command(
    text: str,
    tls: str = "",
    options: str = "",
    server_options: str = "",
    backend: int = BACKEND_PORT,
) -> Callable[[Path, int], list[str]]:
    """
    Return the command line of HAProxy with the configuration `text`.

    Args:
        tls: template of the options of `bind` with TLS.
        options: further options of `bind`.
        server_options: options of `server`.
        backend: port of the server.
    """

    def command(folder: Path, port: int) -> list[str]:
        config = folder / "haproxy.cfg"
        config.write_text(
            text.format(
                port=port,
                backend=backend,
                options=f"{options} {tls and tls.format(pem=certificate(folder))}",
                server_options=server_options,
                scheme="https" if tls else "http",
            )
        )
        return [executable_path("haproxy"), "-db", "-f", str(config)]

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


def balancebeam_tls_command(python: str) -> Callable[[Path, int], list[str]]:
    """Return the command line of balancebeam with TLS under this interpreter."""

    def command(folder: Path, port: int) -> list[str]:
        pem = certificate(folder)
        files = f"{pem.with_suffix('.crt')},{pem.with_suffix('.key')}"
        return _balancebeam(python, "--tls", files)(folder, port)

    return command


def all_peers() -> dict[str, Peer]:
    """Return all proxies by name; BENCH_PYPY, the path of a PyPy, adds two more."""
    peers = [
        Peer("balancebeam", sys.executable, 18101, _balancebeam(sys.executable)),
        Peer("nginx", "nginx", 18102, _nginx_proxy),
        Peer("haproxy", "haproxy", 18103, haproxy_command(peer_configs.HAPROXY)),
        Peer("ReverseProxyResource", sys.executable, 18104, _script(peer_configs.TWISTED)),
        Peer(
            "balancebeam-limited",
            sys.executable,
            18109,
            _balancebeam(sys.executable, "--max-requests-per-minute", "999999999"),
        ),
        Peer(
            "balancebeam-tcp",
            sys.executable,
            18106,
            _balancebeam(sys.executable, "-m", "tcp"),
            kind="tcp",
        ),
        Peer(
            "haproxy-tcp", "haproxy", 18107, haproxy_command(peer_configs.HAPROXY_TCP), kind="tcp"
        ),
        Peer("portforward", sys.executable, 18108, _script(peer_configs.PORTFORWARD), kind="tcp"),
        Peer(
            "balancebeam-tls",
            sys.executable,
            18110,
            balancebeam_tls_command(sys.executable),
            kind="tls",
        ),
        Peer("nginx-tls", "nginx", 18111, _nginx_tls, kind="tls"),
        Peer(
            "haproxy-tls",
            "haproxy",
            18112,
            haproxy_command(peer_configs.HAPROXY, peer_configs.HAPROXY_TLS),
            kind="tls",
        ),
    ]
    pypy = os.environ.get("BENCH_PYPY")
    if pypy:
        peers.append(Peer("balancebeam-pypy", pypy, 18105, _balancebeam(pypy)))
        tls = Peer("balancebeam-pypy-tls", pypy, 18113, balancebeam_tls_command(pypy), kind="tls")
        peers.append(tls)
    return {peer.name: peer for peer in peers}
