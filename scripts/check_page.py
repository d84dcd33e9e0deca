"""Looks at the service's pages in a real browser, while the service is under load. scripts/check-page runs it.

    python check_page.py --serve COMMAND --model DIR --browser CHROMIUM --out FOLDER

The page must render, its form must answer, and nothing may be fetched from elsewhere. Screenshots go to FOLDER, for a
person to look at.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import threading
import urllib.request

from playwright.sync_api import expect, sync_playwright

SIZES = {"wide": (1280, 1250), "narrow": (390, 1900)}
CLIENTS = 6


def start(command, model):
    """Starts the service on a free port, and returns it with its address."""
    words = [command, "serve", "--model", model, "--port", "0"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in process.stderr:
        found = re.search(r"ready in .* at (http://[^ ,]+)", line)
        if found:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, found[1]
    sys.exit(f"check-page: {command} did not get ready")


def load(base, stop):
    """Sends one request after the other until told to stop."""
    body = json.dumps({"texts": ["some words of documentation to be embedded"] * 8}).encode()
    while not stop.is_set():
        request = urllib.request.Request(f"{base}/embed", body, {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=60).read()


def check(condition, message):
    if not condition:
        sys.exit(f"check-page: {message}")


def look_at(browser, base, out):
    for theme in ("light", "dark"):
        for name, (width, height) in SIZES.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
            asked, said = [], []
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: said.append(str(error)))
            page.goto(base)
            # The pages' policy forbids to wait by a script of our own.
            expect(page.locator("#badge")).to_have_text("ready")
            page.click("#send")
            expect(page.locator("#cosine")).to_have_text(re.compile("[0-9]"), timeout=60_000)
            cosine = float(page.text_content("#cosine").replace("\u2212", "-"))
            check(0.2 < cosine < 0.99, f"the cosine of the two example texts is {cosine}")
            page.wait_for_timeout(4_000)
            rate = page.text_content("#legend-rate")
            check(re.search(r"[1-9]", rate), f"the throughput is not shown: {rate}")
            page.screenshot(path=out / f"page-{theme}-{name}.png")
            wide = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
            check(not wide, f"the page is wider than {width} pixels")
            page.goto(f"{base}/docs")
            expect(page.locator("body")).to_contain_text("/v1/embeddings")
            page.screenshot(path=out / f"docs-{theme}-{name}.png")
            strays = [url for url in asked if not url.startswith((base, "data:"))]
            check(not strays, f"fetched from elsewhere: {strays}")
            check(not said, f"the console says {said}")
            print(f"{theme}, {width} x {height}: cosine {cosine}, {len(asked)} requests, none elsewhere; {rate}")
            page.close()


def main():
    parser = argparse.ArgumentParser()
    for name in ("serve", "model", "browser", "out"):
        parser.add_argument(f"--{name}", required=True)
    options = parser.parse_args()
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    process, base = start(options.serve, options.model)
    stop = threading.Event()
    clients = [threading.Thread(target=load, args=(base, stop)) for _ in range(CLIENTS)]
    try:
        [client.start() for client in clients]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=options.browser, args=["--no-sandbox"])
            look_at(browser, base, out)
            browser.close()
    finally:
        stop.set()
        [client.join() for client in clients]
        process.terminate()
        process.wait()
    print(f"look at the screenshots in {out}")


main()
