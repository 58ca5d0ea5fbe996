"""Templates of the configuration files and scripts of the measured proxies."""

from __future__ import annotations

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 9000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; default_type text/plain;
  {body}
}}
"""

NGINX_BACKEND = """
  open_file_cache max=10; sendfile on; tcp_nopush off;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    listen 127.0.0.2:{port} backlog=4096;
    listen 127.0.0.3:{port} backlog=4096;
    {more}
    location /1m {{ alias {folder}/1m; }}
    location / {{ return 200 "hello world\\n"; }}
  }}
"""

NGINX_PROXY = """
  upstream app {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096{listen_option};
    {tls}
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header Via "1.1 nginx";
    }}
  }}
"""

NGINX_TLS = """
    ssl_certificate {pem}; ssl_certificate_key {pem};
    ssl_protocols TLSv1.3; ssl_ecdh_curve X25519; ssl_session_tickets on;
    ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;
"""

HAPROXY = """
global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 60s
frontend web
  bind 127.0.0.1:{port} backlog 4096 {tls}
  option forwardfor
  http-request set-header X-Forwarded-Proto {scheme}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header Via "1.1 haproxy"
  default_backend app
backend app
  http-reuse always
  server one 127.0.0.1:{backend}
"""

HAPROXY_TLS = (
    "ssl crt {pem} alpn http/1.1 ssl-min-ver TLSv1.3 "
    "ciphersuites TLS_AES_256_GCM_SHA384 curves X25519"
)

HAPROXY_TCP = """
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

PORTFORWARD = """
from twisted.internet import reactor
from twisted.protocols.portforward import ProxyFactory
factory = ProxyFactory("127.0.0.1", {backend})
factory.noisy = False
reactor.listenTCP({port}, factory, interface="127.0.0.1", backlog=4096)
reactor.run()
"""

TWISTED = """
import sys
from twisted.internet import reactor
from twisted.web import proxy, server, http
site = server.Site(proxy.ReverseProxyResource("127.0.0.1", {backend}, b""))
site.log = lambda request: None
reactor.listenTCP({port}, site, interface="127.0.0.1")
reactor.run()
"""
