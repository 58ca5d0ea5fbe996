"""
The measured proxies with HTTP/2, and the gRPC server.

nginx is the server behind the proxies, with HTTP/1.1. Behind the proxies for gRPC it is
nghttpd, whose response to each call is a file with one message, and `grpc-status` as a trailer.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Callable

from bench import h2load, peer_configs, peers
from bench.peers import BACKEND_PORT, LOAD_CORE, Peer, Process

GRPC_PORT = 18081


def start_grpc_backend(folder: Path) -> Process:
    """Start nghttpd as the gRPC server, and wait until it listens."""
    peers.ensure_free(GRPC_PORT)
    # The extension decides the content type of a response.
    (folder / "mime.types").write_text("application/grpc grpc\n")
    response = folder / h2load.GRPC_PATH.lstrip("/")
    response.parent.mkdir()
    response.write_bytes(h2load.GRPC_MESSAGE)
    command = ["nghttpd", "--no-tls", "--address=127.0.0.1", str(GRPC_PORT), "-d", str(folder)]
    command += ["--trailer=grpc-status: 0", f"--mime-types-file={folder / 'mime.types'}"]
    # HAProxy sends the requests of all clients on one connection.
    command += ["--max-concurrent-streams=1000"]
    process = Process(command, LOAD_CORE, folder)
    peers.wait_for_port(GRPC_PORT, process=process)
    return process


def _nginx(tls: bool) -> Callable[[Path, int], list[str]]:
    def command(folder: Path, port: int) -> list[str]:
        pem = peers.certificate(folder) if tls else None
        body = peer_configs.NGINX_PROXY.format(
            port=port,
            backend=BACKEND_PORT,
            listen_option=" ssl http2" if tls else " http2",
            tls=peer_configs.NGINX_TLS.format(pem=pem) if tls else "",
        )
        return peers.nginx_command(folder, body)

    return command


def _nginx_grpc(folder: Path, port: int) -> list[str]:
    body = peer_configs.NGINX_GRPC.format(port=port, backend=GRPC_PORT)
    return peers.nginx_command(folder, body)


def _envoy(tls: str, protocol: str, backend: int) -> Callable[[Path, int], list[str]]:
    def command(folder: Path, port: int) -> list[str]:
        config = folder / "envoy.yaml"
        pem = peers.certificate(folder) if tls else None
        values = {"tls": tls.format(pem=pem), "protocol": protocol}
        config.write_text(peer_configs.ENVOY.format(port=port, backend=backend, **values))
        return ["envoy", "-c", str(config), "--concurrency", "1", "--disable-hot-restart"]

    return command


def _balancebeam(protocol: str, backend: int) -> Callable[[Path, int], list[str]]:
    def command(folder: Path, port: int) -> list[str]:
        config = folder / "balancebeam.toml"
        text = peer_configs.BALANCEBEAM_HTTP2
        config.write_text(text.format(port=port, backend=backend, protocol=protocol))
        return [sys.executable, "-m", "balancebeam", "--config", str(config)]

    return command


def all_peers() -> dict[str, Peer]:
    """Return all proxies with HTTP/2 by name."""
    haproxy, haproxy_tls = peer_configs.HAPROXY, peer_configs.HAPROXY_HTTP2_TLS
    haproxy_h2 = peers.haproxy_command(haproxy, options="proto h2")
    haproxy_grpc = peers.haproxy_command(
        haproxy, options="proto h2", server_options="proto h2", backend=GRPC_PORT
    )
    envoy_tls, envoy_grpc = peer_configs.ENVOY_TLS, peer_configs.ENVOY_HTTP2
    python = sys.executable
    with_grpc = 'protocol = "h2"'
    listed = (
        Peer("balancebeam-h2", python, 18120, _balancebeam("", BACKEND_PORT), "h2"),
        Peer("nginx-h2", "nginx", 18121, _nginx(tls=False), "h2"),
        Peer("haproxy-h2", "haproxy", 18122, haproxy_h2, "h2"),
        Peer("envoy-h2", "envoy", 18123, _envoy("", "", BACKEND_PORT), "h2"),
        Peer("balancebeam-h2-tls", python, 18124, peers.balancebeam_tls_command(python), "h2-tls"),
        Peer("nginx-h2-tls", "nginx", 18125, _nginx(tls=True), "h2-tls"),
        Peer(
            "haproxy-h2-tls",
            "haproxy",
            18126,
            peers.haproxy_command(haproxy, haproxy_tls),
            "h2-tls",
        ),
        Peer("envoy-h2-tls", "envoy", 18127, _envoy(envoy_tls, "", BACKEND_PORT), "h2-tls"),
        Peer("balancebeam-grpc", python, 18128, _balancebeam(with_grpc, GRPC_PORT), "grpc"),
        Peer("nginx-grpc", "nginx", 18129, _nginx_grpc, "grpc"),
        Peer("haproxy-grpc", "haproxy", 18130, haproxy_grpc, "grpc"),
        Peer("envoy-grpc", "envoy", 18131, _envoy("", envoy_grpc, GRPC_PORT), "grpc"),
    )
    return {peer.name: peer for peer in listed}
