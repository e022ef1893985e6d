"""Keystone as its users have it, in a process of its own: its public WSGI application gets requests.

``python keystone_peer.py FOLDER URL PLAIN``: an empty folder, the URL Keystone is configured with, and one of the same
database as PostgreSQL, for ``keystone-manage db_sync``. It prints a line of JSON for every duplicate:
``what``, ``installed``, ``first`` and ``second`` (the statuses of the two requests) and ``message``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CONF = """
[database]
connection = {url}
[token]
provider = fernet
[fernet_tokens]
key_repository = {folder}/fernet
[fernet_receipts]
key_repository = {folder}/receipts
[credential]
key_repository = {folder}/credential
[cache]
enabled = false
[identity]
password_hash_rounds = 4
"""
KEYS = {"fernet": "fernet_tokens", "receipts": "fernet_receipts", "credential": "credential"}
PASSWORD = "open sesame"


def serve(folder: Path, url: str, plain: str) -> Any:
    """Keystone's public application, after what an operator does before the first start."""
    # Keystone parses sys.argv itself.
    sys.argv[1:] = []
    for name in KEYS:
        (folder / name).mkdir(mode=0o700)
    for name, given in (("keystone.conf", url), ("plain.conf", plain)):
        (folder / name).write_text(CONF.format(url=given, folder=folder), encoding="utf-8")
    os.environ["OS_KEYSTONE_CONFIG_DIR"] = str(folder)

    from keystone.common import fernet_utils
    from keystone.server import wsgi

    for name, group in KEYS.items():
        fernet_utils.FernetUtils(str(folder / name), 3, group).initialize_key_repository()
    manage("db_sync", config=folder / "plain.conf")
    manage("bootstrap", "--bootstrap-password", PASSWORD, config=folder / "keystone.conf")
    application = wsgi.initialize_public_application()
    return application.test_client()


def manage(*command: str, config: Path) -> None:
    """Run the real ``keystone-manage``; what it prints is no answer, so it goes to standard error."""
    program = Path(sys.executable).with_name("keystone-manage")
    subprocess.run([program, "--config-file", config, *command], stdout=sys.stderr, check=True, timeout=120)


def log_in(client: Any) -> dict[str, str]:
    """The header that an administrator's requests carry."""
    domain = {"id": "default"}
    answer = client.post(
        "/v3/auth/tokens",
        json={
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": {"name": "admin", "domain": domain, "password": PASSWORD}},
                },
                "scope": {"project": {"name": "admin", "domain": domain}},
            }
        },
    )
    if answer.status_code != 201:
        raise RuntimeError(answer.get_data(as_text=True))
    return {"X-Auth-Token": answer.headers["X-Subject-Token"]}


def main() -> None:
    client = serve(Path(sys.argv[1]), *sys.argv[2:4])
    token = log_in(client)
    for installed in (False, True):
        if installed:
            from contraflow.integrations import oslo_db

            oslo_db.install()
        for what in ("user", "group", "project", "domain", "role"):
            thing = {what: {"name": f"{what} {installed}"}}
            first, second = (client.post(f"/v3/{what}s", json=thing, headers=token) for _ in range(2))
            message = second.get_json().get("error", {}).get("message")
            line = {"what": what, "installed": installed, "first": first.status_code, "second": second.status_code}
            sys.stdout.write(json.dumps({**line, "message": message}) + "\n")


if __name__ == "__main__":
    main()
