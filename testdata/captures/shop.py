"""The shop's real programs: their configuration, and how they are started, broken and stopped.

Knows nothing of what is measured, or when things break: that is record_shop.py's.
"""

import os
import pathlib
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
NODES = ["shop-1", "shop-2", "shop-3", "shop-4"]
ROUTES = ["pages", "checkout", "pay"]

CONNECTIONS = 240
RATE = 200
WAVE_S = 600

# Median answer times of the services behind the nodes.
STORE_MS = 8
PAYMENTS_MS = 30

# A release of the shop is a set of locations. v3 is the bad one: a slip of the pen in a path.
CHECKOUT_PATH = {"v1": "/checkout", "v2": "/checkout", "v3": "/chekout"}

HEALTH_CHECK = "check inter 2s fall 3 rise 2"
TEMP_KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def nginx_config(folder, ports, node, version, bad):
    fail = "if ($unlucky) { return 500; }" if bad else ""
    user = "user nobody nogroup;" if os.geteuid() == 0 else ""
    temp = "\n".join(f"    {kind}_temp_path {folder}/{kind};" for kind in TEMP_KINDS)
    return f"""
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_shutdown_timeout 5s;
events {{ worker_connections 1024; }}
http {{
{temp}
    access_log off;
    keepalive_requests 1000000;
    keepalive_timeout 120s;
    split_clients $request_id $unlucky {{ 50% 1; * ""; }}
    upstream store {{
        server 127.0.0.1:{ports['store']};
        keepalive 32;
        keepalive_timeout 20s;
        keepalive_requests 1000000;
    }}
    upstream payments {{
        server 127.0.0.1:{ports['payments']};
        keepalive 32;
        keepalive_timeout 20s;
        keepalive_requests 1000000;
    }}
    server {{
        listen 127.0.0.1:{ports[node]};
        server_name shop;
        add_header X-Shop-Version {version} always;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        location = /healthz {{ return 200 "ok\\n"; }}
        location = /stub_status {{ stub_status; }}
        location = / {{ {fail} proxy_pass http://store; }}
        location /product/ {{ {fail} proxy_pass http://store; }}
        location /cart {{ {fail} proxy_pass http://store; }}
        location {CHECKOUT_PATH[version]} {{ {fail} proxy_pass http://store; }}
        location /pay {{ {fail} proxy_pass http://payments; }}
        location /static/ {{ {fail} return 200 "body {{ margin: 2em; font: 16px sans-serif }}\\n"; }}
        location / {{ {fail} return 404; }}
    }}
}}
"""


def haproxy_config(folder, ports):
    backends = "\n".join(haproxy_backend(route, ports) for route in ROUTES)
    return f"""
global
    maxconn 2000
    nbthread 1
    stats socket {folder}/haproxy.sock mode 600 level user
    log 127.0.0.1:{ports['log']} format raw local0

defaults
    mode http
    log global
    log-format "request %b %s %Ta"
    timeout connect 1s
    timeout client 120s
    timeout server 10s
    timeout http-keep-alive 120s
    balance roundrobin
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response

frontend shop
    bind 127.0.0.1:{ports['shop']}
    use_backend checkout if {{ path_beg /checkout }}
    use_backend pay if {{ path_beg /pay }}
    default_backend pages

{backends}
frontend payments-front
    bind 127.0.0.1:{ports['payments']}
    default_backend payments

backend payments
    option tcp-check
    server payments-1 127.0.0.1:{ports['payments-1']} {HEALTH_CHECK}
"""


def haproxy_backend(route, ports):
    """One route's servers. The pages' are health-checked, and the other routes follow them."""
    checked = route == "pages"
    lines = [f"backend {route}"]
    if checked:
        lines.append("    option httpchk GET /healthz")
    for node in NODES:
        check = HEALTH_CHECK if checked else f"track pages/{node}"
        lines.append(f"    server {node} 127.0.0.1:{ports[node]} {check}")
    return "\n".join(lines) + "\n"


class Shop:
    """The running programs. Each is a child of its own, and is stopped by its own process id."""

    def __init__(self, folder, port_base, scale):
        self.folder = folder
        self.scale = scale
        names = ["shop"] + NODES + ["payments", "payments-1", "store", "log"]
        self.ports = {name: port_base + i for i, name in enumerate(names)}
        self.version = {node: "v1" for node in NODES}
        self.bad = {node: False for node in NODES}
        self.children = {}

    def spawn(self, name, *command, **env):
        with open(self.folder / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A session of its own: `kill_node` then reaches the workers too, and nobody else.
                start_new_session=True,
                env={**os.environ, **env},
            )
        raise_session(child.pid)
        self.children[name] = child

    def start(self):
        for name, median_ms in (("store", STORE_MS), ("payments-1", PAYMENTS_MS)):
            self.slow_down(name, 0)
            backend = [str(HERE / "shop_backend.py"), str(self.ports[name]), str(median_ms), str(self.control(name))]
            self.spawn(name, sys.executable, *backend)
        for node in NODES:
            self.start_node(node)
        config = self.folder / "haproxy.cfg"
        config.write_text(haproxy_config(self.folder, self.ports))
        self.spawn("haproxy", "haproxy", "-W", "-db", "-f", str(config))
        time.sleep(2)

    def start_load(self, start):
        self.load(1)
        self.spawn(
            "wrk", "wrk", "-t1", f"-c{CONNECTIONS}", "-d2h", "--timeout", "10s", "-s", str(HERE / "shop_load.lua"),
            f"http://127.0.0.1:{self.ports['shop']}",
            SHOP_RATE=str(RATE), SHOP_CONNECTIONS=str(CONNECTIONS), SHOP_WAVE=str(WAVE_S * self.scale),
            SHOP_START=str(start), SHOP_CONTROL=str(self.control("wrk")),
        )

    def control(self, name):
        return self.folder / f"{name}.control"

    def write_control(self, name, value):
        # Renamed into place, so that a reader never sees half a file.
        fresh = self.folder / f"{name}.fresh"
        fresh.write_text(f"{value}\n")
        fresh.rename(self.control(name))

    def slow_down(self, name, ms):
        self.write_control(name, ms)

    def load(self, factor):
        self.write_control("wrk", factor)

    def write_node(self, node):
        folder = self.folder / node
        folder.mkdir(exist_ok=True)
        config = folder / "nginx.conf"
        config.write_text(nginx_config(folder, self.ports, node, self.version[node], self.bad[node]))
        return config

    def start_node(self, node):
        self.spawn(node, "nginx", "-c", str(self.write_node(node)), "-p", str(self.folder / node))

    def reload_node(self, node):
        self.write_node(node)
        self.children[node].send_signal(signal.SIGHUP)

    def deploy_node(self, node, version):
        self.version[node] = version
        self.reload_node(node)

    def spoil_node(self, node, bad):
        self.bad[node] = bad
        self.reload_node(node)

    def kill_node(self, node):
        child = self.children.pop(node)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def check_alive(self):
        for name, child in self.children.items():
            if child.poll() is not None:
                raise RuntimeError(f"{name} ended with {child.returncode}; see {self.folder}")

    def stop(self):
        for name in sorted(self.children, key=lambda name: name != "wrk"):
            child = self.children[name]
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(5)
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()


def raise_session(pid):
    """Gives a session the priority of its leader: with autogroups, `nice` alone counts only within a session."""
    try:
        nice = os.getpriority(os.PRIO_PROCESS, pid)
        pathlib.Path(f"/proc/{pid}/autogroup").write_text(str(nice))
    except OSError:
        pass
