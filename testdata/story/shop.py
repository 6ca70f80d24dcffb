"""A shop with one metric, `errors`: a point a second for the Collector. A line on standard input breaks it, the next one heals it.

    shop.py [HOST:PORT]         default 127.0.0.1:14318
"""

import json
import sys
import threading
import time
import urllib.request

TO = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:14318"
broken = False


def watch() -> None:
    global broken
    for _ in sys.stdin:
        broken = not broken
        print("broken" if broken else "healed", flush=True)


def request(n: int) -> bytes:
    value = 40.0 if broken else 2.0 + n % 3 * 0.1
    point = {"timeUnixNano": str(time.time_ns()), "asDouble": value}
    metric = {"name": "errors", "gauge": {"dataPoints": [point]}}
    service = {"key": "service.name", "value": {"stringValue": "shop"}}
    resource = {"resource": {"attributes": [service]}, "scopeMetrics": [{"metrics": [metric]}]}
    return json.dumps({"resourceMetrics": [resource]}).encode()


threading.Thread(target=watch, daemon=True).start()
print("a point a second; press Enter to break it, and Enter again to heal it", flush=True)
n = 0
while True:
    headers = {"Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(f"http://{TO}/v1/metrics", request(n), headers)).read()
    n += 1
    time.sleep(1)
