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
  bind 127.0.0.1:{port} backlog 4096 {options}
  option forwardfor
  http-request set-header X-Forwarded-Proto {scheme}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header Via "1.1 haproxy"
  default_backend app
backend app
  http-reuse always
  server one 127.0.0.1:{backend} {server_options}
"""

HAPROXY_TLS = (
    "ssl crt {pem} alpn http/1.1 ssl-min-ver TLSv1.3 "
    "ciphersuites TLS_AES_256_GCM_SHA384 curves X25519"
)

HAPROXY_HTTP2_TLS = HAPROXY_TLS.replace("http/1.1", "h2")

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

# nginx 1.25 and later have the directive "http2 on", and still accept the option of "listen".
NGINX_GRPC = """
  upstream app {{ server 127.0.0.1:{backend}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096 http2;
    location / {{
      grpc_pass grpc://app; grpc_set_header Host $http_host;
      grpc_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      grpc_set_header X-Forwarded-Proto $scheme; grpc_set_header X-Forwarded-Host $http_host;
      grpc_set_header Via "2 nginx";
    }}
  }}
"""

BALANCEBEAM_HTTP2 = """
[frontend]
bind = "127.0.0.1:{port}"
h2c = true

[frontend.timeouts]
idle = 600

[pool]
upstreams = ["127.0.0.1:{backend}"]
{protocol}
"""

ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network\
.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          codec_type: HTTP2
          use_remote_address: true
          via: "2 envoy"
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: app, timeout: 0s}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
{tls}
  clusters:
  - name: app
    type: STATIC
{protocol}
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{socket_address: {{address: 127.0.0.1, port_value: {backend}}}}}
"""

ENVOY_TLS = """
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls\
.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2]
            tls_params:
              tls_minimum_protocol_version: TLSv1_3
              tls_maximum_protocol_version: TLSv1_3
              ecdh_curves: [X25519]
            tls_certificates:
            - certificate_chain: {{filename: {pem}}}
              private_key: {{filename: {pem}}}
"""

# The option for HTTP/2 between Envoy and the server.
ENVOY_HTTP2 = """
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
"""
